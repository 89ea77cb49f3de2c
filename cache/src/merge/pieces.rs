//! From the manifests of parts to that of the column: what must agree, and which shard comes from where.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use serde_json::{Value, json};

use crate::error::{MergeError, Result};
use crate::manifest::missing_file;
use crate::missing::{self, MissingMap};
use crate::writer::{history, tensors};
use crate::{Cache, ColumnState, Manifest, MissingSummary, Part, ShardEntry};

/// A part of a column, or a whole one, in one of the caches.
pub(super) struct Piece {
    pub cache: PathBuf,
    /// The column's folder.
    pub folder: PathBuf,
    pub manifest: Manifest,
}

/// A column as it will be.
pub(super) struct Joined {
    pub manifest: Manifest,
    /// The list of missing rows.
    pub missing: Vec<u8>,
    /// Every shard in order, and the piece it is in.
    pub shards: Vec<(Rc<Piece>, ShardEntry)>,
}

/// Every column that the caches hold, put together.
pub(super) fn join(caches: &[Cache]) -> Result<Vec<Joined>> {
    let mut by_name: BTreeMap<String, Vec<Rc<Piece>>> = BTreeMap::new();
    for cache in caches {
        for piece in pieces(cache)? {
            by_name.entry(piece.manifest.name().to_owned()).or_default().push(Rc::new(piece));
        }
    }
    if by_name.is_empty() {
        let caches = caches.iter().map(|cache| cache.folder().to_owned()).collect();
        return Err(MergeError::Nothing { caches }.into());
    }
    by_name.values().map(|pieces| join_column(pieces)).collect()
}

fn pieces(cache: &Cache) -> Result<Vec<Piece>> {
    let mut found = Vec::new();
    for info in cache.columns()? {
        let (column, owner) = (info.name, cache.folder().to_owned());
        match info.state {
            ColumnState::Finished(manifest) | ColumnState::Part(manifest) => {
                let folder = cache.columns_folder().join(&info.folder);
                found.push(Piece { cache: owner, folder, manifest: *manifest });
            }
            ColumnState::Unfinished(unfinished) | ColumnState::Extending(_, unfinished) => {
                let (rows_done, rows) = (unfinished.rows_done, unfinished.rows);
                return Err(MergeError::Unfinished { column, cache: owner, rows_done, rows }.into());
            }
            ColumnState::Damaged(error) => return Err(error),
        }
    }
    Ok(found)
}

fn join_column(pieces: &[Rc<Piece>]) -> Result<Joined> {
    let first = &pieces[0];
    for other in &pieces[1..] {
        refuse_another(first, other)?;
    }
    let shards = shards(pieces)?;
    let mut all = MissingMap::new();
    for piece in pieces {
        all.extend(missing_of(piece)?);
    }
    let generation = pieces.iter().map(|piece| piece.manifest.generation).max().unwrap_or_default();
    let (file, lines) = (missing_file(generation), missing::to_lines(&all));
    let manifest = Manifest {
        generation,
        part: None,
        missing: MissingSummary::new(&all, file, &lines),
        shards: shards.iter().map(|(_, entry)| entry.clone()).collect(),
        provenance: provenance(pieces),
        ..first.manifest.clone()
    };
    Ok(Joined { manifest, missing: lines, shards })
}

/// Refuses a piece of another column than the first's.
fn refuse_another(first: &Piece, other: &Piece) -> Result<(), MergeError> {
    let (one, two) = (&first.manifest, &other.manifest);
    let paths = || (one.name().to_owned(), first.cache.clone(), other.cache.clone());
    if one.column.key_digest != two.column.key_digest {
        let (column, first, other) = paths();
        let differences = one.key().diff(two.key());
        return Err(MergeError::Keys { column, first, other, differences });
    }
    let fields = [
        ("number of rows", one.rows().to_string(), two.rows().to_string()),
        ("set of tensors", tensors(&one.column), tensors(&two.column)),
        ("number of rows a batch", one.column.batch_rows.to_string(), two.column.batch_rows.to_string()),
        ("number of rows a shard", one.column.rows_per_shard.to_string(), two.column.rows_per_shard.to_string()),
        ("number of rows a chunk", one.rows_per_chunk.to_string(), two.rows_per_chunk.to_string()),
    ];
    match fields.into_iter().find(|(_, expected, found)| expected != found) {
        None => Ok(()),
        Some((field, expected, found)) => {
            let (column, first, other) = paths();
            let caches = Box::new((first, other));
            Err(MergeError::Layout { column, caches, field, expected, found })
        }
    }
}

/// Every shard of the column, from the one piece that has it.
fn shards(pieces: &[Rc<Piece>]) -> Result<Vec<(Rc<Piece>, ShardEntry)>, MergeError> {
    let plan = &pieces[0].manifest.column;
    let name = || plan.name.clone();
    let rows = |from: usize, to: usize| {
        format!("{} to {}", plan.first_row(from), (plan.first_row(to) + plan.shard_rows(to)).saturating_sub(1))
    };
    let mut found: BTreeMap<usize, (Rc<Piece>, ShardEntry)> = BTreeMap::new();
    for piece in pieces {
        for (shard, entry) in piece.manifest.numbered_shards() {
            if let Some((earlier, _)) = found.insert(shard, (Rc::clone(piece), entry.clone())) {
                let (first, other) = (earlier.cache.clone(), piece.cache.clone());
                return Err(MergeError::Twice { column: name(), rows: rows(shard, shard), first, other });
            }
        }
    }
    let lacking = (0..plan.shards()).find(|shard| !found.contains_key(shard));
    let Some(from) = lacking else { return Ok(found.into_values().collect()) };
    let to = (from..plan.shards()).take_while(|shard| !found.contains_key(shard)).last().unwrap_or(from);
    Err(MergeError::Lacking { column: name(), rows: rows(from, to), part: whose(pieces, from, to) })
}

/// The part that the shards `from..=to` are, where the pieces agree on how many parts there are and it is one.
fn whose(pieces: &[Rc<Piece>], from: usize, to: usize) -> Option<String> {
    let of = pieces[0].manifest.part?.of;
    let agreed = pieces.iter().all(|piece| piece.manifest.part.is_some_and(|part| part.of == of));
    let shards = pieces[0].manifest.column.shards();
    let holds = |part: &Part| {
        let own = part.shards(shards);
        own.start <= to && from < own.end
    };
    let parts: Vec<String> = (1..=of).map(|index| Part { index, of }).filter(holds).map(|p| p.to_string()).collect();
    (agreed && !parts.is_empty()).then(|| parts.join(", "))
}

/// A piece's missing rows, its list checked.
fn missing_of(piece: &Piece) -> Result<MissingMap> {
    let path = piece.folder.join(&piece.manifest.missing.file);
    let list = missing::read(&path, piece.manifest.rows())?;
    let list: MissingMap = list.into_iter().map(|missing| (missing.row, missing)).collect();
    if blake3::hash(&missing::to_lines(&list)).to_hex().as_str() != piece.manifest.missing.digest {
        return Err(MergeError::Damaged { path }.into());
    }
    Ok(list)
}

/// Where the column comes from: what all pieces say, or the first's with all of them beside.
fn provenance(pieces: &[Rc<Piece>]) -> Value {
    let of = |piece: &Rc<Piece>| piece.manifest.provenance.clone();
    let first = of(&pieces[0]);
    if pieces.iter().all(|piece| piece.manifest.provenance == first) {
        return first;
    }
    let all: Vec<Value> = pieces.iter().map(of).collect();
    match first {
        Value::Object(mut members) => {
            let listed = members.contains_key(history::MEMBER);
            let writers = history::distinct(all.iter().flat_map(history::of));
            members.insert("parts".to_owned(), all.into());
            let provenance = Value::Object(members);
            crate::key::sorted(if listed { history::with_writers(provenance, writers) } else { provenance })
        }
        _ => json!({ "parts": all }),
    }
}
