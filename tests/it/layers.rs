//! Keeps the layering rule of ARCHITECTURE.md: a folder of `src/` uses only what stands below it, and the two stages never
//! use each other.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What each folder of `src/` may use, besides itself. `progress` is the one thing that all may use.
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    // A section of a network is plain data: the encoder makes it, a decoder trains it, and neither knows the other.
    let low = vec!["metrics", "report", "section"];
    let one = ["encoder", "image", "dataset"];
    let two = ["decoder", "trainer", "batch", "text"];
    let mut allowed = BTreeMap::new();
    allowed.insert("metrics", vec!["report"]);
    allowed.insert("report", vec!["metrics"]);
    allowed.insert("section", Vec::new());
    // Bytes of URLs: it knows neither data sets nor pictures, and only the joiners know it.
    allowed.insert("fetch", Vec::new());
    allowed.insert("foreign", low.clone());
    for folder in one {
        allowed.insert(folder, [&one[..], &low].concat());
    }
    for folder in two {
        allowed.insert(folder, [&two[..], &low].concat());
    }
    // Detectors run their networks by the encoder's hand.
    allowed.insert("detector", [&["encoder", "image"], &low[..]].concat());
    let recipe = [&one[..], &two, &low, &["detector"]].concat();
    let stage = [&recipe[..], &["recipe", "fetch", "foreign"]].concat();
    allowed.insert("cli", [&stage[..], &["stage"]].concat());
    allowed.insert("recipe", recipe);
    allowed.insert("stage", stage);
    allowed
}

/// Foreign crates that only some folders may name.
const CONFINED: [(&str, &[&str]); 12] = [
    ("tch", &["decoder", "trainer", "batch"]),
    ("ort", &["encoder"]),
    ("onnx_protobuf", &["encoder"]),
    ("indicatif", &["cli"]),
    ("reqwest", &["fetch"]),
    ("tokio", &["fetch"]),
    ("rustls", &["fetch"]),
    ("tar", &["dataset"]),
    ("clap", &["cli"]),
    ("minijinja", &["report"]),
    ("plotters", &["report"]),
    ("jpeg_encoder", &["image"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names that follow `crate::` in `text`, lists in braces taken apart.
fn uses(text: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = Vec::new();
    for (_, rest) in text.match_indices("crate::").map(|(at, found)| (at, &text[at + found.len()..])) {
        let Some(list) = rest.strip_prefix('{') else {
            names.push(word(rest));
            continue;
        };
        let mut depth = 0_i32;
        let mut start = true;
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && depth == 0 && !c.is_whitespace() => {
                    names.push(word(&list[at..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    names
}

#[test]
fn each_folder_uses_only_what_stands_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed = allowed();
    let mut broken = Vec::new();
    let mut seen = 0;
    for (folder, may) in &allowed {
        let mut files = Vec::new();
        let path = root.join(folder);
        if path.is_dir() {
            sources(&path, &mut files);
        }
        for file in files {
            seen += 1;
            let text = fs::read_to_string(&file).expect("a source file");
            for name in uses(&text) {
                if allowed.contains_key(name.as_str()) && name != *folder && !may.contains(&name.as_str()) {
                    broken.push(format!("{} uses {name}", file.display()));
                }
            }
            for (foreign, homes) in CONFINED {
                let named = text.contains(&format!("use {foreign}::")) || text.contains(&format!(" {foreign}::"));
                if named && !homes.contains(folder) {
                    broken.push(format!("{} names the crate {foreign}", file.display()));
                }
            }
        }
    }
    assert!(seen > 20, "only {seen} files were looked at");
    assert!(broken.is_empty(), "the layering is broken:\n{}", broken.join("\n"));
}

#[test]
fn the_cache_crate_knows_no_framework() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("cache/Cargo.toml");
    let text = fs::read_to_string(manifest).expect("cache/Cargo.toml");
    for foreign in ["ort", "tch", "clap", "image", "indicatif", "tokenizers"] {
        assert!(
            !text
                .lines()
                .any(|line| line.starts_with(&format!("{foreign} ")) || line.starts_with(&format!("{foreign}."))),
            "it names {foreign}"
        );
    }
}
