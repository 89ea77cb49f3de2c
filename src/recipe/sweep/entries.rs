//! The tables of keys of a sweep file, with the places where they stand.
//!
//! Must not know recipes: a key is a path, a value is TOML text. Read from the document rather than from the parsed tree, since only it
//! tells `decoder.hidden = 256` (one key of a section) from `decoder = { hidden = 256 }` (the section itself), which is the
//! difference that `--set` makes too.

use std::ops::Range;

use toml_edit::{Document, Item, Value};

use super::faults::Found;
use crate::batch::random::{SplitMix, mix, named};

/// A key of the recipe and a value for it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// Its path, as `--set` takes it.
    pub key: String,
    /// TOML.
    pub value: String,
    /// Where the value stands.
    pub span: Range<usize>,
}

/// Everything that a sweep file varies.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// By group, in the file's order: each variant's name and its entries.
    pub groups: Vec<Vec<(String, Vec<Entry>)>>,
    /// The values of each key.
    pub grid: Vec<Vec<Entry>>,
    /// What was drawn: the entries of each.
    pub drawn: Vec<Vec<Entry>>,
}

impl Entries {
    pub fn of(document: &Document<String>, found: &mut Found) -> Self {
        let root = document.as_table();
        let grid = root.get("grid").map(|grid| leaves(grid, "")).unwrap_or_default();
        let grid = grid.into_iter().map(|(key, item)| choices(&key, item, found)).collect();
        let drawn = root.get("random").map(|random| draw(random, found)).unwrap_or_default();
        Self { groups: groups(root), grid, drawn }
    }
}

/// Every value below `item`, with its path: headers and dotted keys are walked into, a table in braces is a value.
fn leaves<'a>(item: &'a Item, path: &str) -> Vec<(String, &'a Item)> {
    let Some(table) = item.as_table_like() else { return Vec::new() };
    let below = |(key, item): (&str, &'a Item)| {
        let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let walked = match item {
            Item::Table(_) => true,
            Item::Value(Value::InlineTable(table)) => table.is_dotted(),
            _ => false,
        };
        if walked { leaves(item, &path) } else { vec![(path, item)] }
    };
    table.iter().flat_map(below).collect()
}

fn span(item: &Item) -> Range<usize> {
    item.span().unwrap_or(0..0)
}

/// A value as TOML, without what stands around it.
fn toml(value: &Value) -> String {
    let mut value = value.clone();
    value.decor_mut().clear();
    value.to_string()
}

fn choices(key: &str, item: &Item, found: &mut Found) -> Vec<Entry> {
    let values: Vec<&Value> = item.as_array().map(|list| list.iter().collect()).unwrap_or_default();
    if values.is_empty() {
        let hint = format!("write a list: {key} = [..]");
        found.push(span(item), format!("`{key}` needs a list of values"), Some(hint));
    }
    let mut entries: Vec<Entry> = Vec::new();
    for value in values {
        let entry = Entry { key: key.to_owned(), value: toml(value), span: value.span().unwrap_or(0..0) };
        if entries.iter().any(|other| other.value == entry.value) {
            found.push(entry.span.clone(), format!("`{}` stands here twice", entry.value), None);
        }
        entries.push(entry);
    }
    entries
}

fn groups(root: &toml_edit::Table) -> Vec<Vec<(String, Vec<Entry>)>> {
    let mut names: Vec<String> = Vec::new();
    let mut groups: Vec<Vec<(String, Vec<Entry>)>> = Vec::new();
    let variants = root.get("variant").and_then(Item::as_array_of_tables);
    for variant in variants.into_iter().flatten() {
        let word = |key: &str| variant.get(key).and_then(Item::as_str).unwrap_or_default().to_owned();
        let set = variant.get("set").map(|set| leaves(set, "")).unwrap_or_default();
        let entry = |(key, item): (String, &Item)| Some(Entry { key, value: toml(item.as_value()?), span: span(item) });
        let of = (word("name"), set.into_iter().filter_map(entry).collect());
        match names.iter().position(|name| *name == word("group")) {
            Some(at) => groups[at].push(of),
            None => {
                names.push(word("group"));
                groups.push(vec![of]);
            }
        }
    }
    groups
}

/// Each draw depends on the seed, the key and its own number: more draws, or another key beside it, change none of them.
fn draw(random: &Item, found: &mut Found) -> Vec<Vec<Entry>> {
    let Some(table) = random.as_table_like() else { return Vec::new() };
    let whole = |key: &str| table.get(key).and_then(Item::as_integer).and_then(|number| u64::try_from(number).ok());
    let (count, seed) = (whole("n").unwrap_or(0), whole("seed").unwrap_or(0));
    let below = |key: &str| table.get(key).map(|item| ranges_and_lists(item)).unwrap_or_default();
    let choices: Vec<Vec<Entry>> = below("choices").into_iter().map(|(key, item)| choices(&key, item, found)).collect();
    let ranges: Vec<Interval> =
        below("ranges").into_iter().filter_map(|(key, item)| Interval::of(&key, item, found)).collect();
    if below("choices").is_empty() && below("ranges").is_empty() {
        let hint = "give [random.ranges] with { from, to }, or [random.choices] with lists".to_owned();
        found.push(span(random), "[random] draws nothing".to_owned(), Some(hint));
    }
    let one = |number: u64| {
        let random = |key: &str| SplitMix::new(named(mix(seed, number), key));
        let chosen = choices.iter().filter(|entries| !entries.is_empty()).map(|entries| {
            let mut random = random(&entries[0].key);
            entries[random.below(entries.len())].clone()
        });
        chosen.chain(ranges.iter().map(|range| range.draw(&mut random(&range.key)))).collect()
    };
    (0..count).map(one).collect()
}

/// As [`leaves`], where a table that says `from` is a value however it is written.
fn ranges_and_lists(item: &Item) -> Vec<(String, &Item)> {
    let is_range = |item: &Item| item.as_table_like().is_some_and(|table| table.contains_key("from"));
    let Some(table) = item.as_table_like() else { return Vec::new() };
    let mut found = Vec::new();
    for (key, item) in table.iter() {
        match item {
            Item::Table(_) if !is_range(item) => found.extend(below(key, item)),
            Item::Value(Value::InlineTable(table)) if table.is_dotted() && !is_range(item) => {
                found.extend(below(key, item));
            }
            _ => found.push((key.to_owned(), item)),
        }
    }
    found
}

fn below<'a>(path: &str, item: &'a Item) -> Vec<(String, &'a Item)> {
    ranges_and_lists(item).into_iter().map(|(key, item)| (format!("{path}.{key}"), item)).collect()
}

/// A number to draw.
#[derive(Debug)]
struct Interval {
    key: String,
    from: f64,
    to: f64,
    log: bool,
    whole: bool,
    span: Range<usize>,
}

impl Interval {
    fn of(key: &str, item: &Item, found: &mut Found) -> Option<Self> {
        let mut wrong = |message: String| {
            let hint = "write { from = 1e-4, to = 1e-2, log = true }".to_owned();
            found.push(span(item), message, Some(hint));
        };
        let Some(table) = item.as_table_like() else {
            wrong(format!("`{key}` needs a range"));
            return None;
        };
        if let Some((other, _)) = table.iter().find(|(name, _)| !["from", "to", "log"].contains(name)) {
            wrong(format!("unknown key `{other}` in the range of `{key}`"));
            return None;
        }
        let number = |name: &str| {
            let item = table.get(name)?;
            item.as_float().or_else(|| item.as_integer().map(|whole| whole as f64))
        };
        let (Some(from), Some(to)) = (number("from"), number("to")) else {
            wrong(format!("the range of `{key}` needs two numbers, `from` and `to`"));
            return None;
        };
        let log = table.get("log").is_some_and(|item| item.as_bool() == Some(true));
        if !(from.is_finite() && to.is_finite() && from < to && (!log || from > 0.0)) {
            let above = if log { ", both above 0" } else { "" };
            wrong(format!("the range of `{key}` does not work: `from` must be below `to`{above}"));
            return None;
        }
        let is_whole = |name: &str| table.get(name).is_some_and(Item::is_integer);
        Some(Self { key: key.to_owned(), from, to, log, whole: is_whole("from") && is_whole("to"), span: span(item) })
    }

    fn draw(&self, random: &mut SplitMix) -> Entry {
        let at = f64::from(random.unit());
        let between = |from: f64, to: f64| from + (to - from) * at;
        let drawn = if self.log { between(self.from.ln(), self.to.ln()).exp() } else { between(self.from, self.to) };
        let value = match self.whole {
            true => format!("{}", drawn.round() as i64),
            // Four digits say as much as more would, and can be read.
            false => format!("{drawn:.3e}"),
        };
        Entry { key: self.key.clone(), value, span: self.span.clone() }
    }
}
