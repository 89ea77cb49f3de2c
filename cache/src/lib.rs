#![doc = include_str!("../README.md")]

mod cache;
mod cache_file;
mod columns;
mod dtype;
mod error;
mod gather;
mod journal;
mod key;
mod layout;
mod manifest;
mod map;
mod merge;
mod missing;
mod part;
mod publish;
mod quantize;
mod reader;
mod reason;
mod rows;
mod rowset;
mod seal;
mod shard;
mod spec;
mod verify;
mod writer;

pub use cache::{Cache, Overwrite};
pub use columns::{ColumnInfo, ColumnState, Unfinished};
pub use dtype::{Dtype, SCALE, TensorSpec, UnknownDtype};
pub use error::{CacheError, JournalError, ManifestError, MergeError, Result, RowsError, ShardError, SpecError};
pub use key::{Key, KeyDifference};
pub use manifest::{FORMAT, Manifest, MissingSummary, ShardEntry};
pub use merge::{MergeReport, MergedColumn};
pub use missing::Missing;
pub use part::{Part, UnknownPart};
pub use publish::{ContentHash, content_hash, free_bytes};
pub use quantize::{dequantize, quantize};
pub use reader::ColumnReader;
pub use reason::{Reason, UnknownReason};
pub use rows::{RowRecord, Rows, RowsDiff};
pub use spec::{ColumnPlan, ColumnSpec, Retry};
pub use verify::{Damage, DamagedPart, RowsVerdict, VerifyReport};
pub use writer::{Batch, ColumnWriter, RowOutcome, Slot, WriterProgress};

/// Sizes in a cache are those of files, which outgrow 32 bits.
const _: () = assert!(usize::BITS >= 64, "icecap-cache needs a 64-bit machine");

/// What threads share and hand over, checked when it is compiled.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    const fn sent<T: Send>() {}
    shared::<Cache>();
    shared::<ColumnReader>();
    shared::<ColumnWriter>();
    sent::<Slot<'static>>();
};
