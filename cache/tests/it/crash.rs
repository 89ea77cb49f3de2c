//! kill -9 at random instants: nothing corrupt, nothing journalled done twice, the same bytes in the end.
//!
//! The test runs itself as a child that writes a column, kills it, starts it again, and compares the finished column with
//! one that was never interrupted. Half of the histories then append and change images, so that kills also hit the rewriting
//! of finished shards.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use icecap_cache::{Cache, ColumnSpec, Overwrite};

use crate::common::*;

const CHILD: &str = "ICECAP_CRASH_CHILD";

/// Small batches in shards of a few, so that a kill can hit every phase.
fn crash_spec() -> ColumnSpec {
    let mut spec = spec();
    spec.tensors[0].row_shape = vec![3000];
    spec.with_batch_rows(4).with_rows_per_shard(32)
}

fn images(seed: u64, extended: bool) -> Images {
    let mut images = Images::new(150 + (seed % 7) as u32);
    images.missing_every = 6;
    images.versions.iter_mut().for_each(|version| *version = (seed % 1000) as u32);
    if extended {
        images.versions.extend([0; 41]);
        (3..100).step_by(29).for_each(|row| images.versions[row] += 1);
    }
    images
}

/// A random number that is the same for the same seed.
fn draw(seed: u64, what: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(&what.to_le_bytes());
    u64::from_le_bytes(std::array::from_fn(|at| hasher.finalize().as_bytes()[at]))
}

/// Not a test: what the parent starts and kills. Writes to its log the batches it knows to be durable.
#[test]
fn child() {
    let Ok(text) = std::env::var(CHILD) else {
        return;
    };
    let mut parts = text.splitn(4, ' ');
    let mut number = || parts.next().unwrap().parse::<u64>().unwrap();
    let (seed, threads, extended) = (number(), number() as usize, number() == 1);
    let folder = PathBuf::from(parts.next().unwrap());
    let images = images(seed, extended);
    let log = std::fs::File::options().append(true).create(true).open(folder.with_extension("log")).unwrap();
    let say = |line: String| (&log).write_all(line.as_bytes()).unwrap();
    let cache = Cache::open(&folder).unwrap();
    let writer = cache.writer(&crash_spec(), Overwrite::No).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (writer, images, say) = (&writer, &images, &say);
            scope.spawn(move || {
                for batch in writer.todo_batches().iter().skip(thread).step_by(threads) {
                    say(format!("start {} {}\n", u8::from(extended), batch.start));
                    compute(writer, images, batch);
                    if draw(seed, u64::from(batch.start)).is_multiple_of(3) {
                        writer.flush().unwrap();
                        say(format!("done {} {}\n", u8::from(extended), batch.start));
                    }
                    std::thread::sleep(Duration::from_micros(draw(seed, u64::from(batch.start) + 7) % 1500));
                }
            });
        }
    });
    writer.finish().unwrap();
}

fn spawn(seed: u64, threads: u64, extended: bool, folder: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "crash::child", "--nocapture", "--test-threads=1"]);
    command.env(CHILD, format!("{seed} {threads} {} {}", u8::from(extended), folder.display()));
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs the child until it finishes, killing it after a random time each time; returns the kills that hit.
fn finish_with_kills(seed: u64, extended: bool, folder: &Path, most: u32) -> u32 {
    let mut kills = 0;
    for attempt in 0.. {
        let dice = draw(seed, 1_000_000 + attempt + if extended { 500_000 } else { 0 });
        let mut child = spawn(seed, 1 + dice % 3, extended, folder);
        // The longer it goes on, the more time it gets, so that every history ends.
        let time = Duration::from_micros((dice >> 8) % (120_000 + 20_000 * attempt));
        let end = Instant::now() + time;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if kills < most && Instant::now() >= end => break None,
                None => std::thread::sleep(Duration::from_micros(300)),
            }
        };
        let Some(status) = status else {
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            check_what_is_there(folder);
            continue;
        };
        let mut message = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut message).unwrap();
        assert!(status.success(), "seed {seed}: {message}");
        return kills;
    }
    unreachable!("attempts have no end")
}

/// After any kill, readers must find a sound cache: no column, or a whole one.
fn check_what_is_there(folder: &Path) {
    let cache = Cache::open(folder).unwrap();
    for column in cache.columns().unwrap() {
        assert!(!matches!(column.state, icecap_cache::ColumnState::Damaged(_)), "{column:?}");
        let reader = cache.column_so_far(&column.folder).unwrap();
        assert!(reader.tensors().len() == 2);
    }
}

/// No batch that was durable is started again in the same writing.
fn check_log(folder: &Path) {
    let log = std::fs::read_to_string(folder.with_extension("log")).unwrap();
    let mut done = HashSet::new();
    for line in log.lines() {
        let (what, batch) = line.split_once(' ').unwrap();
        match what {
            "done" => drop(done.insert(batch)),
            _ => assert!(!done.contains(batch), "batch `{batch}` was durable and is computed again"),
        }
    }
}

/// Histories until at least `wanted` kills have hit.
fn histories(wanted: u32, first_seed: u64) -> u32 {
    let mut kills = 0;
    let mut seed = first_seed;
    while kills < wanted {
        let scratch = Scratch::new();
        for extended in [false, true] {
            let images = images(seed, extended);
            let cache = scratch.cache(&images);
            kills += finish_with_kills(seed, extended, &scratch.path(), wanted - kills);
            check_log(&scratch.path());
            let reader = cache.column("avgpool").unwrap();
            let manifest = reader.manifest().unwrap();
            assert!(cache.verify("avgpool", &|_| ()).unwrap().is_sound());
            assert_eq!(column_bytes(&scratch.column(), manifest), reference_bytes(&images), "seed {seed}");
            let left: Vec<String> = files(&scratch.column()).into_keys().collect();
            assert_eq!(left.len(), manifest.shards.len() + 2, "leftovers: {left:?}");
        }
        seed += 1;
    }
    kills
}

fn reference_bytes(images: &Images) -> Vec<String> {
    reference(images, &crash_spec())
}

#[test]
fn killed_25_times() {
    assert!(histories(25, 1) >= 25);
}

#[test]
#[ignore = "takes minutes: the promise of 1,000 kills"]
fn killed_1000_times() {
    let kills = histories(1000, 10_000);
    eprintln!("{kills} kills survived");
    assert!(kills >= 1000);
}
