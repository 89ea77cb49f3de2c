//! Past a fault to the next one: the faulty entry is taken out, a missing one stood in for, an unknown word guessed.
//!
//! Must not know what the keys mean: every mend is tried on the type itself and kept where serde gets further. Decision: what a mend
//! brings about is never blamed on the user, so places that were mended are remembered and complaints about them dropped.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{
    complaint::{Complaint, Path, nearest},
    tree,
};

/// More faults than this are not looked for: the file is then of another kind altogether.
const MOST_FAULTS: usize = 50;

/// More mends than this are not tried: they are then at odds with each other.
const MOST_MENDS: usize = 4 * MOST_FAULTS;

/// The text put where one is missing.
pub const STAND_IN: &str = "?";

/// What may stand in for an entry that isn't there: the first that serde takes.
fn stand_ins() -> [Value; 6] {
    [
        Value::from(STAND_IN),
        Value::Integer(1),
        Value::Float(0.5),
        Value::Boolean(false),
        Value::Array(vec![Value::from(STAND_IN)]),
        Value::Table(Table::new()),
    ]
}

/// A tree on its way to being readable.
#[derive(Debug, Clone)]
pub(super) struct Search {
    tree: Table,
    complaints: Vec<Complaint>,
    mends: usize,
    /// What was taken out or put in.
    mended: Vec<Path>,
    /// Lists of plain values that lost entries, and which: their places in the file.
    entries_gone: Vec<(Path, usize)>,
}

fn attempt<T: DeserializeOwned>(tree: &Table) -> Result<T, Complaint> {
    serde_path_to_error::deserialize(Value::Table(tree.clone())).map_err(|error| Complaint::of(&error))
}

impl Search {
    pub fn new(tree: Table) -> Self {
        Self { tree, complaints: Vec::new(), mends: 0, mended: Vec::new(), entries_gone: Vec::new() }
    }

    /// What is wrong, in the order of its finding.
    pub fn complaints(&self) -> &[Complaint] {
        &self.complaints
    }

    /// The places of which nothing is known: their contents were taken out, or put in.
    pub fn unread(&self) -> Vec<Path> {
        self.mended.iter().chain(self.entries_gone.iter().map(|(list, _)| list)).cloned().collect()
    }

    /// Mends until the tree is a `T`; `None` where a fault can't be mended.
    pub fn run<T: DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            let complaint = match attempt(&self.tree) {
                Ok(value) => return Some(value),
                Err(complaint) => complaint,
            };
            self.mends += 1;
            if self.complaints.len() >= MOST_FAULTS || self.mends > MOST_MENDS || !self.mend::<T>(complaint) {
                return None;
            }
        }
    }

    fn mend<T: DeserializeOwned>(&mut self, complaint: Complaint) -> bool {
        match complaint {
            Complaint::Unknown { table, key, known } => self.drop_key(table, key, known),
            Complaint::Variant { path, value, known } => self.guess::<T>(path, value, known),
            Complaint::Missing { table, key } => self.stand_in::<T>(&table, &key),
            Complaint::Other { path, message } => self.drop_value::<T>(path, message),
        }
    }

    fn note(&mut self, complaint: Complaint) {
        if !self.complaints.contains(&complaint) {
            self.complaints.push(complaint);
        }
    }

    /// Whether `path` was mended itself, or is in something that was.
    fn is_mended(&self, path: &[String]) -> bool {
        self.mended.iter().any(|mended| path.starts_with(mended))
    }

    fn drop_key(&mut self, table: Path, key: String, known: Vec<String>) -> bool {
        let Some(path) = tree::find_key(&self.tree, &table, &key) else {
            self.note(Complaint::Unknown { table, key, known });
            return false;
        };
        let table = path[..path.len() - 1].to_vec();
        if let Some(meant) = nearest(&key, &known) {
            // That the key which was meant is missing goes without saying.
            let meant: Path = table.iter().cloned().chain([meant]).collect();
            if tree::get(&self.tree, &meant).is_none() {
                self.mended.push(meant);
            }
        }
        self.note(Complaint::Unknown { table, key, known });
        tree::remove(&mut self.tree, &path)
    }

    /// Puts a known word for an unknown one: the nearest, else the one with which the least remains to complain about.
    fn guess<T: DeserializeOwned>(&mut self, path: Path, value: String, known: Vec<String>) -> bool {
        let place = tree::find_text(&self.tree, &path, &value);
        let path = place.clone().unwrap_or(path);
        let guesses = nearest(&value, &known).map_or_else(|| known.clone(), |name| vec![name]);
        if !self.is_mended(&path) {
            self.note(Complaint::Variant { path, value, known });
        }
        let Some(path) = place else { return false };
        let trials = guesses.into_iter().map(|guess| {
            let mut trial = self.clone();
            tree::set(&mut trial.tree, &path, guess.into());
            let finished = trial.run::<T>().is_some();
            (!finished, trial.complaints.len(), trial)
        });
        let best = trials.min_by_key(|(unfinished, complaints, _)| (*unfinished, *complaints));
        best.is_some_and(|(unfinished, _, trial)| {
            *self = trial;
            !unfinished
        })
    }

    /// Puts something where `key` is missing. Where serde lost the path, the table is one further down.
    fn stand_in<T: DeserializeOwned>(&mut self, table: &[String], key: &str) -> bool {
        let complaint = Complaint::Missing { table: table.to_vec(), key: key.to_owned() };
        for table in tree::tables(&self.tree, table) {
            let path: Path = table.iter().cloned().chain([key.to_owned()]).collect();
            if tree::get(&self.tree, &path).is_some() {
                continue;
            }
            for value in stand_ins() {
                let mut trial = self.tree.clone();
                tree::set(&mut trial, &path, value.clone());
                if attempt::<T>(&trial).is_err_and(|next| next == complaint || is_about(&next, &path, &value)) {
                    continue;
                }
                if !self.is_mended(&path) {
                    self.note(Complaint::Missing { table, key: key.to_owned() });
                }
                self.tree = trial;
                self.mended.push(path);
                return true;
            }
        }
        self.note(complaint);
        false
    }

    fn drop_value<T: DeserializeOwned>(&mut self, path: Path, message: String) -> bool {
        if let Some((list, at)) = self.droppable_entry::<T>(&path) {
            let mut place = list.clone();
            place.push(self.place_in_file(&list, at).to_string());
            self.note(Complaint::Other { path: place, message });
            self.entries_gone.push((list.clone(), self.place_in_file(&list, at)));
            return tree::remove_entry(&mut self.tree, &list, at);
        }
        let blamed = self.blamed::<T>(&path, &message);
        if blamed.as_ref().is_some_and(|path| self.is_mended(path)) {
            return false; // What was put in doesn't do, and nothing else did.
        }
        self.note(Complaint::Other { path: blamed.clone().unwrap_or(path), message });
        let Some(path) = blamed else { return false };
        let removed = tree::remove(&mut self.tree, &path);
        self.mended.push(path);
        removed
    }

    /// The list and the place in it, where `path` is an entry of a list of plain values that can do without.
    fn droppable_entry<T: DeserializeOwned>(&self, path: &[String]) -> Option<(Path, usize)> {
        let (last, list) = path.split_last()?;
        let at = last.parse().ok()?;
        let mut trial = self.tree.clone();
        let dropped = tree::remove_entry(&mut trial, list, at);
        let too_short = |next: &Complaint| matches!(next, Complaint::Other { message, .. } if message.starts_with("invalid length"));
        (dropped && !attempt::<T>(&trial).is_err_and(|next| too_short(&next))).then(|| (list.to_vec(), at))
    }

    /// Where the entry at `at` of `list` was before others were taken out.
    fn place_in_file(&self, list: &[String], at: usize) -> usize {
        let mut gone: Vec<usize> =
            self.entries_gone.iter().filter(|(other, _)| other == list).map(|(_, at)| *at).collect();
        gone.sort_unstable();
        gone.into_iter().fold(at, |at, gone| if gone <= at { at + 1 } else { at })
    }

    /// The value that `message` is about: at `path`, or somewhere below where serde lost the rest of it.
    fn blamed<T: DeserializeOwned>(&self, path: &[String], message: &str) -> Option<Path> {
        if message.starts_with("invalid type: map") && tree::get(&self.tree, path).is_some_and(Value::is_table) {
            return Some(path.to_vec());
        }
        let leaves = tree::leaves(&self.tree, path);
        let named = |leaf: &&Path| {
            let value = tree::get(&self.tree, leaf);
            value.is_some_and(|value| {
                message.contains(&tree::in_serdes_words(value))
                    || value.as_str().is_some_and(|text| message.contains(&format!("`{text}`")))
            })
        };
        let complaint = Complaint::Other { path: path.to_vec(), message: message.to_owned() };
        let helps = |leaf: &&Path| {
            let mut trial = self.tree.clone();
            tree::remove(&mut trial, leaf);
            match attempt::<T>(&trial) {
                Err(Complaint::Missing { key, .. }) => leaf.last() == Some(&key),
                Err(next) => next != complaint,
                Ok(_) => true,
            }
        };
        let first = leaves.iter().find(named).filter(|_| leaves.iter().filter(named).count() == 1);
        let found = first.or_else(|| leaves.iter().filter(named).find(helps)).or_else(|| leaves.iter().find(named));
        found.or_else(|| leaves.iter().find(helps)).cloned()
    }
}

/// Whether `complaint` says that `value` is wrong at `path`.
fn is_about(complaint: &Complaint, path: &[String], value: &Value) -> bool {
    match complaint {
        Complaint::Unknown { key, .. } => path.last() == Some(key),
        Complaint::Other { path: other, message } => {
            let names_it = || path.last().is_some_and(|key| message.contains(&format!("`{key}`")));
            other.starts_with(path)
                || message.contains(&tree::in_serdes_words(value))
                || (path.starts_with(other) && names_it())
        }
        // A list where a table with a word in it is wanted; a text may well be the word itself, to be guessed.
        Complaint::Variant { path: other, .. } => value.is_array() && other.starts_with(path),
        Complaint::Missing { .. } => false,
    }
}
