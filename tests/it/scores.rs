//! `icecap evaluate` on files: what anyone's captions are told, and METEOR and SPICE by programs that stand in for the Java ones.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::{Value, json};

use crate::support::{Ended, Place};

/// Two programs in one, in the place of `java`: each answers in the protocol of its jar, with numbers that a test can foretell.
/// METEOR's is the words of the caption by 100, SPICE's the references by 10.
const JAVA: &str = r#"#!/usr/bin/env python3
import json, sys
args = sys.argv[1:]
if "spice-1.0.jar" in args:
    task = json.load(open(args[args.index("spice-1.0.jar") + 1]))
    scores = [{"image_id": one["image_id"], "scores": {"All": {"f": len(one["refs"]) / 10}}} for one in task]
    json.dump(scores, open(args[args.index("-out") + 1], "w"))
    sys.exit()
for line in sys.stdin:
    kind, *parts = line.rstrip("\n").split(" ||| ")
    if kind == "SCORE":
        print(len(parts[-1].split()), flush=True)
    else:
        print(*(int(words) / 100 for words in parts), sum(map(int, parts)) / 1000, sep="\n", flush=True)
"#;

/// A place with captions of three images, a package like pycocoevalcap, and a `java`.
struct Scene {
    place: Place,
}

impl Scene {
    /// `None`, with a line, where there is no Python.
    fn new(java: &str, models: bool) -> Option<Self> {
        let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python3");
        if !venv.exists() {
            eprintln!("skipped: {} is absent", venv.display());
            return None;
        }
        let place = Place::new();
        place.write("package/pycocoevalcap/__init__.py", "");
        for file in ["meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz", "spice/spice-1.0.jar"] {
            place.write(&format!("package/pycocoevalcap/{file}"), "");
        }
        for part in ["", "-models"].into_iter().filter(|_| models) {
            place.write(&format!("package/pycocoevalcap/spice/lib/stanford-corenlp-3.6.0{part}.jar"), "");
        }
        place.write("bin/java", java);
        std::fs::set_permissions(place.path("bin/java"), Permissions::from_mode(0o755)).expect("a mode");
        files(&place);
        Some(Self { place })
    }

    fn evaluate(&self, more: &str) -> Ended {
        let line = format!("evaluate results.json --annotations truth.json --resamples 50 {more}");
        let mut command = self.place.command(&line);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.place.path("bin").display()));
        command.env("PYTHONPATH", self.place.path("package"));
        let output = command.output().expect("icecap runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

fn files(place: &Place) {
    let results = json!([
        {"image_id": 3, "caption": "A dog, running!"},
        {"image_id": 1, "caption": "two men on a bench"},
        {"image_id": 2, "caption": " . "},
    ]);
    let truth = [(1, "two men sit on a bench"), (1, "men on a bench"), (2, "a cat"), (3, "a dog runs"), (4, "a horse")];
    let truth: Vec<Value> = truth.iter().map(|(id, caption)| json!({"image_id": id, "caption": caption})).collect();
    place.write("results.json", results.to_string());
    place.write("truth.json", json!({"annotations": truth}).to_string());
}

#[test]
fn captions_of_a_file() {
    let place = Place::new();
    files(&place);
    let ended = place.icecap("evaluate results.json --annotations truth.json --no-java").good();
    insta::assert_snapshot!(ended.err, @r"
    1 of the 4 images of `truth.json` have no caption here and are left out
    the caption of image 2 has no words and scores 0
    ");
    insta::assert_snapshot!(ended.out, @r"
              BLEU-1  BLEU-2  BLEU-3  BLEU-4  ROUGE-L   CIDEr  objects
    3 images   77.22   75.36   63.04   57.66    55.56  293.30    75.00
    95% from    0.00    0.00    0.00    0.00     0.00    0.00     0.00
    to        100.00  100.00   87.36   75.98   100.00  629.89   100.00
    7 words used, 2.7 a caption; 3 of 3 captions distinct
    ");
    assert!(!place.path("scores").exists(), "nothing is kept of a file unless it is asked for");

    let line =
        "evaluate results.json --annotations truth.json --no-java --json --resamples 0 --per-image below/scores.json";
    let scores = place.icecap(line).good().json();
    assert_eq!(
        (&scores["intervals"], &scores["meteor"], &scores["seen_in_training"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(scores["not_scored"]["meteor"], "left out");
    assert_eq!(scores["objects"], json!({"named": 4, "found": 3}));
    let kept: Value = serde_json::from_str(&place.read("below/scores.json")).expect("per-image scores");
    assert_eq!((&kept["images"][1]["image_id"], &kept["summary"]), (&1.into(), &scores));
}

#[test]
fn meteor_and_spice_by_their_programs() {
    let Some(scene) = Scene::new(JAVA, true) else { return };
    let scores = scene.evaluate("--json --per-image scores.json").good().json();
    assert_eq!((&scores["meteor"], &scores["not_scored"]["meteor"]), (&json!(0.008), &Value::Null), "{scores}");
    assert!(scores["spice"].as_f64().is_some_and(|spice| (spice - 0.4 / 3.0).abs() < 1e-12), "{scores}");
    let kept: Value = serde_json::from_str(&scene.place.read("scores.json")).expect("per-image scores");
    let of = |name: &str| {
        kept["images"].as_array().expect("images").iter().map(|image| image[name].clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("meteor"), [0.03, 0.05, 0.0], "in the order of the results, tokenized");
    assert_eq!(of("spice"), [0.1, 0.2, 0.1]);
    let shown = scene.evaluate("").good();
    assert!(shown.out.contains("METEOR") && shown.out.contains("SPICE"), "{}", shown.out);
    assert!(!shown.err.contains("not scored"), "{}", shown.err);
}

#[test]
fn programs_that_fail_are_told_and_cost_no_other_score() {
    let broken = "#!/bin/sh\necho 'Exception in thread \"main\" java.lang.OutOfMemoryError' >&2\nexit 3\n";
    let Some(scene) = Scene::new(broken, false) else { return };
    let ended = scene.evaluate("--json").good();
    let scores = ended.json();
    assert!(scores["cider"].as_f64().is_some_and(|cider| cider > 0.0), "{scores}");
    let reason = |name: &str| scores["not_scored"][name].as_str().unwrap_or_default().to_owned();
    insta::assert_snapshot!(reason("meteor"), @r#"
    METEOR ended with exit code 3: Exception in thread "main" java.lang.OutOfMemoryError
    "#);
    assert!(reason("spice").starts_with("Stanford's parser models (stanford-corenlp-3.6.0) are not in"), "{scores}");
    let shown = scene.evaluate("").good();
    assert!(
        shown.err.contains("METEOR is not scored: ") && shown.err.contains("SPICE is not scored: "),
        "{}",
        shown.err
    );

    std::fs::remove_dir_all(scene.place.path("package")).expect("a package");
    let ended = scene.evaluate("").good();
    assert!(!shown.out.contains("METEOR"), "{}", shown.out);
    if ended.err.contains("pycocoevalcap is not installed") {
        assert!(ended.err.contains("METEOR and SPICE are not scored: "), "one line for one reason: {}", ended.err);
    }
}

#[test]
fn scores_that_cannot_be_kept() {
    let place = Place::new();
    files(&place);
    place.write("taken", "a file");
    let line = "evaluate results.json --annotations truth.json --no-java --per-image taken/scores.json";
    let said = place.icecap(line).bad();
    assert!(said.contains("`taken/scores.json` can't be written"), "{said}");
    let both = "evaluate results.json --annotations truth.json --per-image x.json --no-per-image";
    assert_eq!(place.icecap(both).code, Some(2));
}

/// The loader says whose initializers it calls: those of libtorch take longer than scoring does.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_file_is_scored_before_libtorch_wakes_up() {
    let place = Place::new();
    files(&place);
    let woken = |line: &str| {
        let output = place.command(line).env("LD_DEBUG", "files").output().expect("icecap runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("libtorch_cpu.so"), "the loader says nothing of libtorch: {said}");
        let woken = said.lines().any(|line| line.contains("calling init: ") && line.contains("libtorch_cpu.so"));
        (output.status.code(), woken)
    };
    assert_eq!(woken("evaluate results.json --annotations truth.json --no-java"), (Some(0), false));
    assert_eq!(woken("evaluate results.json"), (Some(1), false));
    assert_eq!(woken("--help"), (Some(0), false));
    assert_eq!(woken("evaluate"), (Some(2), false));
    assert_eq!(woken("evaluate ."), (Some(1), true), "a run needs libtorch");
    assert_eq!(woken("cache list nowhere"), (Some(1), true));
}

/// Nobody reads stdout: the scores are lost, and what was asked to be kept is kept.
#[test]
fn a_closed_pipe_is_no_failure() {
    let place = Place::new();
    files(&place);
    let line = "evaluate results.json --annotations truth.json --no-java --per-image scores.json";
    let mut child = place.command(line).stdout(std::process::Stdio::piped()).spawn().expect("icecap runs");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert!(place.path("scores.json").exists());
}
