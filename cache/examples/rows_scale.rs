//! How long 3.3 million rows take to make, open and look up, and how much memory.
//!
//!     cargo run --release -p icecap-cache --example rows_scale -- [ROWS] [FOLDER]
//!
//! Makes the cache in FOLDER where it is not there yet, then opens it in a process of its own, whose peak memory is reported.

use std::path::PathBuf;
use std::time::Instant;

use icecap_cache::{Cache, RowRecord, content_hash};

type AnyResult<T> = Result<T, Box<dyn std::error::Error>>;

/// A row like Conceptual Captions': 250 bytes a line or so.
fn record(row: u32) -> RowRecord {
    let hash = content_hash(&row.to_le_bytes());
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    RowRecord {
        id: format!("{row:09}"),
        source: format!("https://images.example.org/{}/{}.jpg", &hex[..6], &hex[6..]),
        split: if row.is_multiple_of(200) { "val" } else { "train" }.to_owned(),
        captions: vec![format!("a person {} walks beside the river {} at sunset", row % 977, row % 89)],
        content: Some(hex),
        bytes: Some(40_000 + u64::from(row % 9999)),
        modified_ns: None,
    }
}

/// Peak resident memory of this process in MB.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn main() -> AnyResult<()> {
    let mut arguments = std::env::args().skip(1);
    let rows: u32 = arguments.next().map_or(Ok(3_318_333), |text| text.parse())?;
    let folder: PathBuf =
        arguments.next().map_or_else(|| std::env::temp_dir().join("icecap-rows-scale"), PathBuf::from);
    if arguments.next().is_some() {
        return open(&folder);
    }
    let start = Instant::now();
    let mut cache = Cache::create_or_open(&folder, &"rows_scale".into())?;
    if cache.rows().len() != rows {
        cache.sync_rows((0..rows).map(record))?;
        println!("first sync of {rows} rows: {:.2} s, peak {} MB", start.elapsed().as_secs_f64(), peak_mb());
    }
    drop(cache);
    for _ in 0..3 {
        let own = std::env::current_exe()?;
        std::process::Command::new(own).arg(rows.to_string()).arg(&folder).arg("open").status()?;
    }
    let start = Instant::now();
    let mut cache = Cache::open(&folder)?;
    let opened = start.elapsed();
    cache.sync_rows((0..rows).map(record))?;
    println!("sync that changes nothing: {:.2} s", (start.elapsed() - opened).as_secs_f64());
    Ok(())
}

fn open(folder: &std::path::Path) -> AnyResult<()> {
    let start = Instant::now();
    let cache = Cache::open(folder)?;
    let opened = start.elapsed().as_secs_f64();
    let (rows, peak) = (cache.rows(), peak_mb());
    let bytes = std::fs::metadata(rows.path())?.len();
    let start = Instant::now();
    let train = rows.split_rows("train").len();
    let split = start.elapsed().as_secs_f64() * 1e3;
    let start = Instant::now();
    let found = (0..100_000).filter(|at| rows.find(&format!("{:09}", at * 31 % rows.len())).is_some()).count();
    let find = start.elapsed().as_secs_f64() * 1e6 / found as f64;
    println!(
        "open {} rows of {} MB: {opened:.2} s, peak {peak} MB; split of {train} rows {split:.1} ms; find {find:.2} us an id",
        rows.len(),
        bytes >> 20
    );
    Ok(())
}
