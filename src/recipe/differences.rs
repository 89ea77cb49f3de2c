//! What two recipes say differently, setting by setting: a section or a key more moves nothing that follows it.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::Recipe;

/// A setting that two recipes don't share: its line in each, `batch = 100`; absent where one has no such setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The line in the one.
    pub before: Option<String>,
    /// The line in the other.
    pub after: Option<String>,
}

impl Recipe {
    /// The settings in which `after` is another recipe, by their places.
    #[must_use]
    pub fn differences(&self, after: &Self) -> Vec<Difference> {
        let (before, after) = (settings(self), settings(after));
        let places = before.keys().chain(after.keys().filter(|place| !before.contains_key(*place)));
        let mut places: Vec<&String> = places.filter(|place| before.get(*place) != after.get(*place)).collect();
        places.sort();
        let of = |lines: &BTreeMap<String, String>, place: &String| lines.get(place).cloned();
        places.into_iter().map(|place| Difference { before: of(&before, place), after: of(&after, place) }).collect()
    }
}

/// Every setting's line by its place, `column.0.tap`.
fn settings(recipe: &Recipe) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    add("", "", &Value::Table(Table::try_from(recipe).unwrap_or_default()), &mut lines);
    lines
}

fn add(place: &str, key: &str, value: &Value, lines: &mut BTreeMap<String, String>) {
    let within = |part: &str| if place.is_empty() { part.to_owned() } else { format!("{place}.{part}") };
    match value {
        Value::Table(table) if !table.is_empty() => {
            table.iter().for_each(|(key, value)| add(&within(key), key, value, lines));
        }
        Value::Array(items) if items.iter().any(Value::is_table) => {
            items.iter().enumerate().for_each(|(at, item)| add(&within(&at.to_string()), key, item, lines));
        }
        value => drop(lines.insert(place.to_owned(), format!("{key} = {value}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_more_is_one_difference() {
        let parse = |more: &str| {
            let text = format!(
                "[dataset]\nformat = \"shapes\"\n[encoder]\nmodel = \"m.onnx\"\nresize = 64\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n\
                 [[column]]\nname = \"a\"\ntap = \"t\"\n[train]\n{more}"
            );
            Recipe::parse(&text, "recipe.toml", &[]).unwrap()
        };
        let (plain, longer) = (parse("batch = 10"), parse("batch = 20\nsteps = 7"));
        let line = |text: &str| Some(text.to_owned());
        let batch = Difference { before: line("batch = 10"), after: line("batch = 20") };
        assert_eq!(plain.differences(&longer), [batch, Difference { before: None, after: line("steps = 7") }]);
        assert!(plain.differences(&plain).is_empty());
    }
}
