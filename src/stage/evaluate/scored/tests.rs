use serde_json::json;
use tempfile::tempdir;

use super::*;
use crate::{
    metrics::{Metric, Plan, Resampled},
    progress::Silent,
    stage::evaluate::{Judging, evaluate_results},
};

/// What evaluating results against annotations gives, without files left behind.
fn scored(results: &Value, truth: &[(u64, &str)]) -> Scored {
    let folder = tempdir().unwrap();
    let (captions, annotations) = (folder.path().join("results.json"), folder.path().join("truth.json"));
    let truth: Vec<Value> = truth.iter().map(|(id, caption)| json!({"image_id": id, "caption": caption})).collect();
    fs::write(&captions, results.to_string()).unwrap();
    fs::write(&annotations, json!({"annotations": truth}).to_string()).unwrap();
    let judging = Judging { bootstrap: Some(Plan { resamples: 20, ..Plan::default() }), ..Judging::default() };
    Scored::from(&evaluate_results(&captions, Some(&annotations), &judging, &Silent).unwrap())
}

const TRUTH: [(u64, &str); 5] = [
    (1, "a dog runs in the grass"),
    (1, "the dog is running"),
    (2, "a man rides a horse"),
    (2, "a man on a horse"),
    (3, "blue"),
];

fn example() -> Scored {
    let results = json!([
        {"image_id": 2, "caption": "a man rides a brown horse"},
        {"image_id": 1, "caption": "a dog runs in a park"},
        {"image_id": 3, "caption": ""}
    ]);
    scored(&results, &TRUTH)
}

#[test]
fn a_file_holds_all_that_the_scores_are_made_of() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("below/per_image.json");
    let scored = example();
    scored.write(&path).unwrap();
    let read = Scored::read(&path).unwrap();
    assert_eq!(read, scored);
    assert_eq!(read.images.iter().map(|image| &image.image_id).collect::<Vec<_>>(), [2, 1, 3]);
    assert_eq!(read.images[0].references, ["a man rides a horse", "a man on a horse"]);
    assert_eq!((read.images[2].cider, read.images[2].meteor, read.summary.wording.empty_captions), (0.0, None, 1));

    let resampled = Resampled::draw(&[&read.image_scores()], read.summary.intervals.as_ref().unwrap().plan).unwrap();
    assert!((resampled.score(0, Metric::Cider) - read.summary.cider).abs() < 1e-12);
    assert!((resampled.score(0, Metric::Bleu4) - read.summary.bleu[3]).abs() < 1e-12);
    assert_eq!(Some(resampled.score(0, Metric::ObjectRecall)), read.summary.object_recall);
    assert_eq!(resampled.interval(0, Metric::Bleu2), read.summary.intervals.unwrap().of.get(&Metric::Bleu2).copied());
}

#[test]
fn the_schema_is_the_documented_one() {
    let value = serde_json::to_value(example()).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&value), "format icecap images made summary");
    assert_eq!(value["format"], 1);
    assert_eq!(
        keys(&value["images"][0]),
        "bleu_4 caption cider counts image_id meteor objects references rouge_l spice"
    );
    let absent = &value["summary"]["not_scored"];
    assert_eq!(keys(absent), "meteor seen_in_training spice", "{absent}");
    assert!(["meteor", "spice", "seen_in_training"].iter().all(|name| value["summary"][name].is_null()));
}

#[test]
fn what_is_not_such_a_file() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("scores.json");
    let refused = |text: &str| {
        fs::write(&path, text).unwrap();
        let error = Scored::read(&path).unwrap_err();
        error.to_string().replace(&folder.path().display().to_string(), "runs/a")
    };
    insta::assert_snapshot!(refused(r#"{"format": 9}"#), @r"
    `runs/a/scores.json` holds scores of format `9`, and this icecap reads `1`
    hint: run `icecap evaluate` again
    ");
    insta::assert_snapshot!(refused("[]"), @"`runs/a/scores.json` is not a file of per-image scores, as `icecap evaluate` writes it");
    insta::assert_snapshot!(refused(r#"{"format": 1}"#), @"`runs/a/scores.json` is not a file of per-image scores, as `icecap evaluate` writes it");
}

#[test]
fn files_of_other_images_are_not_compared() {
    let one = example();
    let mut references = one.clone();
    references.images[1].references.pop();
    let mut order = one.clone();
    order.images.swap(0, 2);
    let mut fewer = one.clone();
    fewer.images.pop();
    let beside = |other: Scored| {
        let error =
            same_images(&[("runs/a/scores/val.json".into(), one.clone()), ("runs/b/scores/val.json".into(), other)]);
        error.unwrap_err().to_string()
    };
    insta::assert_snapshot!(beside(references), @r"
    `runs/a/scores/val.json` and `runs/b/scores/val.json` can't stand in one table: the references of image 1 differ
    hint: evaluate both on the same split of the same cache
    ");
    insta::assert_snapshot!(beside(order), @r"
    `runs/a/scores/val.json` and `runs/b/scores/val.json` can't stand in one table: where one has image 2, the other has 3
    hint: evaluate both on the same split of the same cache
    ");
    insta::assert_snapshot!(beside(fewer), @r"
    `runs/a/scores/val.json` and `runs/b/scores/val.json` can't stand in one table: one has `3` images, the other `2`
    hint: evaluate both on the same split of the same cache
    ");
    assert!(same_images(&[("a".into(), one.clone()), ("b".into(), one)]).is_ok());
    assert!(same_images(&[]).is_ok());
}

#[test]
fn a_split_is_a_plain_file_name() {
    let name = |split: &str| Scored::path(Path::new("run"), split).display().to_string();
    assert_eq!(name("val"), "run/scores/val.json");
    assert_eq!(name("../x y"), "run/scores/___x_y.json");
    assert_eq!(name(""), "run/scores/_.json");
}
