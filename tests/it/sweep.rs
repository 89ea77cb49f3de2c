//! Sweeps by the program: the same results however many run at once, after a kill, and beside a trial that fails.

use std::{
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::Place;

const SWEEP: &str = r#"
recipe = "recipe.toml"
seeds = [0, 1]

[[variant]]
name = "grid"
set = { "decoder.columns" = ["grid"] }

[[variant]]
name = "both"
set = { "decoder.columns" = ["grid", "whole"] }
"#;

fn place(sweep: &str) -> Place {
    let place = Place::with_recipe();
    place.write("sweep.toml", sweep);
    place
}

const LINE: &str = "sweep sweep.toml --data . --cache cache";

/// A report without what a clock says.
fn timeless(mut report: Value) -> Value {
    for list in ["points", "trials"] {
        for entry in report[list].as_array_mut().expect("a list") {
            let entry = entry.as_object_mut().expect("a table");
            entry.remove("seconds");
            entry.remove("run");
            entry.remove("tokens_per_second");
        }
    }
    report
}

fn weights(place: &Place, runs: &str) -> Vec<Vec<u8>> {
    let trials = ["grid-s0", "grid-s1", "both-s0", "both-s1"];
    let file = |trial: &str| place.path(&format!("{runs}/{trial}/checkpoints/last/model.safetensors"));
    trials.iter().map(|trial| std::fs::read(file(trial)).expect("a checkpoint")).collect()
}

#[test]
fn jobs_and_kills_change_no_result() {
    let place = place(SWEEP);
    let dry = place.icecap(&format!("{LINE} --runs one --dry-run --json")).good().json();
    assert_eq!((dry["trials"].as_array().map(Vec::len), dry["steps_left"].as_u64()), (Some(4), Some(160)), "{dry}");
    assert_eq!(dry["columns"].as_array().map(Vec::len), Some(2), "both columns of one pass: {dry}");
    assert!(!place.path("one").exists() && !place.path("cache").exists(), "a dry run writes nothing");

    let one = place.icecap(&format!("{LINE} --runs one --jobs 1 --json")).good();
    assert!(one.err.contains("encode: grid, whole in one pass"), "{}", one.err);
    let two = place.icecap(&format!("{LINE} --runs two --jobs 2 --json")).good();
    assert!(!two.err.contains("encode"), "{}", two.err);
    assert_eq!(timeless(one.json()), timeless(two.json()));
    assert_eq!(weights(&place, "one"), weights(&place, "two"));

    // The sweeper is killed while its second trial is trained; the trial must end with it, and go on with the next sweeper.
    let mut command = place.command(&format!("{LINE} --runs killed --jobs 1"));
    let mut sweeper = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("icecap runs");
    let begun = Instant::now();
    while !place.path("killed/grid-s1/metrics.jsonl").exists() && begun.elapsed() < Duration::from_secs(120) {
        sleep(Duration::from_millis(2));
    }
    sweeper.kill().expect("SIGKILL");
    sweeper.wait().expect("an end");
    assert!(place.path("killed/grid-s0/result.json").exists());
    let result = std::fs::metadata(place.path("killed/grid-s0/result.json")).expect("a result");
    let again = place.icecap(&format!("{LINE} --runs killed --jobs 2 --json")).good();
    assert!(!again.err.contains("grid-s0: begun"), "a finished trial is not repeated: {}", again.err);
    let after = std::fs::metadata(place.path("killed/grid-s0/result.json")).expect("a result");
    assert_eq!(result.modified().ok(), after.modified().ok());
    assert_eq!(timeless(one.json()), timeless(again.json()));
    assert_eq!(weights(&place, "one"), weights(&place, "killed"));

    // A trial is a run.
    place.icecap("evaluate killed/both-s1 --split test --no-java").good();

    // The folder stands for its trials, once they are there.
    let compared = place.icecap("compare killed --split test --json").good().json();
    assert_eq!(compared["runs"].as_array().map(Vec::len), Some(4), "{compared}");
    assert_eq!(compared["variants"].as_array().map(Vec::len), Some(2), "two points of two seeds");
}

#[test]
fn a_failed_trial_is_told_and_the_others_go_on() {
    // A tokenizer that isn't there is looked for when the training starts: nothing earlier can know.
    let place = place(
        "recipe = \"recipe.toml\"\n[[variant]]\nname = \"sound\"\n[[variant]]\nname = \"lost\"\n[variant.set]\n\
         tokenizer = { kind = \"file\", file = \"nowhere.json\" }\n",
    );
    let ended = place.icecap(&format!("{LINE} --runs runs --jobs 1"));
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("lost: failed (exit code 1)") && ended.err.contains("nowhere.json"), "{}", ended.err);
    assert!(ended.err.contains("1 of 2 trials failed"), "{}", ended.err);
    assert!(ended.out.contains("sound") && ended.out.contains("lost failed: exit code 1"), "{}", ended.out);
    let summary: Value = serde_json::from_str(&place.read("runs/sweep.json")).expect("sweep.json");
    let states: Vec<&str> =
        summary["trials"].as_array().expect("trials").iter().filter_map(|trial| trial["state"].as_str()).collect();
    assert_eq!(states, ["finished", "failed"]);
    let compared = place.icecap("compare runs --json").good();
    assert_eq!(compared.json()["runs"].as_array().map(Vec::len), Some(1));
    assert!(compared.err.contains("left out of runs: 1 trial not trained to the end"), "{}", compared.err);

    // What was wrong is mended; only that trial is tried again.
    std::fs::copy(place.path("runs/sound/tokenizer.json"), place.path("nowhere.json")).expect("a tokenizer");
    let again = place.icecap(&format!("{LINE} --runs runs --jobs 1")).good();
    assert!(again.err.contains("lost: begun") && !again.err.contains("sound: begun"), "{}", again.err);
}

#[test]
fn a_sweep_that_changes_adds_trials_and_loses_none() {
    let place = place("recipe = \"recipe.toml\"\nseeds = [0]\n");
    place.icecap(&format!("{LINE} --runs runs")).good();
    place.write("sweep.toml", "recipe = \"recipe.toml\"\nseeds = [0, 1]\n");
    let more = place.icecap(&format!("{LINE} --runs runs")).good();
    assert!(more.err.contains("the sweep has changed") && more.err.contains("new: trial-s1"), "{}", more.err);
    assert!(!more.err.contains("trial-s0: begun"), "{}", more.err);
    // The recipe changed: all names now mean other trainings.
    let recipe = place.read("recipe.toml");
    place.write("recipe.toml", recipe.replace("steps = 40", "steps = 50"));
    let other = place.icecap(&format!("{LINE} --runs runs --json")).good();
    assert!(other.err.contains("`steps = 50` where it was `steps = 40`"), "{}", other.err);
    assert!(other.err.contains("no longer asked for, and kept: trial-s0, trial-s1"), "{}", other.err);
    assert_eq!(other.json()["trials"][0]["steps"], 50);
    assert_eq!(other.json()["earlier"], serde_json::json!(["trial-s0", "trial-s1"]));
    // And back: nothing is to do.
    place.write("recipe.toml", recipe);
    let back = place.icecap(&format!("{LINE} --runs runs --json")).good();
    assert!(!back.err.contains("begun"), "{}", back.err);
    assert_eq!(back.json()["trials"][0]["steps"], 40);
}

#[test]
fn halving_trains_the_best_points_on() {
    let place = place(
        "recipe = \"recipe.toml\"\nseeds = [0, 1]\n[grid]\ntrain.learning_rate = [1e-6, 1e-2, 2e-6, 3e-6]\n[halving]\neta = 2\n\
         rungs = [20, 30]\n",
    );
    let found = place.icecap(&format!("{LINE} --runs runs --jobs 2 --json")).good().json();
    let steps: Vec<u64> =
        found["trials"].as_array().expect("trials").iter().filter_map(|trial| trial["steps"].as_u64()).collect();
    let of = |count: u64| steps.iter().filter(|steps| **steps == count).count();
    assert_eq!((of(20), of(30), of(40)), (4, 2, 2), "{found}");
    assert_eq!(found["points"][0]["state"], "finished", "{found}");
    // Once more: every rung is read off the folders, and nothing is trained.
    let again = place.icecap(&format!("{LINE} --runs runs --jobs 1 --json")).good();
    assert!(!again.err.contains("begun"), "{}", again.err);
    assert_eq!(timeless(found), timeless(again.json()));
}

#[test]
fn what_a_sweep_refuses() {
    let place = place(SWEEP);
    std::fs::create_dir(place.path("busy")).expect("a folder");
    let held = std::fs::File::create(place.path("busy/lock")).expect("a lock");
    held.lock().expect("the lock");
    insta::assert_snapshot!(place.icecap(&format!("{LINE} --runs busy")).bad(), @r##"
    error: the sweep `busy` is being run by another process
    hint: wait for it to end, or give another folder to --runs
    "##);
    drop(held);
    place.write("run/run.json", "{}");
    insta::assert_snapshot!(place.icecap(&format!("{LINE} --runs run")).bad(), @r##"
    error: `run` is a run, and a sweep's folder holds runs
    hint: give another folder to --runs
    "##);
    place.write("two.toml", "recipe = \"recipe.toml\"\n[grid]\ncolumn.0.tap = [\"c1\", \"c2\"]\n");
    insta::assert_snapshot!(place.icecap("sweep two.toml --data . --cache cache --runs two").bad(), @r##"
    error: the trials `tap=c1` and `tap=c2` make column `grid` in two ways, and a cache has one column of a name
    hint: give it another name in one of them, such as `column.0.name = "other"`, or name both in the recipe and vary `decoder.columns`
    "##);
    assert!(!place.path("two").exists(), "nothing is left behind");
    insta::assert_snapshot!(place.icecap("sweep nowhere.toml --cache cache --runs two").bad(), @r##"
    error: the sweep file `nowhere.toml` can't be read
      cause: No such file or directory (os error 2)
    hint: check the path; pipelines/study-flickr8k.toml is one
    "##);
    assert_eq!(place.icecap(&format!("{LINE} --runs two --jobs 0")).code, Some(2));
}
