//! Python reads what is written, with the safetensors package alone. Skipped where there is no such Python.

use std::path::Path;
use std::process::Command;

use crate::common::*;

const SCRIPT: &str = r#"
import json, sys
from safetensors import safe_open
folder = sys.argv[1]
manifest = json.load(open(folder + "/column.json"))
for shard in manifest["shards"]:
    with safe_open(f"{folder}/{shard['file']}", "np") as f:
        rows, status, content = f.get_tensor("embedding"), f.get_tensor("status"), f.get_tensor("content")
        print(shard["file"], rows.dtype, rows.shape, f.get_tensor("boxes").shape, content.shape, rows.tobytes().hex(), *status)
"#;

/// A Python that has safetensors and numpy: of the project, else the system's.
fn python() -> Option<String> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python");
    let candidates = [project.to_string_lossy().into_owned(), "python3".to_owned()];
    let works = |python: &String| {
        let tried = Command::new(python).args(["-c", "import safetensors, numpy"]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    candidates.into_iter().find(works)
}

#[test]
fn python_opens_a_shard() {
    let Some(python) = python() else {
        eprintln!("skipped: no Python with safetensors and numpy");
        return;
    };
    let (scratch, images) = (Scratch::new(), Images::new(17));
    let cache = scratch.cache(&images);
    write(&cache, &images, &spec());
    let output = Command::new(python).args(["-c", SCRIPT]).arg(scratch.column()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let reader = cache.column("avgpool").unwrap();
    let mut expected = String::new();
    for (first, block) in reader.blocks(0) {
        let rows = block.len() / reader.row_bytes();
        let hex: String = block.iter().map(|byte| format!("{byte:02x}")).collect();
        let status =
            (first..first + rows as u32).map(|row| reader.missing(row).map_or(0, |m| m.reason.code()).to_string());
        let status = status.collect::<Vec<_>>().join(" ");
        let file = format!("{:05}.safetensors", first / 12);
        expected += &format!("{file} float16 ({rows}, 5) ({rows}, 3) ({rows}, 16) {hex} {status}\n");
    }
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}
