//! Gathering random rows against memcpy of as many bytes, on one thread and on all.
//!
//!     cargo run --release -p icecap-cache --example gather -- [FOLDER]
//!
//! Three columns of f16: COCO's training pictures pooled (118,287 rows of 2.5 kB), Flickr8k's 7 x 7 grid (7,000 rows of
//! 125 kB), and four times the first, which no address cache of a processor covers. A batch is 64 MB of random rows; the page
//! cache is warm. memcpy copies blocks of 1 MB from random places of a buffer as large, so that it, too, reads from memory.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use icecap_cache::{Cache, ColumnReader, ColumnSpec, ColumnWriter, Dtype, Key, Overwrite, RowOutcome, RowRecord};
use rayon::prelude::*;

type AnyResult<T> = Result<T, Box<dyn std::error::Error>>;

const BATCH_BYTES: usize = 64 << 20;
const SOURCE_BYTES: usize = 600 << 20;
const BLOCK_BYTES: usize = 1 << 20;
const REPEATS: usize = 100;

/// Numbers that look random: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

fn main() -> AnyResult<()> {
    let folder = std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("icecap-gather"), PathBuf::from);
    let columns = [("coco", 118_287, vec![1280]), ("grid", 7_000, vec![49, 1280]), ("large", 473_148, vec![1280])];
    let readers = columns.map(|(name, rows, shape)| column(&folder.join(name), name, rows, &shape));
    let source = vec![1u8; SOURCE_BYTES + 64];
    let source = &source[source.as_ptr().align_offset(64)..];
    for reader in readers {
        let reader = reader?;
        for threads in [1, rayon::current_num_threads()] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
            let [memcpy, gather] = pool.install(|| rates(source, &reader));
            let (name, share) = (reader.name(), 100.0 * gather / memcpy);
            println!(
                "{name} {} x {:?}, {threads} threads: memcpy {memcpy:.1} GB/s, gather {gather:.1} GB/s ({share:.0}%)",
                reader.len(),
                reader.row_shape()
            );
        }
    }
    Ok(())
}

/// A column of `rows` rows, in a cache of its own.
fn column(folder: &Path, name: &str, rows: u32, shape: &[usize]) -> AnyResult<ColumnReader> {
    let mut cache = Cache::create_or_open(folder, &"gather".into())?;
    cache.sync_rows((0..rows).map(|row| RowRecord { id: row.to_string(), ..RowRecord::default() }))?;
    let spec = ColumnSpec::new(name, Key::new().with("example", "gather"), Dtype::F16, shape).with_batch_rows(64);
    fill(cache.writer(&spec, Overwrite::No)?)?;
    Ok(cache.column(name)?)
}

/// Peak resident memory of this process in MB.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn fill(writer: ColumnWriter) -> AnyResult<()> {
    let start = Instant::now();
    let row_bytes = writer.plan().row_bytes();
    for batch in writer.todo_batches() {
        let mut slot = writer.slot(batch)?;
        for &row in &batch.rows {
            slot.write_row(row, &vec![row as u8; row_bytes])?;
        }
        let outcomes = vec![RowOutcome::Present { content: [1; 16] }; batch.rows.len()];
        writer.commit(slot, &outcomes)?;
    }
    let bytes = u64::from(writer.progress().todo) * row_bytes as u64;
    let name = writer.plan().name.clone();
    writer.finish()?;
    if bytes == 0 {
        return Ok(());
    }
    let rate = bytes as f64 / start.elapsed().as_secs_f64() / 1e9;
    println!("write {name}, {} MB: {rate:.2} GB/s, digests included; peak memory {} MB", bytes >> 20, peak_mb());
    Ok(())
}

/// GB/s of memcpy and of gather: the best of many repeats, in turns, so that both meet the same quiet moments.
fn rates(source: &[u8], reader: &ColumnReader) -> [f64; 2] {
    let rows = BATCH_BYTES / reader.row_bytes();
    // As tensors are: at a multiple of 64 bytes.
    let mut room = vec![2u8; BATCH_BYTES + 64];
    let start = room.as_ptr().align_offset(64);
    let target = &mut room[start..start + BATCH_BYTES];
    let mut random = Random(7);
    // Once over everything, so that every page is in the page cache and mapped.
    let all: Vec<u32> = (0..reader.len()).collect();
    all.chunks(rows).for_each(|rows| drop(reader.gather(rows, &mut target[..rows.len() * reader.row_bytes()])));
    let mut best = [f64::INFINITY; 2];
    for _ in 0..REPEATS {
        let batch: Vec<u32> = (0..rows).map(|_| random.below(u64::from(reader.len())) as u32).collect();
        let blocks = (SOURCE_BYTES / BLOCK_BYTES) as u64;
        let starts: Vec<usize> =
            (0..BATCH_BYTES / BLOCK_BYTES).map(|_| random.below(blocks) as usize * BLOCK_BYTES).collect();
        best[0] = best[0].min(seconds(|| memcpy(source, &starts, target)));
        let out = &mut target[..rows * reader.row_bytes()];
        best[1] = best[1].min(seconds(|| drop(black_box(reader.gather(&batch, out)))));
    }
    [BATCH_BYTES as f64 / best[0] / 1e9, (rows * reader.row_bytes()) as f64 / best[1] / 1e9]
}

fn memcpy(source: &[u8], starts: &[usize], target: &mut [u8]) {
    let blocks = target.par_chunks_mut(BLOCK_BYTES).zip(starts);
    blocks.for_each(|(target, &start)| target.copy_from_slice(&source[start..start + BLOCK_BYTES]));
    black_box(target);
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}
