//! Who wrote a column's rows, by whatever they call themselves (see [`crate::ColumnSpec::with_writer`]).
//!
//! Knows no provider: values are compared and listed, nothing else. Those of an unfinished column are in its journal, those of a
//! finished one in its provenance. A writer that was killed before it committed a row wrote none, and is not listed.

use serde_json::Value;

use super::plan::Found;
use crate::journal::Replay;

/// The provenance's member.
pub(crate) const MEMBER: &str = "writers";

/// Those who wrote the rows that are there. `null` is one who did not say.
pub(super) fn before(found: &Found) -> Vec<Value> {
    let finished = found.manifest.iter().flat_map(|manifest| of(&manifest.provenance));
    let unfinished = found.replay.iter().flat_map(of_journal);
    distinct(finished.chain(unfinished))
}

/// Those that a provenance lists. One from before there was a list stands for its writer itself.
pub(crate) fn of(provenance: &Value) -> Vec<Value> {
    match &provenance[MEMBER] {
        Value::Array(writers) => writers.clone(),
        _ => vec![provenance.clone()],
    }
}

fn of_journal(replay: &Replay) -> Vec<Value> {
    let wrote = replay.written > replay.plan.carried;
    let last = wrote.then(|| replay.plan.writer.clone().unwrap_or_default());
    replay.plan.writers.iter().cloned().chain(last).collect()
}

/// `provenance` with the list of `writers`.
pub(crate) fn with_writers(mut provenance: Value, writers: Vec<Value>) -> Value {
    if let Value::Object(members) = &mut provenance {
        members.insert(MEMBER.to_owned(), writers.into());
    }
    provenance
}

/// Each once, in the order of their first.
pub(crate) fn distinct(writers: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for writer in writers {
        if !all.contains(&writer) {
            all.push(writer);
        }
    }
    all
}
