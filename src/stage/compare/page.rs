//! The report: words and numbers for the page, and as much of the gallery as there is room for.
//!
//! Must not know HTML. Room is given in this order: the tables and plots, the captions, the photographs, and of what is left at most a part
//! to attention, which is the largest and the least often looked at.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use icecap_cache::Cache;
use serde_json::Value;

use super::{
    CompareOptions, Comparison, Facts, Group, Report, Variant,
    entrant::Entrant,
    gallery,
    looks::{self, Looker},
    photos::{Photos, base64_bytes},
};
use crate::{
    metrics::{Interval, Metric},
    progress::Progress,
    report::{
        self,
        page::{self, COLOURS, Cell, Cost, Curve, Data, Image, MOST_BYTES, Page, Pair, Provenance, Row, RunData},
    },
};

/// Bytes of a page that attention may take.
const LOOKS_BYTES: usize = 2_200_000;
/// Captions that are said again for their attention, at most: it takes milliseconds each.
const MOST_LOOKS: usize = 3000;
/// What stands between an image's parts and is counted nowhere else.
const MARGIN_BYTES: usize = 120_000;

/// What a report is made of.
pub(super) struct View<'a> {
    pub entrants: &'a [Entrant],
    pub facts: &'a [Facts],
    pub groups: &'a [Group],
    pub caches: &'a HashMap<PathBuf, Cache>,
}

/// Writes the report to `path`.
pub(super) fn write(
    path: &Path,
    comparison: &Comparison,
    view: &View<'_>,
    options: &CompareOptions,
    progress: &dyn Progress,
) -> Result<Report> {
    let mut words = words(comparison, view)?;
    let mut data = Data { images: Vec::new(), ..data(comparison, view) };
    let fixed = page::render(&words, &serde_json::to_string(&data)?)?.len();
    let room = MOST_BYTES.saturating_sub(fixed + MARGIN_BYTES);
    let (images, rule) = gallery_of(view, options, room, &mut words, progress)?;
    words.gallery_rule = rule;
    data.images = images;
    let html = page::render(&words, &serde_json::to_string(&data)?)?;
    let unwritable = || format!("the report `{}` can't be written", path.display());
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(unwritable)?;
    }
    fs::write(path, &html).with_context(unwritable)?;
    Ok(Report { path: path.to_owned(), bytes: html.len() as u64, gallery: data.images.len() })
}

/// The images that there is room for, and the rule by which they were chosen.
fn gallery_of(
    view: &View<'_>,
    options: &CompareOptions,
    room: usize,
    words: &mut Page,
    progress: &dyn Progress,
) -> Result<(Vec<Image>, String)> {
    let count = view.entrants[0].scored.images.len();
    let mut all: Vec<Image> = (0..count).map(|at| gallery::image(at, view.entrants, view.groups)).collect();
    let lookers = looks::lookers(view.entrants, view.groups, view.caches, &options.device)?;
    let order = gallery::order(&all);
    let text: Vec<usize> = all.iter().map(|image| serde_json::to_vec(image).map_or(0, |json| json.len())).collect();
    let for_looks = if lookers.is_empty() { 0 } else { LOOKS_BYTES.min(room / 4) };
    let mut left = room - for_looks;
    let ids: Vec<String> = order.iter().map(|at| all[*at].id.clone()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    progress.start("photographs", Some(count as u64));
    let photos = find_photos(view, options);
    if let Err(why) = &photos {
        words.notes.push(why.clone());
    }
    let (mut chosen, mut sizes) = (Vec::new(), HashMap::new());
    let mut place = 0;
    let mut take = |bytes: usize| {
        let taken = text[order[place]] + bytes <= left;
        if taken {
            left -= text[order[place]] + bytes;
            place += 1;
            progress.advance(1);
        }
        taken
    };
    if let Ok(photos) = &photos {
        let side = photos.side(&ids, (room - for_looks).saturating_sub(text.iter().sum()));
        let kept = photos.shrink_while(&ids, side, |thumbnail| {
            take(thumbnail.map_or(0, |thumbnail| base64_bytes(thumbnail.jpeg.len()) + 32))
        });
        for (at, thumbnail) in order.iter().zip(kept) {
            if let Some(thumbnail) = thumbnail {
                all[*at].photo = Some(BASE64.encode(&thumbnail.jpeg));
                all[*at].size = Some([thumbnail.size.0, thumbnail.size.1]);
                sizes.insert(*at, thumbnail.original_size);
            }
            chosen.push(*at);
        }
    } else {
        chosen.extend(order.iter().copied().take_while(|_| take(0)));
    }
    progress.finish();
    let looked = add_looks(&mut all, &chosen, &lookers, &sizes, for_looks + left, progress);
    words.attention_rule = attention_rule(looked, chosen.len(), &lookers);
    let rule = rule(chosen.len(), count);
    let mut kept: Vec<Image> = chosen.into_iter().map(|at| std::mem::take(&mut all[at])).collect();
    kept.sort_by(|a, b| b.apart.total_cmp(&a.apart));
    Ok((kept, rule))
}

fn find_photos(view: &View<'_>, options: &CompareOptions) -> Result<Photos, String> {
    let mut why = "no photographs: the runs say of no data folder".to_owned();
    for entrant in view.entrants {
        let data = options.data.as_ref().unwrap_or(&entrant.run.info.data);
        match Photos::find(&entrant.run.recipe, data) {
            Ok(photos) => return Ok(photos),
            Err(said) => why = said,
        }
    }
    Err(format!("{why} (give the data folder by --data)"))
}

/// Adds where decoders looked to the first of the `chosen` images, as far as `room` goes; how many got it.
fn add_looks(
    all: &mut [Image],
    chosen: &[usize],
    lookers: &[Looker<'_>],
    sizes: &HashMap<usize, (u32, u32)>,
    room: usize,
    progress: &dyn Progress,
) -> usize {
    if lookers.is_empty() {
        return 0;
    }
    let most = (MOST_LOOKS / lookers.len()).min(chosen.len());
    let (mut left, mut looked) = (room, 0);
    progress.start("attention", Some(most as u64));
    for at in &chosen[..most] {
        progress.advance(1);
        let Some(size) = sizes.get(at) else { continue };
        let seen = looks::seen(lookers, *at, *size);
        let bytes = |value: serde_json::Result<Vec<u8>>| value.map_or(usize::MAX / 4, |json| json.len() + 16);
        let taken = bytes(serde_json::to_vec(&seen.looks)) + bytes(serde_json::to_vec(&seen.parts));
        if taken > left {
            break;
        }
        left -= taken;
        looked += 1;
        (all[*at].looks, all[*at].parts) = (seen.looks, seen.parts);
    }
    progress.finish();
    looked
}

fn rule(shown: usize, count: usize) -> String {
    if shown == count {
        return format!("All {count} images of the split.");
    }
    format!(
        "{shown} of the split's {count} images, as many as a report of 10 MB has room for: by turns the one that the variants disagree about most \
         (standard deviation of their CIDEr) and one drawn by chance (seed 0)."
    )
}

fn attention_rule(looked: usize, shown: usize, lookers: &[Looker<'_>]) -> String {
    match (lookers.is_empty(), looked) {
        (true, _) | (_, 0) => String::new(),
        (false, looked) if looked == shown => {
            "Point at a word of a caption marked ◉ to see where the decoder looked before it said it.".to_owned()
        }
        (false, looked) => format!(
            "{looked} of the images also show where attention decoders looked, for the first run of each variant: point at a word of a caption marked ◉."
        ),
    }
}

fn data(comparison: &Comparison, view: &View<'_>) -> Data {
    let place = |name: &str| comparison.variants.iter().position(|variant| variant.name == name).unwrap_or(0);
    let run = |at: &usize| {
        let entrant = &view.entrants[*at];
        let variant = view.groups.iter().position(|group| group.runs.contains(at)).unwrap_or(0);
        RunData { name: entrant.label.clone(), variant, recipe: entrant.run.recipe.resolved() }
    };
    let pair = |apart: &super::Apart| Pair {
        a: place(&apart.a),
        b: place(&apart.b),
        difference: signed(100.0 * apart.difference),
        interval: format!("{} to {}", signed(100.0 * apart.interval.low), signed(100.0 * apart.interval.high)),
        p: probability(apart.p_holm),
        significant: apart.significant,
    };
    Data {
        variants: comparison.variants.iter().map(|variant| variant.name.clone()).collect(),
        runs: view.groups.iter().flat_map(|group| &group.runs).map(run).collect(),
        pairs: comparison.differences.iter().map(pair).collect(),
        images: Vec::new(),
    }
}

/// All that the page says beside the gallery.
fn words(comparison: &Comparison, view: &View<'_>) -> Result<Page> {
    let name = comparison.metric.name();
    let count = comparison.variants.len();
    let lowest =
        comparison.variants.iter().filter_map(|variant| low(variant, comparison.metric)).fold(f64::MAX, f64::min);
    let highest =
        comparison.variants.iter().filter_map(|variant| high(variant, comparison.metric)).fold(f64::MIN, f64::max);
    let row = |(at, variant): (usize, &Variant)| row(at, variant, comparison, view, (lowest, highest));
    let title = match (count, view.entrants.len()) {
        (variants, runs) if variants == runs => format!("{runs} runs compared"),
        (variants, runs) => format!("{variants} variants compared, {runs} runs"),
    };
    let entrant = &view.entrants[0];
    Ok(Page {
        title,
        subject: format!("{} images of the split {}", comparison.images, comparison.split),
        verdict: verdict(comparison),
        metric: name.to_owned(),
        method: method(comparison, view),
        notes: comparison.notes.clone(),
        seeds: comparison.variants.iter().any(|variant| variant.runs.len() > 1),
        other_scores: others(comparison).iter().map(|other| other.name().to_owned()).collect(),
        rows: comparison.variants.iter().enumerate().map(row).collect(),
        cost_plot: cost_plot(comparison)?,
        loss_plot: curve_plot(view, "training loss", |facts| &facts.loss)?,
        score_plot: curve_plot(view, "validation score", |facts| &facts.score)?,
        score_plot_of: "greedy captions during the training".to_owned(),
        provenance: provenance(view, entrant),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Page::default()
    })
}

fn low(variant: &Variant, metric: Metric) -> Option<f64> {
    variant.intervals.get(&metric).map(|interval| interval.low)
}

fn high(variant: &Variant, metric: Metric) -> Option<f64> {
    variant.intervals.get(&metric).map(|interval| interval.high)
}

/// A score beside the one that ranks.
#[derive(Clone, Copy)]
enum Other {
    Of(Metric),
    Meteor,
}

impl Other {
    fn name(self) -> &'static str {
        match self {
            Self::Of(metric) => metric.name(),
            Self::Meteor => "METEOR",
        }
    }

    fn read(self, variant: &Variant) -> Option<f64> {
        match self {
            Self::Of(metric) => variant.scores.get(&metric).copied(),
            Self::Meteor => variant.meteor,
        }
    }
}

/// The scores beside the one that ranks.
fn others(comparison: &Comparison) -> Vec<Other> {
    let some = |metric: &Metric| comparison.variants.iter().any(|variant| variant.scores.contains_key(metric));
    let shown = [Metric::Cider, Metric::Bleu4, Metric::Bleu1, Metric::RougeL, Metric::ObjectRecall];
    let mut others: Vec<Other> =
        shown.into_iter().filter(|metric| *metric != comparison.metric && some(metric)).map(Other::Of).collect();
    others.extend(comparison.variants.iter().all(|variant| variant.meteor.is_some()).then_some(Other::Meteor));
    others
}

fn row(at: usize, variant: &Variant, comparison: &Comparison, view: &View<'_>, (low, high): (f64, f64)) -> Row {
    let metric = comparison.metric;
    let percent = |value: f64| format!("{:.1}", 100.0 * value);
    let share = |value: f64| (100.0 * (value - low) / (high - low).max(1e-12)).clamp(0.0, 100.0);
    let interval = variant.intervals.get(&metric);
    let score = variant.scores.get(&metric).copied();
    let facts = &variant.facts;
    let apart = variant.from_first.as_ref();
    let range = |of: &Interval| format!("{} to {}", signed(100.0 * of.low), signed(100.0 * of.high));
    let passes = if facts.detector { format!("{} + detector", facts.passes) } else { facts.passes.to_string() };
    let entrant = &view.entrants[view.groups[at].runs[0]];
    let columns: Vec<&str> = entrant.run.info.columns.iter().map(|column| column.input.name.as_str()).collect();
    Row {
        rank: at + 1,
        colour: at % COLOURS,
        name: variant.name.clone(),
        runs: variant.runs.clone(),
        columns: columns.join(" + "),
        score: Cell::of(score, percent),
        interval: interval.map_or_else(String::new, |of| format!("{} to {}", percent(of.low), percent(of.high))),
        bar: interval.zip(score).map_or([0.0; 3], |(of, score)| [share(of.low), share(of.high), share(score)]),
        behind: apart.map_or_else(String::new, |apart| signed(100.0 * apart.difference)),
        behind_interval: apart.map_or_else(String::new, |apart| range(&apart.interval)),
        worse: apart.is_some_and(|apart| apart.significant),
        deviation: Cell::of(variant.deviation, |value| format!("±{:.1}", 100.0 * value)),
        scores: others(comparison).iter().map(|other| Cell::of(other.read(variant), percent)).collect(),
        parameters: Cell::of(facts.parameters.map(|count| count as f64), |count| report::count(count as u64)),
        row_bytes: Cell::of(facts.row_bytes.map(|bytes| bytes as f64), |bytes| report::bytes(bytes as u64)),
        passes: Cell { shown: passes, value: Some(facts.passes as f64 + f64::from(u8::from(facts.detector)) / 2.0) },
        speed: Cell::of(facts.tokens_per_second, thousands),
        epochs: Cell::of(facts.epochs, |epochs| match facts.best_epoch {
            Some(best) => format!("{} (best {})", tenth(epochs), tenth(best)),
            None => tenth(epochs),
        }),
        time: Cell::of(facts.seconds, report::duration),
    }
}

fn verdict(comparison: &Comparison) -> Vec<String> {
    let Some(first) = comparison.variants.first() else { return Vec::new() };
    let name = comparison.metric.name();
    let score = 100.0 * first.scores.get(&comparison.metric).copied().unwrap_or(f64::NAN);
    let mut said = vec![format!("{} has the highest {name}: {score:.1}.", first.name)];
    let rest = &comparison.variants[1..];
    let alike: Vec<&str> = rest
        .iter()
        .filter(|variant| variant.from_first.as_ref().is_some_and(|apart| !apart.significant))
        .map(|variant| variant.name.as_str())
        .collect();
    said.push(match (alike.as_slice(), rest.len()) {
        (_, 0) => return said,
        ([], 1) => "The difference from the other is significant.".to_owned(),
        ([], _) => "The difference from each of the others is significant.".to_owned(),
        (alike, all) if alike.len() == all => "No other can be told apart from it on these images.".to_owned(),
        (alike, _) => {
            format!("It can't be told apart from {} on these images; it is better than the others.", listed(alike))
        }
    });
    said
}

/// `a, b and c`; of many the first few and how many more.
fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] if names.len() <= 4 => format!("{} and {last}", first.join(", ")),
        _ => format!("{} and {} more", names[..3].join(", "), names.len() - 3),
    }
}

fn method(comparison: &Comparison, view: &View<'_>) -> String {
    let percent = 100.0 * comparison.plan.confidence;
    let seeds = if view.groups.iter().any(|group| group.runs.len() > 1) {
        " Runs that differ by nothing but train.seed are one row: the mean of their scores. Its interval covers other seeds too (they are drawn anew \
         with the images), as far as so few can tell."
    } else {
        " An interval says how the score would waver with other images of the kind, not with another seed of the training."
    };
    let compared = comparison.differences.len();
    let differences = match compared {
        0 => String::new(),
        1 => " The difference is paired over the images.".to_owned(),
        _ => format!(
            " Differences are paired over the images; one is called significant where p, corrected by Holm's method over the {compared} that were looked \
             at, is below {:.2}.",
            1.0 - comparison.plan.confidence
        ),
    };
    format!(
        "Scores are times 100. Intervals hold {percent:.0}% of {} bootstrap resamples of the images.{seeds}{differences}",
        comparison.plan.resamples
    )
}

fn cost_plot(comparison: &Comparison) -> Result<Option<String>> {
    let point = |(at, variant): (usize, &Variant)| {
        let interval = variant.intervals.get(&comparison.metric).map(|of| (100.0 * of.low, 100.0 * of.high));
        Some(Cost {
            label: (at + 1).to_string(),
            colour: at % COLOURS,
            bytes: variant.facts.row_bytes? as f64,
            score: 100.0 * variant.scores.get(&comparison.metric)?,
            interval,
        })
    };
    let points: Vec<Cost> = comparison.variants.iter().enumerate().filter_map(point).collect();
    let worth = points.len() > 1;
    Ok(worth.then(|| page::costs(&points, comparison.metric.name())).transpose()?)
}

fn curve_plot(view: &View<'_>, title: &str, read: impl Fn(&Facts) -> &Vec<(f64, f64)>) -> Result<Option<String>> {
    let curves: Vec<Curve> = view
        .groups
        .iter()
        .enumerate()
        .rev() // the best on top
        .flat_map(|(at, group)| group.runs.iter().map(move |run| (at, *run)))
        .map(|(at, run)| Curve { colour: at % COLOURS, points: read(&view.facts[run]).clone() })
        .filter(|curve| curve.points.len() > 1)
        .collect();
    let some = !curves.is_empty();
    Ok(some.then(|| page::curves(&curves, title)).transpose()?)
}

fn provenance(view: &View<'_>, first: &Entrant) -> Vec<Provenance> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let here = Provenance {
        title: "This report".to_owned(),
        lines: vec![
            ("icecap".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("made on".to_owned(), format!("{} {}, {cores} cores", std::env::consts::OS, std::env::consts::ARCH)),
            ("scored by icecap".to_owned(), first.scored.icecap.clone()),
        ],
    };
    let run = |at: &usize| {
        let entrant = &view.entrants[*at];
        let mut lines = vec![
            ("folder".to_owned(), entrant.run.folder.display().to_string()),
            ("trained by icecap".to_owned(), entrant.run.info.icecap.clone()),
            ("cache".to_owned(), entrant.cache.display().to_string()),
            ("encoder".to_owned(), entrant.run.info.model.display().to_string()),
        ];
        for column in &entrant.run.info.columns {
            let reader = view.caches.get(&entrant.cache).and_then(|cache| cache.column(&column.input.name).ok());
            let made = reader.and_then(|reader| reader.manifest().map(|manifest| writers(&manifest.provenance)));
            let shape = format!("{} × {}", column.input.vectors, column.input.width);
            let made = made.map_or_else(String::new, |made| format!(", encoded {made}"));
            lines.push((format!("column {}", column.input.name), format!("{shape}, key {}{made}", column.key)));
        }
        lines.extend(entrant.run.info.init.as_ref().map(|init| ("begun with".to_owned(), init.display().to_string())));
        Provenance { title: entrant.label.clone(), lines }
    };
    std::iter::once(here).chain(view.groups.iter().flat_map(|group| &group.runs).map(run)).collect()
}

/// On what, and by which versions, a column was encoded.
fn writers(provenance: &Value) -> String {
    let text = |value: &Value, key: &str| value[key].as_str().map(str::to_owned);
    let mut said: Vec<String> =
        text(provenance, "icecap").map(|version| format!("by icecap {version}")).into_iter().collect();
    for writer in provenance["writers"].as_array().into_iter().flatten() {
        said.extend(text(writer, "device").map(|device| format!("on {device}")));
        said.extend(text(writer, "onnxruntime").map(|version| format!("with ONNX Runtime {version}")));
    }
    said.dedup();
    said.join(", ")
}

fn signed(value: f64) -> String {
    format!("{value:+.1}").replace('-', "−")
}

fn probability(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

fn tenth(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

/// A number with spaces between its thousands.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_a_person_reads_them() {
        assert_eq!(
            [thousands(950.4), thousands(12_845.0), thousands(1_234_567.0)],
            ["950", "12\u{202f}845", "1\u{202f}234\u{202f}567"]
        );
        assert_eq!([tenth(12.0), tenth(0.25)], ["12", "0.2"]);
        assert_eq!([signed(-1.26), signed(0.5)], ["−1.3", "+0.5"]);
        assert_eq!([probability(0.0004), probability(0.0213)], ["< 0.001", "0.021"]);
        assert_eq!(listed(&["a", "b", "c"]), "a, b and c");
        assert_eq!(listed(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
    }

    #[test]
    fn the_rule_says_what_is_left_out() {
        assert_eq!(rule(5, 5), "All 5 images of the split.");
        assert!(rule(5, 9).starts_with("5 of the split's 9 images"));
    }
}
