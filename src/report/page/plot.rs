//! The report's plots, as SVG that follows the page's colours.
//!
//! Must not know what is compared. plotters writes fixed colours; a colour here is a number that the page's style sheet gives a meaning in light and in
//! dark, so one SVG serves both: `#0000NN` is the NN-th colour, `#00FFnn` a role.

use plotters::{
    coord::ranged1d::Ranged,
    prelude::*,
    style::{
        RGBColor,
        text_anchor::{HPos, Pos, VPos},
    },
};

/// A plot that can't be drawn.
#[derive(Debug, thiserror::Error)]
#[error("a plot can't be drawn: {0}")]
pub struct PlotError(String);

fn failed(error: impl std::fmt::Display) -> PlotError {
    PlotError(error.to_string())
}

/// A variant's score against what it costs.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// What stands at the point.
    pub label: String,
    /// Its colour.
    pub colour: usize,
    /// Bytes.
    pub bytes: f64,
    /// The score.
    pub score: f64,
    /// Where it lies.
    pub interval: Option<(f64, f64)>,
}

/// A line through points.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Its colour.
    pub colour: usize,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

const SIZE: (u32, u32) = (560, 340);
const MARGIN: u32 = 8;
/// Pixels of the labels of the x axis.
const BELOW: u32 = 50;
/// Pixels of the labels of the y axis.
const LEFT: u32 = 58;
/// Pixels of a plot's inside.
const WIDTH: f64 = (SIZE.0 - LEFT - 2 * MARGIN) as f64;
const HEIGHT: f64 = (SIZE.1 - BELOW - 2 * MARGIN) as f64;
/// Pixels between a plot's edge and a point.
const EDGE: f64 = 20.0;
/// Pixels that a point and its label take, across and down.
const LABEL: (f64, f64) = (27.0, 16.0);
/// Pixels between lines that are told apart.
const LINE: f64 = 11.0;
const INK: RGBColor = RGBColor(0, 255, 0);
const GRID: RGBColor = RGBColor(0, 255, 1);

fn colour(number: usize) -> RGBColor {
    RGBColor(0, 0, (number % COLOURS) as u8)
}

/// Colours that the style sheet knows; more variants begin with the first again.
pub const COLOURS: usize = 10;

/// Scores against bytes a row, on a scale of powers. Where points would lie on one another they stand side by side.
///
/// # Errors
/// Where there is nothing to draw.
pub fn costs(points: &[Cost], score: &str) -> Result<String, PlotError> {
    let low = |point: &Cost| point.interval.map_or(point.score, |interval| interval.0);
    let high = |point: &Cost| point.interval.map_or(point.score, |interval| interval.1);
    let y = padded(points.iter().map(low).chain(points.iter().map(high)));
    let scale = Scale::of(points, y);
    drawn(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(MARGIN)
            .x_label_area_size(BELOW)
            .y_label_area_size(LEFT)
            .build_cartesian_2d((scale.bytes_at(0.0)..scale.bytes_at(WIDTH)).log_scale(), y.0..y.1)
            .map_err(failed)?;
        mesh(&mut chart, "bytes an image", score, &|bytes| super::super::bytes(*bytes as u64))?;
        for (point, place) in points.iter().zip(scale.places(points)) {
            let style = colour(point.colour);
            let x = scale.bytes_at(place);
            if let Some((low, high)) = point.interval {
                let line = PathElement::new(vec![(x, low), (x, high)], style.stroke_width(2));
                chart.draw_series([line]).map_err(failed)?;
            }
            chart.draw_series([Circle::new((x, point.score), 5, style.filled())]).map_err(failed)?;
            let text = ("sans-serif", 15).into_text_style(area).color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
            let label = EmptyElement::at((x, point.score)) + Text::new(point.label.clone(), (7, 0), text);
            chart.draw_series([label]).map_err(failed)?;
        }
        Ok(())
    })
}

/// Bytes as pixels from the left edge of a plot.
struct Scale {
    /// Logarithm of the bytes at pixel 0.
    start: f64,
    /// Logarithms a pixel.
    slope: f64,
    /// Pixels a point of the score.
    height: f64,
}

impl Scale {
    fn of(points: &[Cost], y: (f64, f64)) -> Self {
        let bytes = || points.iter().map(|point| point.bytes.max(1.0).ln());
        let (least, most) = (bytes().fold(f64::MAX, f64::min), bytes().fold(0.0, f64::max));
        // One point, or points of the same bytes, still need a scale.
        let slope = (most - least).max(1.0) / (WIDTH - 2.0 * (EDGE + LABEL.0));
        Self { start: (least.min(most) + most) / 2.0 - slope * WIDTH / 2.0, slope, height: HEIGHT / (y.1 - y.0) }
    }

    fn bytes_at(&self, pixel: f64) -> f64 {
        (self.start + self.slope * pixel).exp()
    }

    /// A pixel for each point.
    fn places(&self, points: &[Cost]) -> Vec<f64> {
        let wanted: Vec<f64> =
            points.iter().map(|point| (point.bytes.max(1.0).ln() - self.start) / self.slope).collect();
        let gap = |one: usize, two: usize| {
            let apart = (points[one].score - points[two].score).abs() * self.height;
            if apart < LABEL.1 { LABEL.0 } else { LINE }
        };
        apart(&wanted, &gap, EDGE, WIDTH - EDGE)
    }
}

/// Moves numbers as little as possible (in squares), each at least `gap` (of the two) from the next, in their order (that of the
/// list where they are the same), and between `least` and `most`; where there is no room for the gaps, all of them are smaller.
fn apart(numbers: &[f64], gap: &dyn Fn(usize, usize) -> f64, least: f64, most: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&one, &two| numbers[one].total_cmp(&numbers[two]));
    let mut offsets = vec![0.0; numbers.len()];
    for (at, pair) in order.windows(2).enumerate() {
        offsets[at + 1] = offsets[at] + gap(pair[0], pair[1]);
    }
    let all = offsets.last().copied().unwrap_or(0.0);
    if all > most - least {
        offsets.iter_mut().for_each(|offset| *offset *= (most - least) / all);
    }
    // Less their gaps they need only not to fall: blocks that do are joined at their mean.
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    for (&number, offset) in order.iter().zip(&offsets) {
        let mut block = (numbers[number] - offset, 1);
        while let Some(before) = blocks.pop_if(|before| before.0 >= block.0) {
            let count = before.1 + block.1;
            block = ((before.0 * before.1 as f64 + block.0 * block.1 as f64) / count as f64, count);
        }
        blocks.push(block);
    }
    let highest = most - offsets.last().copied().unwrap_or(0.0);
    let levels = blocks.iter().flat_map(|&(level, count)| std::iter::repeat_n(level, count));
    let mut places = vec![0.0; numbers.len()];
    for ((&number, offset), level) in order.iter().zip(&offsets).zip(levels) {
        places[number] = level.max(least).min(highest) + offset;
    }
    places
}

/// Curves by epoch.
///
/// # Errors
/// Where there is nothing to draw.
pub fn curves(lines: &[Curve], title: &str) -> Result<String, PlotError> {
    let all = || lines.iter().flat_map(|line| &line.points);
    let y = padded(all().map(|point| point.1));
    let last = all().map(|point| point.0).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    drawn(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(MARGIN)
            .x_label_area_size(BELOW)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(0.0..last, y.0..y.1)
            .map_err(failed)?;
        mesh(&mut chart, "epoch", title, &|epoch| short(*epoch))?;
        for line in lines {
            let series = LineSeries::new(line.points.iter().copied(), colour(line.colour).stroke_width(2));
            chart.draw_series(series).map_err(failed)?;
        }
        Ok(())
    })
}

fn mesh<'a, X>(
    chart: &mut ChartContext<'a, SVGBackend<'_>, Cartesian2d<X, plotters::coord::types::RangedCoordf64>>,
    x: &str,
    y: &str,
    show: &dyn Fn(&f64) -> String,
) -> Result<(), PlotError>
where
    X: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
{
    let text = ("sans-serif", 15).into_font().color(&INK);
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .x_labels(6)
        .y_labels(6)
        .max_light_lines(0)
        .bold_line_style(GRID)
        .axis_style(GRID)
        .label_style(text.clone())
        .axis_desc_style(text)
        .x_label_formatter(&|value| show(value))
        .y_label_formatter(&|value| short(*value))
        .draw()
        .map_err(failed)
}

/// Draws into SVG that takes the width it is given.
fn drawn(
    draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Result<(), PlotError>,
) -> Result<String, PlotError> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        draw(&area)?;
        area.present().map_err(failed)?;
    }
    let sized = format!("width=\"{}\" height=\"{}\" ", SIZE.0, SIZE.1);
    Ok(svg.replacen(&sized, "role=\"img\" ", 1))
}

/// From the least of `values` to the highest of them, and a little more.
fn padded(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return (0.0, 1.0);
    }
    let more = 0.06 * (high - low).max(1e-3 * high.abs()).max(1e-9);
    (low - more, high + more)
}

fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_is_an_svg_without_a_colour_of_its_own() {
        let point = |bytes, score| Cost {
            label: "1 <grid>".into(),
            colour: 1,
            bytes,
            score,
            interval: Some((score - 1.0, score + 1.0)),
        };
        let svg = costs(&[point(2560.0, 41.0), point(125_440.0, 44.0)], "CIDEr").unwrap();
        assert!(svg.starts_with("<svg role=\"img\" viewBox"), "{svg}");
        assert!(svg.contains("#000001") && svg.contains("&lt;grid&gt;"));
        let line = Curve { colour: 0, points: vec![(0.5, 3.0), (1.0, 2.0)] };
        let svg = curves(&[line], "loss").unwrap();
        let colours: Vec<&str> = svg.match_indices("=\"#").map(|(at, _)| &svg[at + 2..at + 9]).collect();
        assert!(colours.iter().all(|colour| colour.starts_with("#0000") || colour.starts_with("#00FF")), "{colours:?}");
    }

    #[test]
    fn points_of_the_same_bytes_stand_side_by_side() {
        let ten = |numbers: &[f64], most| apart(numbers, &|_, _| 10.0, 0.0, most);
        assert_eq!(ten(&[50.0, 20.0], 100.0), [50.0, 20.0]);
        assert_eq!(ten(&[50.0, 50.0, 50.0, 90.0], 100.0), [40.0, 50.0, 60.0, 90.0]);
        assert_eq!(ten(&[0.0, 0.0, 99.0, 98.0], 100.0), [0.0, 10.0, 100.0, 90.0]);
        assert_eq!(ten(&[5.0, 5.0, 5.0], 12.0), [0.0, 6.0, 12.0]);
        assert!(ten(&[], 12.0).is_empty());
        let points: Vec<Cost> = [(2600.0, 40.0), (2600.0, 39.9), (2600.0, 20.0), (125_440.0, 30.0)]
            .map(|(bytes, score)| Cost { label: String::new(), colour: 0, bytes, score, interval: None })
            .into();
        let scale = Scale::of(&points, (20.0, 40.0));
        let places = scale.places(&points);
        // Labels of nearly one height need their width, others only a line's.
        assert!((places[1] - places[0] - LABEL.0).abs() < 1e-9 && (places[2] - places[1] - LINE).abs() < 1e-9);
        assert!((scale.bytes_at(places[3]) - 125_440.0).abs() < 1e-3);
        assert!((scale.bytes_at(places[..3].iter().sum::<f64>() / 3.0) - 2600.0).abs() < 1e-6);
    }

    #[test]
    fn one_point_and_none_are_drawn() {
        assert!(costs(&[], "CIDEr").is_ok());
        assert!(curves(&[Curve { colour: 0, points: vec![(1.0, 0.0)] }], "score").is_ok());
        assert!(curves(&[], "score").is_ok());
        assert_eq!(padded([2.0, f64::NAN].into_iter()).0, 2.0 - 0.06 * 0.002);
    }
}
