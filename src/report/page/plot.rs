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
const INK: RGBColor = RGBColor(0, 255, 0);
const GRID: RGBColor = RGBColor(0, 255, 1);

fn colour(number: usize) -> RGBColor {
    RGBColor(0, 0, (number % COLOURS) as u8)
}

/// Colours that the style sheet knows; more variants begin with the first again.
pub const COLOURS: usize = 10;

/// Scores against bytes a row, on a scale of powers.
///
/// # Errors
/// Where there is nothing to draw.
pub fn costs(points: &[Cost], score: &str) -> Result<String, PlotError> {
    let low = |point: &Cost| point.interval.map_or(point.score, |interval| interval.0);
    let high = |point: &Cost| point.interval.map_or(point.score, |interval| interval.1);
    let y = padded(points.iter().map(low).chain(points.iter().map(high)));
    let least = points.iter().map(|point| point.bytes).fold(f64::MAX, f64::min).max(1.0) / 2.0;
    let most = points.iter().map(|point| point.bytes).fold(1.0, f64::max) * 2.0;
    drawn(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(50)
            .y_label_area_size(58)
            .build_cartesian_2d((least..most).log_scale(), y.0..y.1)
            .map_err(failed)?;
        mesh(&mut chart, "bytes an image", score, &|bytes| super::super::bytes(*bytes as u64))?;
        for point in points {
            let style = colour(point.colour);
            if let Some((low, high)) = point.interval {
                let line = PathElement::new(vec![(point.bytes, low), (point.bytes, high)], style.stroke_width(2));
                chart.draw_series([line]).map_err(failed)?;
            }
            chart.draw_series([Circle::new((point.bytes, point.score), 5, style.filled())]).map_err(failed)?;
            let text = ("sans-serif", 15).into_text_style(area).color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
            let label = EmptyElement::at((point.bytes, point.score)) + Text::new(point.label.clone(), (9, 0), text);
            chart.draw_series([label]).map_err(failed)?;
        }
        Ok(())
    })
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
            .margin(8)
            .x_label_area_size(50)
            .y_label_area_size(58)
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
    fn one_point_and_none_are_drawn() {
        assert!(curves(&[Curve { colour: 0, points: vec![(1.0, 0.0)] }], "score").is_ok());
        assert!(curves(&[], "score").is_ok());
        assert_eq!(padded([2.0, f64::NAN].into_iter()).0, 2.0 - 0.06 * 0.002);
    }
}
