//! The cache's tools, with the built program: parts and merge, import and export, plan, drift, encoding again.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use crate::support::{Place, files, shared};

/// A Python with NumPy and safetensors: of the project, else the system's.
fn python(script: &str, arguments: &[&Path]) -> Option<String> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let candidates = [project.to_string_lossy().into_owned(), "python3".to_owned()];
    let works = |python: &&String| {
        let tried = Command::new(python).args(["-c", "import numpy, safetensors"]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    let Some(python) = candidates.iter().find(works) else {
        eprintln!("skipped: no Python with NumPy and safetensors");
        return None;
    };
    let output = Command::new(python).args(["-c", script]).args(arguments).output().expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("UTF-8"))
}

const ENCODE: &str = "encode recipe.toml --data . --shard-rows 32";

#[test]
fn parts_are_merged_to_the_cache_of_one_run() {
    let place = Place::with_recipe();
    place.icecap(&format!("{ENCODE} --cache whole")).good();
    for part in 1..=3 {
        place.icecap(&format!("{ENCODE} --cache parts/{part} --part {part}/3")).good();
    }
    let listed = place.icecap("cache list parts/2 --json").good().json();
    assert_eq!((&listed[0]["state"], &listed[0]["finished"]), (&json!("part 2 of 3: 64 rows"), &json!(false)));
    place.icecap("cache verify parts/2 grid").good();
    insta::assert_snapshot!(place.icecap("train recipe.toml --data . --cache parts/2 --run run").bad(), @r"
    error: the decoder reads column `grid`
      cause: column `grid` is part 2 of 3 here, not the whole
    hint: `icecap cache merge OUT CACHE...` joins the caches of all parts; encoding without --part does the rest in this one
    ");
    insta::assert_snapshot!(place.icecap("cache merge merged parts/1 parts/3").bad(), @r#"
    error: no cache has rows 32 to 95 of column `grid`: they are part 2 of 3
    hint: name the caches of all parts
    "#);
    let report = place.icecap("cache merge merged parts/3 parts/1 parts/2 --json").good().json();
    assert_eq!((&report["rows"], &report["columns"][0]["missing"]), (&json!(144), &json!({})));
    let tree = |name: &str| -> Vec<_> {
        files(&place.path(name)).into_iter().filter(|(name, _)| !name.ends_with("lock")).collect()
    };
    for ((name, bytes), (other, others)) in tree("whole").into_iter().zip(tree("merged")) {
        assert_eq!(name, other);
        assert!(bytes == others, "`{name}` differs");
    }
    place.icecap("cache verify merged").good();
    let again = place.icecap(&format!("{ENCODE} --cache merged")).good();
    assert!(again.err.contains("all 144 rows were encoded before"), "{}", again.err);
    // A part that was broken off is finished by a run without --part.
    place.icecap(&format!("{ENCODE} --cache parts/1")).good();
    place.icecap("cache verify parts/1").good();
    assert_eq!(place.icecap(&format!("{ENCODE} --cache new --part 4/3")).code, Some(2));
    let idle = place.icecap("encode recipe.toml --data . --cache idle --part 1/3").good();
    assert!(idle.err.contains("--shard-rows"), "{}", idle.err);
}

#[test]
fn a_plan_says_what_an_encode_will_do() {
    let place = Place::with_recipe();
    let plan = || place.icecap("plan recipe.toml --data . --cache cache --probe 8 --json").good().json();
    let before = plan();
    assert_eq!(before["splits"], json!({"train": 120, "val": 12, "test": 12}));
    assert_eq!(
        (&before["to_encode"], &before["probe"]["images"], &before["new"]),
        (&json!(144), &json!(8), &json!(144))
    );
    assert!(before["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{before}");
    assert!(!place.path("cache").exists(), "a plan writes nothing");
    place.icecap("encode recipe.toml --data . --cache cache").good();
    let bytes: u64 = files(&place.path("cache/columns"))
        .iter()
        .filter(|(name, _)| name.ends_with(".safetensors"))
        .map(|(_, bytes)| bytes.len() as u64)
        .sum();
    let planned = before["bytes_needed"].as_u64().expect("bytes");
    assert!(planned <= bytes && bytes < planned + 2000, "{planned} planned, {bytes} written");
    let after = plan();
    assert_eq!((&after["to_encode"], &after["bytes_needed"], &after["new"]), (&json!(0), &json!(0), &json!(0)));
    assert_eq!(after["columns"][0]["state"], "finished");
    let other = place.icecap("plan recipe.toml --data . --cache cache --probe 8 --set column.0.pool=2x2").good();
    assert!(other.out.contains("another key (encoder.pool)") && other.out.contains("in the way"), "{}", other.out);
    let more =
        place.icecap("plan recipe.toml --data . --cache cache --probe 8 --set dataset.val=20 --json").good().json();
    assert_eq!((&more["new"], &more["to_encode"]), (&json!(8), &json!(8)));
}

#[test]
fn drift_between_element_types_shapes_and_caches() {
    let place = Place::with_recipe();
    place.icecap("encode recipe.toml --data . --cache cache").good();
    place.icecap("encode recipe.toml --data . --cache other --set column.1.dtype=f16 --set dataset.val=6").good();
    let same = place.icecap("drift cache grid grid --json").good().json();
    assert_eq!(
        (&same["rows"], &same["pairs"]["identical"], &same["compared"]),
        (&json!(144), &json!(144), &json!("rows"))
    );
    assert_eq!(same["cka"]["linear"], 1.0);
    let halves = place.icecap("drift cache whole other:whole --json").good().json();
    assert_eq!((&halves["rows"], &halves["columns"][0]["alone"]), (&json!(138), &json!(6)));
    let cosine = halves["pairs"]["cosine"]["min"].as_f64().expect("a cosine");
    assert!(cosine > 0.99999 && halves["pairs"]["identical"].as_u64() < Some(138), "{halves}");
    let unlike = place.icecap("drift cache grid whole").good().out;
    assert!(unlike.contains("linear CKA"), "{unlike}");
    assert!(place.icecap("drift cache grid nothing").bad().contains("there is no column `nothing` in `cache`"));
    assert!(place.icecap("drift cache grid nowhere:grid").bad().contains("`nowhere` is not a cache"));
}

#[test]
fn rows_are_encoded_again_and_compared() {
    let place = Place::with_recipe();
    place.icecap("encode recipe.toml --data . --cache cache").good();
    let verified = place.icecap("cache verify cache --recompute 20 --data . --json").good().json();
    for column in verified.as_array().expect("columns") {
        let found = &column["recomputed"];
        assert_eq!((&found["rows"], &found["identical"]), (&json!(20), &json!(20)), "{verified}");
    }
    let line = place.icecap("cache verify cache grid --recompute 1000 --data .").good().out;
    assert!(line.contains("grid: 144 rows encoded again, 144 identical"), "{line}");
    // Another model under the same name makes another column.
    std::fs::copy(crate::support::fixture("encoder/fixed_batch.onnx"), place.path("tiny.onnx")).expect("a model");
    let refused = place.icecap("cache verify cache whole --recompute 5 --data .").bad();
    assert!(refused.contains("error"), "{refused}");
}

/// Four pictures of two regions, three numbers each, as bottom-up attention's extractor writes them, and as `.npy`.
const SOURCES: &str = r#"
import base64, os, sys
import numpy as np
root = sys.argv[1]
os.makedirs(f"{root}/fc"); os.makedirs(f"{root}/bu")
b64 = lambda a: base64.b64encode(a.tobytes()).decode()
with open(f"{root}/f.tsv", "w", newline="") as out:
    for n in range(4):
        boxes, x = np.full((1 + n % 2, 4), n, "<f4"), np.arange(3 * (1 + n % 2), dtype="<f4").reshape(-1, 3) + n
        out.write(f"COCO_val2014_{n:012}\t640\t480\t{len(x)}\t{b64(boxes)}\t{b64(x)}\r\n")
        np.save(f"{root}/fc/{n}.npy", np.asfortranarray(x.astype(">f8")) if n else x)
        np.savez_compressed(f"{root}/bu/COCO_val2014_{n:012}.jpg.npz", x=x, bbox=boxes, num_bbox=len(x), image_h=480, image_w=640, info={"a": 1})
"#;

const READ: &str = r#"
import json, sys
import numpy as np
from safetensors import safe_open
folder, file = sys.argv[1:]
x, boxes, ids = np.load(f"{folder}/features.npy", mmap_mode="r"), np.load(f"{folder}/boxes.npy"), open(f"{folder}/ids.txt").read().split("\n")[:-1]
with safe_open(file, "np") as f:
    names = json.loads(f.get_tensor("ids").tobytes())
    assert names == ids and (f.get_tensor("embedding") == x).all() and (f.get_tensor("boxes") == boxes).all()
print(x.dtype, x.shape, boxes.dtype, boxes.shape, ids, x.tolist())
"#;

#[test]
fn features_of_others_come_in_and_go_out() {
    let place = Place::with_recipe();
    if python(SOURCES, &[&place.path("")]).is_none() {
        return;
    }
    let report =
        place.icecap("cache import cache --column tsv --from f.tsv --format anderson-tsv --json").good().json();
    assert_eq!((&report["rows"], &report["pictures"], &report["rounding"]), (&json!(4), &json!(4), &json!(0.0)));
    // The other formats find the same rows by COCO's number.
    place.icecap("cache import cache --column fc --from fc --format npy --dtype f32").good();
    place.icecap("cache import cache --column bu --from bu --format bottom-up-npz").good();
    let drift = place.icecap("drift cache tsv fc --json").good().json();
    assert_eq!(drift["pairs"]["identical"], 4);
    assert_eq!(place.icecap("drift cache tsv bu --json").good().json()["pairs"]["identical"], 4);
    // A source that was bad and is mended is imported under the same name.
    let good = std::fs::read(place.path("f.tsv")).expect("the source");
    place.write("g.tsv", String::from_utf8_lossy(&good).replace("AAAA", "AA*A"));
    assert!(
        place
            .icecap("cache import cache --column mended --from g.tsv --format anderson-tsv")
            .bad()
            .contains("is not base64")
    );
    place.write("g.tsv", good);
    place.icecap("cache import cache --column mended --from g.tsv --format anderson-tsv").good();
    // Once more is no work; other bytes are another column.
    place.icecap("cache import cache --column tsv --from f.tsv --format anderson-tsv").good();
    let refused = place.icecap("cache import cache --column tsv --from f.tsv --format anderson-tsv --dtype f32").bad();
    assert!(refused.contains("`import.dtype`: expected `\"f32\"`, found `\"f16\"`"), "{refused}");
    place.icecap("cache verify cache").good();
    insta::assert_snapshot!(place.icecap("cache verify cache tsv --recompute 2").bad(), @r"
    error: column `tsv` doesn't say by which recipe it was encoded: it was imported from `f.tsv`
    hint: name the recipe with --recipe
    ");

    place.icecap("cache export cache tsv --format npy -o out").good();
    place.icecap("cache export cache tsv --format safetensors -o out.safetensors").good();
    let read = python(READ, &[&place.path("out"), &place.path("out.safetensors")]).expect("Python");
    insta::assert_snapshot!(read, @"float16 (4, 2, 3) float32 (4, 2, 4) ['COCO_val2014_000000000000', 'COCO_val2014_000000000001', 'COCO_val2014_000000000002', 'COCO_val2014_000000000003'] [[[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]], [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[2.0, 3.0, 4.0], [0.0, 0.0, 0.0]], [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]]]");
    assert!(place.icecap("cache export cache tsv --format npy -o out").bad().contains("`out` is there already"));
    // What went out comes in: into the same rows, and as rows of a new cache.
    let refused = place.icecap("cache import cache --column back --from out --format npy").bad();
    assert!(refused.contains("import it with --format npy-rows"), "{refused}");
    place.icecap("cache import cache --column back --from out --format npy-rows").good();
    let drift = place.icecap("drift cache tsv back --json").good().json();
    assert_eq!((&drift["rows"], &drift["pairs"]["identical"]), (&json!(4), &json!(4)), "{drift}");
    let report = place.icecap("cache import new --column back --from out --format npy-rows --json").good().json();
    let tensors: Vec<&str> =
        report["tensors"].as_array().into_iter().flatten().filter_map(|tensor| tensor[0].as_str()).collect();
    assert_eq!((&report["rows"], tensors), (&json!(4), vec!["embedding", "boxes", "count", "size"]));
    place.icecap("cache export new back --format npy -o again").good();
    for file in ["features.npy", "boxes.npy", "count.npy", "ids.txt"] {
        let [one, two] = ["out", "again"].map(|folder| std::fs::read(place.path(&format!("{folder}/{file}"))).ok());
        assert!(one.is_some() && one == two, "{file}");
    }
    // A damaged column does not go out.
    let (shard, mut bytes) =
        files(&place.path("new")).into_iter().find(|(name, _)| name.ends_with("00000.safetensors")).expect("a shard");
    let cut = bytes[..bytes.len() - 1].to_vec();
    // The first number, behind the header's length and the header.
    let header = bytes.first_chunk().copied().map_or(0, u64::from_le_bytes);
    bytes[8 + header as usize] ^= 1;
    place.write(&format!("new/{shard}"), bytes);
    let refused = place.icecap("cache export new back --format safetensors -o bad.safetensors").bad();
    assert!(refused.contains("column `back` is damaged: `00000.safetensors`: among rows 0 to 3"), "{refused}");
    assert!(!place.path("bad.safetensors").exists());
    place.write(&format!("new/{shard}"), cut);
    let refused = place.icecap("cache export new back --format safetensors -o bad.safetensors").bad();
    assert!(refused.contains("are recorded\nhint: `icecap cache verify` lists"), "{refused}");
    assert!(
        place
            .icecap("cache export cache tsv --format npy -o o --split dev")
            .bad()
            .contains("no row is in the split `dev`")
    );

    // Rows of a data set: what the source lacks is missing, never made up.
    insta::assert_snapshot!(place.icecap("cache import drawn --column tsv --from f.tsv --format anderson-tsv --dataset recipe.toml --data .").bad(), @r"
    144 rows: 144 new
    error: none of the 4 pictures of `f.tsv` is a row of the cache: there they are called `COCO_val2014_000000000000`, `COCO_val2014_000000000001`, `COCO_val2014_000000000002`, here `train-000000`, `train-000001`, `train-000002`
    hint: pictures are matched by id, then by file name without folder and extension, then by COCO's number; name the right data set with --dataset
    ");
    let coco = json!({
        "images": [{"id": 3, "file_name": "3.jpg"}, {"id": 1, "file_name": "1.jpg"}, {"id": 9, "file_name": "9.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "caption": "a dog"}, {"id": 2, "image_id": 3, "caption": "a cat"}],
    });
    place.write("captions.json", coco.to_string());
    place.write("images/1.jpg", "");
    let recipe = place.read("recipe.toml");
    let columns = &recipe[recipe.find("[encoder]").expect("an encoder")..];
    place.write(
        "coco.toml",
        format!(
            "[dataset]\nformat = \"coco\"\nval = {{ captions = \"captions.json\", images = \"images\" }}\n\n{columns}"
        ),
    );
    let line = "cache import coco --column tsv --from f.tsv --format anderson-tsv --dataset coco.toml --data .";
    insta::assert_snapshot!(place.icecap(line).bad(), @r"
    3 rows: 3 new
    error: `f.tsv` lacks the features of 1 of 3 rows, more than the 5% that --max-missing allows
    hint: name all of the files, or the data set that they are of; or allow more, for example --max-missing 34%
    ");
    let report = place.icecap(&format!("{line} --max-missing 40% --json")).good().json();
    assert_eq!(
        (&report["rows"], &report["unmatched"], &report["missing"]),
        (&json!(3), &json!(2), &json!({"not-found": 1}))
    );
    place.icecap("cache export coco tsv --format npy -o some").good();
    assert_eq!(
        (place.read("some/ids.txt").as_str(), place.read("some/missing.txt").as_str()),
        ("3\n1\n", "9\tnot-found\n")
    );
    let rows: Vec<Value> =
        place.read("coco/rows.jsonl").lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
    assert_eq!((&rows[0]["captions"], &rows[0]["split"]), (&json!(["a cat"]), &json!("val")));
}

#[test]
fn features_of_ten_photographs() {
    let Some(tsv) = shared("regions/train2014_obj36.tsv") else { return };
    let place = Place::new();
    let line = format!("cache import cache --column regions --from {} --format anderson-tsv --json", tsv.display());
    let report = place.icecap(&line).good().json();
    assert_eq!((&report["rows"], &report["tensors"][0]), (&json!(10), &json!(["embedding", [36, 2048]])));
    assert!(report["rounding"].as_f64().is_some_and(|rounding| rounding > 0.0 && rounding < 0.02), "{report}");
    assert_eq!(report["tensors"].as_array().map(Vec::len), Some(8));
}
