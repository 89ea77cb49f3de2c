//! What a cache says of its own making: who wrote a column's rows, whether the row index is the one that was written; and a training
//! that never became a run says nothing at all.

use serde_json::{Value, json};

use crate::support::Place;

const ENCODE: &str = "encode recipe.toml --data . --cache cache";

/// Makes another program the one that wrote the column `grid`.
fn written_by(place: &Place, writers: &Value) {
    let listed = place.icecap("cache list cache --json").good().json();
    let key = listed[0]["key"].as_str().expect("a key");
    let file = format!("cache/columns/grid-{key}/column.json");
    let mut manifest: Value = serde_json::from_str(&place.read(&file)).expect("a manifest");
    manifest.as_object_mut().expect("an object").remove("digest");
    manifest["provenance"]["writers"] = writers.clone();
    place.write(&file, manifest.to_string());
}

#[test]
fn who_goes_on_with_another_providers_column_is_told() {
    let place = Place::with_recipe();
    let begun = place.icecap(&format!("{ENCODE} --set dataset.train=100")).good();
    assert!(!begun.err.contains("ONNX Runtime"), "{}", begun.err);
    let other = json!({ "device": "cuda", "kernels": "provider", "onnxruntime": "1.22.0" });
    written_by(&place, &json!([other]));

    let said = place.icecap(ENCODE).good().err;
    let notes: Vec<&str> = said.lines().filter(|line| line.starts_with("note: column")).collect();
    assert_eq!(notes.len(), 1, "{said}");
    assert!(
        notes[0].starts_with("note: column `grid` has rows by cuda (ONNX Runtime 1.22.0), and goes on by cpu"),
        "{said}"
    );

    let listed = place.icecap("cache list cache --json").good().json();
    assert_eq!((&listed[0]["providers"][0], listed[0]["providers"].as_array().map(Vec::len)), (&other, Some(2)));
    assert_eq!(listed[0]["providers"][1], listed[1]["providers"][0]);
    assert_eq!(listed[1]["providers"][0]["device"], "cpu");
    let listed = place.icecap("cache list cache").good().err;
    assert!(listed.contains("note: column `grid` has rows of 2 providers"), "{listed}");
    assert!(!listed.contains("`whole`"), "{listed}");
    // Once more, and nothing is to do: nothing is noted, and nobody comes to the list.
    assert!(!place.icecap(ENCODE).good().err.contains("note: column"));
    assert_eq!(place.icecap("cache list cache --json").good().json()[0]["providers"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_flipped_bit_in_a_caption_is_found_and_mended() {
    let place = Place::with_recipe();
    place.icecap(ENCODE).good();
    let sound = place.read("cache/rows.jsonl");
    let flipped = sound.replacen("square", "squard", 1);
    assert_ne!(sound, flipped);
    place.write("cache/rows.jsonl", &flipped);
    let ended = place.icecap("cache verify cache");
    assert!(ended.out.starts_with("rows.jsonl: DAMAGED\n"), "{}", ended.out);
    insta::assert_snapshot!(ended.bad(), @"
    error: the row index is damaged
    hint: run `icecap encode` again with the recipe of the cache: it takes ids, splits and captions from the data set anew
    ");
    let found = place.icecap("cache verify cache --json").json();
    let rows = found.as_array().and_then(|found| found.last()).expect("the rows come last");
    assert_eq!((&rows["file"], &rows["sound"]), (&json!("rows.jsonl"), &json!(false)));

    insta::assert_snapshot!(place.icecap(ENCODE).good().err, @"
    note: rows.jsonl is not as icecap wrote it: ids, splits and captions are taken from the data set anew
    144 rows: 1 with other captions or another split
    all 144 rows were encoded before
    ");
    assert!(place.icecap("cache verify cache").good().out.starts_with("rows.jsonl: sound\n"));
    assert_eq!(place.read("cache/rows.jsonl"), sound);
}

#[test]
fn a_decoder_that_can_not_be_built_leaves_no_run_behind() {
    let place = Place::with_recipe();
    place.icecap(ENCODE).good();
    let recipe = place.read("recipe.toml");
    let begin = &recipe[..recipe.find("[decoder]").expect("a decoder")];
    place.write(
        "gpt2.toml",
        format!("{begin}[decoder]\nkind = \"gpt2\"\ncolumns = [\"whole\"]\npretrained = \"nowhere\"\n"),
    );
    let refused = place.icecap("train gpt2.toml --data . --cache cache --run runs/new").bad();
    assert!(refused.contains("nowhere"), "{refused}");
    assert!(!place.path("runs").exists());
}
