//! Columns of several views and layers, and of i8, through the built program: tiles, mirrors, crops, joined taps.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use crate::support::{Place, files, shared};

/// Five columns of mixed views in one pass.
const MIXED: &str = r#"
[[column]]
name = "plain"
tap = "vector"
dtype = "f32"

[[column]]
name = "tiles"
tap = "c2"
pool = "2x2"
tiles = "2x2+1"

[[column]]
name = "crops"
taps = ["c1", "c2"]
pool = "global"
l2 = true
views = ["center", "hflip", "five-crop"]

[[column]]
name = "random"
tap = "vector"
dtype = "f32"
views = ["random:3"]
seed = 7

[[column]]
name = "bytes"
tap = "c2"
pool = "4x4"
dtype = "i8"
views = ["center", "hflip"]
"#;

/// A place whose recipe has the columns of `MIXED`; `limits` go to the drawn data set.
fn place() -> Place {
    let place = Place::with_recipe();
    let recipe =
        place.read("recipe.toml").replace("resize = 32", "resize = 40\ncrop = 32").replace("side = 64", "side = 72");
    let (before, after) = (recipe.find("[[column]]").expect("columns"), recipe.find("[decoder]").expect("a decoder"));
    let decoder = recipe[after..].replace("[\"grid\"]", "[\"bytes\", \"tiles\", \"crops\"]");
    place.write("mixed.toml", format!("{}{MIXED}\n{decoder}", &recipe[..before]));
    place
}

/// The shards and lists of missing rows of a cache.
fn shards(place: &Place, cache: &str) -> Vec<(String, Vec<u8>)> {
    let mut found = files(&place.path(&format!("{cache}/columns")));
    found.retain(|(name, _)| name.ends_with(".safetensors") || name.ends_with("missing.jsonl"));
    found
}

fn assert_same(place: &Place, one: &str, other: &str) {
    let (one, other) = (shards(place, one), shards(place, other));
    assert!(!one.is_empty());
    assert_eq!(
        one.iter().map(|file| &file.0).collect::<Vec<_>>(),
        other.iter().map(|file| &file.0).collect::<Vec<_>>()
    );
    for ((name, bytes), (_, others)) in one.iter().zip(&other) {
        assert!(bytes == others, "{name} differs");
    }
}

/// All columns in one pass, at another number of threads, killed and resumed, or one after the other: the bytes are the same.
#[test]
fn mixed_views_give_the_same_bytes_however_they_are_encoded() {
    let place = place();
    let line = "encode mixed.toml --data . --set dataset.train=250";
    let report = place.icecap(&format!("{line} --cache whole --threads 1 --json")).good().json();
    let shape = |at: usize| report["columns"][at]["shape"].to_string();
    assert_eq!([0, 1, 2, 3, 4].map(shape), ["[8]", "[20,8]", "[6,16]", "[3,8]", "[32,8]"]);
    assert_eq!(report["columns"][4]["dtype"], "i8");
    place.icecap("cache verify whole").good();

    let begun = Instant::now();
    for wait in [20_u64, 60, 100, 40] {
        let mut command = place.command(&format!("{line} --cache killed --threads 2"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("icecap runs");
        while !place.path("killed/columns").exists() && begun.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().expect("SIGKILL");
        child.wait().expect("an end");
    }
    place.icecap(&format!("{line} --cache killed --threads 3")).good();
    assert_same(&place, "whole", "killed");

    // Column by column: what is there is not computed again, and its views are not prepared.
    let recipe = place.read("mixed.toml");
    let start = recipe.find("[[column]]").expect("columns");
    for column in MIXED.split("[[column]]").skip(1) {
        place.write("one.toml", format!("{}[[column]]{column}", &recipe[..start]));
        place.icecap("encode one.toml --data . --set dataset.train=250 --cache single").good();
    }
    assert_same(&place, "whole", "single");
}

/// The rows of one column as f32, by Python and the safetensors package alone.
const READ: &str = r#"
import glob, json, sys
import numpy as np
from safetensors import safe_open
def column(name):
    folder, = glob.glob(f"cache/columns/{name}-*")
    shards = [safe_open(f"{folder}/{s['file']}", "np") for s in json.load(open(folder + "/column.json"))["shards"]]
    rows = np.concatenate([s.get_tensor("embedding").astype("f4") for s in shards])
    if "scale" in shards[0].keys():
        rows = rows * np.concatenate([s.get_tensor("scale") for s in shards]).reshape(-1, *[1] * (rows.ndim - 1))
    return rows
plain, crops, scaled, exact = map(column, ["plain", "crops", "bytes", "exact"])
print(np.abs(scaled - exact).max() <= np.abs(exact).max(axis=(1, 2)).max() / 127 / 2 * 1.001)
print(np.allclose(np.linalg.norm(crops, axis=2), 1, atol=2e-3))
print(np.allclose(scaled[:, :16], exact[:, :16], atol=np.abs(exact).max() / 200), scaled.shape == exact.shape)
"#;

#[test]
fn i8_rows_mean_what_f32_rows_say() {
    let place = place();
    let Some(python) = python() else { return };
    let exact =
        MIXED[MIXED.rfind("[[column]]").expect("columns")..].replace("\"bytes\"", "\"exact\"").replace("i8", "f32");
    let recipe = place.read("mixed.toml");
    let after = recipe.find("[decoder]").expect("a decoder");
    place.write("exact.toml", format!("{}{exact}\n{}", &recipe[..after], &recipe[after..]));
    place.icecap("encode exact.toml --data . --cache cache").good();
    let mut command = std::process::Command::new(python);
    let output = command.args(["-c", READ]).current_dir(place.path(".")).output().expect("Python");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "True\nTrue\nTrue True\n", "{output:?}");
}

fn python() -> Option<std::path::PathBuf> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let found = path.exists();
    if !found {
        eprintln!("skipped: no Python at {}", path.display());
    }
    found.then_some(path)
}

/// A decoder over i8, tiles and joined layers captions a picture from a file as it captions the same picture in the cache.
#[test]
fn a_run_on_variants_captions_new_pictures() {
    let place = place();
    place.icecap("encode mixed.toml --data . --cache cache").good();
    place.icecap("train mixed.toml --data . --cache cache --run run --set train.steps=60").good();
    place.icecap("evaluate run --split test --no-java -o results.json").good();
    let results: Vec<serde_json::Value> = serde_json::from_str(&place.read("results.json")).expect("results");
    for index in 0..3 {
        let scene = icecap::dataset::shapes::Scene { seed: 0, index: (2 << 32) + index, side: 72 };
        place.write(&format!("picture{index}.png"), scene.png());
    }
    let captioned = place.icecap("caption run picture0.png picture1.png picture2.png --json").good().json();
    for index in 0..3 {
        assert_eq!(captioned[index]["caption"], results[index]["caption"]);
    }
    let refused = place.icecap("encode mixed.toml --data . --cache cache --set column.3.seed=8").bad();
    assert!(refused.contains("`image.views`") && refused.contains("random:0/8"), "{refused}");
}

#[test]
fn what_a_model_cannot_give_is_refused() {
    let place = place();
    let line = "encode mixed.toml --data . --cache cache";
    insta::assert_snapshot!(place.icecap(&format!("{line} --set encoder.resize=32")).bad(), @r"
    error: column `crops` takes five crops, and `resize = 32` leaves nothing beside a crop of 32x32: they would be one and the same
    hint: resize to more than the crop, for example resize = 36 and crop = 32
    ");
    insta::assert_snapshot!(place.icecap(&format!("{line} --set column.2.pool=none")).bad(), @r#"
    error: column `crops` can't join `c1` [1024, 8] and `c2` [256, 8]: they have different numbers of vectors
    hint: pool them alike, by pool = "global" or a grid such as pool = "7x7"
    "#);
    let refused = place.icecap(&format!("{line} --set column.1.tiles=2x2+2")).bad();
    assert!(refused.contains("`2x2+2` cuts no picture") && refused.contains("^^^^^^^"), "{refused}");
}

/// Photographs at their original sizes, through a trained encoder.
#[test]
fn real_photographs_in_tiles_and_crops() {
    let (Some(data), Some(_)) = (shared("."), shared("encoders/mobilenet_v2.onnx")) else { return };
    let place = Place::new();
    std::fs::create_dir(place.path("few")).expect("a folder");
    let mut names: Vec<_> = std::fs::read_dir(data.join("flickr8k/originals")).expect("originals").flatten().collect();
    names.sort_by_key(std::fs::DirEntry::file_name);
    for name in names.iter().take(3) {
        std::fs::copy(name.path(), place.path("few").join(name.file_name())).expect("a photograph");
    }
    std::fs::copy(data.join("encoders/mobilenet_v2.onnx"), place.path("mobilenet.onnx")).expect("the encoder");
    let column = |name: &str, more: &str| format!("\n[[column]]\nname = \"{name}\"\ntap = \"features\"\n{more}\n");
    let recipe = "[dataset]\nformat = \"folder\"\nimages = \"few\"\n\n[encoder]\nmodel = \"mobilenet.onnx\"\nresize = 256\ncrop = 224\nmean = [0.5, \
                  0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\nbatch = 2\n";
    let columns = [
        column("plain", ""),
        column("tiles", "tiles = \"1x2+1\"\ndtype = \"i8\""),
        column("five", "views = [\"five-crop\"]"),
    ];
    place.write("recipe.toml", format!("{recipe}{}", columns.concat()));
    let report = place.icecap("encode recipe.toml --data . --cache cache --json").good().json();
    assert_eq!(report["columns"][1]["shape"], serde_json::json!([3, 1280]));
    place.icecap("cache verify cache").good();
    // The centre is the last of the five crops, and the plain column's row.
    let shard = |name: &str| {
        let all = files(&place.path("cache/columns"));
        let (_, bytes) = all
            .into_iter()
            .find(|(path, _)| path.starts_with(name) && path.ends_with("00000.safetensors"))
            .expect("a shard");
        let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize + 8;
        bytes[header..].to_vec()
    };
    let (plain, five) = (shard("plain"), shard("five"));
    for row in 0..3 {
        let view = 1280 * 2;
        assert!(plain[row * view..][..view] == five[(row * 5 + 4) * view..][..view], "row {row}");
    }
}
