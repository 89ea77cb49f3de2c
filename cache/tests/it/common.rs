//! A data set without images: a row's bytes, content hash and fate follow from its id and version alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use icecap_cache::{
    Batch, Cache, ColumnSpec, ColumnWriter, Dtype, Key, Manifest, Overwrite, Reason, RowOutcome, RowRecord,
    content_hash,
};
use serde_json::Value;

/// What the images are. `version` stands for their bytes.
#[derive(Debug, Clone, Default)]
pub struct Images {
    /// Version of each image, by row.
    pub versions: Vec<u32>,
    /// One row in so many is missing; 0: none.
    pub missing_every: u64,
    /// Whether the index knows the content hashes.
    pub hashed: bool,
}

impl Images {
    pub fn new(rows: u32) -> Self {
        Self { versions: vec![0; rows as usize], missing_every: 5, hashed: true }
    }

    pub fn records(&self) -> Vec<RowRecord> {
        let record = |(row, version): (usize, &u32)| RowRecord {
            id: format!("image-{row}"),
            source: format!("{row}.jpg"),
            split: if row % 3 == 0 { "val" } else { "train" }.to_owned(),
            captions: vec![format!("picture {row}")],
            content: self.hashed.then(|| hex(self.content(row as u32))),
            bytes: Some(100),
            modified_ns: Some(u64::from(*version)),
        };
        self.versions.iter().enumerate().map(record).collect()
    }

    pub fn content(&self, row: u32) -> [u8; 16] {
        content_hash(format!("{row} {}", self.versions[row as usize]).as_bytes())
    }

    pub fn outcome(&self, row: u32) -> RowOutcome {
        let content = self.content(row);
        let draw = u64::from_le_bytes(std::array::from_fn(|at| content[at]));
        if self.missing_every == 0 || !draw.is_multiple_of(self.missing_every) {
            return RowOutcome::Present { content };
        }
        match draw / self.missing_every % 3 {
            0 => {
                RowOutcome::Missing { reason: Reason::Truncated, detail: format!("row {row}"), content: Some(content) }
            }
            1 => RowOutcome::Missing { reason: Reason::Http(404), detail: String::new(), content: None },
            _ => RowOutcome::Missing { reason: Reason::NotFound, detail: "no \"file\"".to_owned(), content: None },
        }
    }

    /// The row's bytes in a tensor.
    pub fn bytes(&self, row: u32, tensor: usize, row_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; row_bytes];
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.content(row)).update(&[tensor as u8]);
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }
}

fn hex(hash: [u8; 16]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A column of two tensors, four shards of 12 rows or so, three rows a batch.
pub fn spec() -> ColumnSpec {
    let key = Key::new().with("encoder", "resnet18").with("tensor", "avgpool");
    let spec = ColumnSpec::new("avgpool", key, Dtype::F16, [5]).with_tensor("boxes", Dtype::F32, [3]);
    spec.with_batch_rows(3).with_rows_per_shard(12).with_provenance(serde_json::json!({"test": true}))
}

/// A cache in a folder of its own.
pub struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    pub fn column(&self) -> PathBuf {
        self.path().join("columns").join(spec().name + "-" + &spec().key.short())
    }

    /// The cache, its rows those of `images`.
    pub fn cache(&self, images: &Images) -> Cache {
        cache_in(&self.path(), images)
    }

    /// Text without this folder's name.
    #[expect(clippy::needless_pass_by_value, reason = "errors are handed over as they come")]
    pub fn anonymous(&self, text: impl ToString) -> String {
        text.to_string().replace(self.folder.path().to_str().unwrap(), "DIR")
    }
}

pub fn cache_in(path: &Path, images: &Images) -> Cache {
    let mut cache = Cache::create_or_open(path, &Value::from("test")).unwrap();
    cache.sync_rows(images.records()).unwrap();
    cache
}

/// Computes a batch and commits it, in place where that is possible.
pub fn compute(writer: &ColumnWriter, images: &Images, batch: &Batch) {
    let mut slot = writer.slot(batch).unwrap();
    let tensors = writer.plan().tensors.clone();
    if let Some(wholes) = slot.wholes_mut() {
        for (tensor, whole) in wholes.into_iter().enumerate() {
            for (row, bytes) in (batch.start..).zip(whole.chunks_exact_mut(tensors[tensor].row_bytes())) {
                bytes.copy_from_slice(&images.bytes(row, tensor, bytes.len()));
            }
        }
    } else {
        for (tensor, spec) in tensors.iter().enumerate() {
            let rows = batch.start..batch.start + writer.plan().batch_rows;
            let known = |row: u32| (row as usize) < images.versions.len();
            let padded = rows.flat_map(|row| {
                if known(row) { images.bytes(row, tensor, spec.row_bytes()) } else { vec![9; spec.row_bytes()] }
            });
            slot.write_batch(tensor, &padded.collect::<Vec<u8>>()).unwrap();
        }
    }
    let outcomes: Vec<RowOutcome> = batch.rows.iter().map(|&row| images.outcome(row)).collect();
    writer.commit(slot, &outcomes).unwrap();
}

/// Writes all there is to do with one thread.
pub fn write(cache: &Cache, images: &Images, spec: &ColumnSpec) -> Manifest {
    let writer = cache.writer(spec, Overwrite::No).unwrap();
    for batch in writer.todo_batches() {
        compute(&writer, images, batch);
    }
    writer.finish().unwrap()
}

/// The column of `images` written at once, in a cache of its own.
pub fn reference(images: &Images, spec: &ColumnSpec) -> Vec<String> {
    let scratch = Scratch::new();
    let manifest = write(&scratch.cache(images), images, spec);
    column_bytes(&scratch.column(), &manifest)
}

/// Digests of the column's files without the names of generations: shards in order, then the list of missing rows.
pub fn column_bytes(folder: &Path, manifest: &Manifest) -> Vec<String> {
    let shards = manifest.shards.iter().map(|shard| &shard.file);
    let digest = |file: &String| blake3::hash(&std::fs::read(folder.join(file)).unwrap()).to_hex().to_string();
    shards.chain([&manifest.missing.file]).map(digest).collect()
}

/// All files of a folder but the lock.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_name() != "lock" && entry.file_type().unwrap().is_file());
    files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())).collect()
}

/// Checks that a reader gives exactly what `images` say.
pub fn check_reader(cache: &Cache, images: &Images) {
    let reader = cache.column("avgpool").unwrap();
    assert_eq!(reader.len() as usize, images.versions.len());
    for row in 0..reader.len() {
        match images.outcome(row) {
            RowOutcome::Present { content } => {
                for (tensor, spec) in reader.tensors().iter().enumerate() {
                    assert_eq!(
                        reader.row_of(tensor, row).unwrap(),
                        images.bytes(row, tensor, spec.row_bytes()),
                        "row {row}"
                    );
                }
                assert_eq!(reader.content(row), Some(content));
                assert!(reader.missing(row).is_none() && reader.is_present(row));
            }
            RowOutcome::Missing { reason, detail, content } => {
                assert_eq!(reader.row(row), None);
                let missing = reader.missing(row).unwrap();
                assert_eq!((missing.row, missing.reason, &missing.detail), (row, reason, &detail));
                assert_eq!(reader.content(row), content.or(images.hashed.then(|| images.content(row))));
            }
        }
    }
}
