//! A disk that is really full: a small tmpfs, mounted in a namespace of its own. Skipped where that is not allowed.

use std::path::PathBuf;
use std::process::Command;

use icecap_cache::{CacheError, ColumnSpec, Overwrite};

use crate::common::*;

const CHILD: &str = "ICECAP_FULL_DISK";

fn big_spec() -> ColumnSpec {
    let mut spec = spec();
    spec.tensors[0].row_shape = vec![20_000];
    spec
}

/// Not a test: runs on the small disk.
#[test]
fn child() {
    let Ok(folder) = std::env::var(CHILD) else {
        return;
    };
    let folder = PathBuf::from(folder);
    let images = Images::new(60);
    let cache = cache_in(&folder.join("cache"), &images);
    let ballast = folder.join("ballast");
    std::fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    let full = {
        let writer = cache.writer(&big_spec(), Overwrite::No).unwrap();
        let full = writer.todo_batches().iter().find_map(|batch| match writer.slot(batch) {
            Ok(slot) => {
                drop(slot);
                compute(&writer, &images, batch);
                None
            }
            Err(error) => Some(error),
        });
        full.expect("the disk did not fill up")
    };
    let CacheError::DiskFull { needed: Some(needed), free: Some(free), .. } = full else { panic!("{full}") };
    assert!(needed > free && needed == 480_796, "{needed} needed, {free} free");
    println!("\n{}", full.to_string().replace(folder.to_str().unwrap(), "DISK").replace(&free.to_string(), "FEW"));
    std::fs::remove_file(ballast).unwrap();
    let writer = cache.writer(&big_spec(), Overwrite::No).unwrap();
    let todo = writer.progress().todo;
    assert!(todo < 60 && todo > 0, "{todo} to do");
    drop(writer);
    let manifest = write(&cache, &images, &big_spec());
    assert_eq!(manifest.rows(), 60);
    check_reader(&cache, &images);
    println!("resumed with fewer rows to do");
}

#[test]
fn a_full_disk_stops_cleanly_and_resumes_after() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=4m none "$1" || exit 77; shift; exec "$@""#;
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "disk_full::child", "--nocapture", "--test-threads=1"])
        .env(CHILD, folder.path())
        .output();
    let Ok(output) = output else {
        return eprintln!("skipped: there is no `unshare`");
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() && !out.contains("running 1 test") {
        return eprintln!("skipped: a namespace with a mount of its own is not allowed here: {err}");
    }
    assert!(output.status.success(), "{out}{err}");
    let lines: Vec<&str> = out
        .lines()
        .filter(|line| ["the disk", "hint:", "resumed"].iter().any(|start| line.starts_with(start)))
        .collect();
    insta::assert_snapshot!(lines.join("\n").replace(&spec().key.short(), "KEY8"), @r"
    the disk of `DISK/cache/columns/avgpool-KEY8/00004.safetensors.partial.tmp` is full: the shard needs 480796 bytes, FEW are free
    hint: free space and run the same command again: it resumes
    resumed with fewer rows to do
    ");
}
