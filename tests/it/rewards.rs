//! Scheduled sampling, Up-Down and rewards (SCST), with the built program on drawn shapes: a run by cross entropy, then one by rewards
//! that begins with it; cut and resumed; and what does not fit.

use crate::support::Place;

const TRAIN: &str = "[train]\npatience = 0\nvalidate_every = 9\nlabel_smoothing = 0.0\n";

/// `base.toml`, an Up-Down with scheduled sampling, and `rewards.toml`, the same decoder with rewards; a run of the first.
fn place() -> Place {
    let place = Place::with_recipe();
    let recipe = place.read("recipe.toml");
    let columns = "columns = [\"grid\", \"whole\"]\nvariant = \"up-down\"\nstandardize = true\ndropout = 0.0";
    let begin = recipe[..recipe.find("[train]").expect("a section")]
        .replace("columns = [\"grid\"]", columns)
        .replace("train = 120", "train = 240")
        .replace("hidden = 24", "hidden = 64")
        .replace(" = 16\n", " = 32\n");
    let base = "batch = 50\nlearning_rate = 1e-2\nsteps = 200\nscheduled_sampling = { max = 0.1, over = 2 }\n";
    place.write("base.toml", format!("{begin}{TRAIN}{base}"));
    let rewards =
        "batch = 200\nlearning_rate = 2e-3\nsteps = 48\nwarmup_steps = 5\nlog_every = 6\n[train.scst]\nsamples = 4\n";
    place.write("rewards.toml", format!("{begin}{TRAIN}{rewards}"));
    place.icecap("encode base.toml --data . --cache cache").good();
    place.icecap("train base.toml --data . --cache cache --run base").good();
    place
}

fn lines(place: &Place, run: &str) -> Vec<serde_json::Value> {
    let text = place.read(&format!("{run}/metrics.jsonl"));
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn rewards_go_on_from_cross_entropy_and_raise_the_score() {
    let place = place();
    let line = "train rewards.toml --data . --cache cache --init base --run";
    place.icecap(&format!("{line} rewards")).good();
    let found = lines(&place, "rewards");
    assert_eq!(
        (&found[0]["step"], found[0]["score"].is_f64()),
        (&0.into(), true),
        "what it began with is scored first"
    );
    let rewards: Vec<f64> = found.iter().filter_map(|line| line["reward"].as_f64()).collect();
    let mean = |rewards: &[f64]| rewards.iter().sum::<f64>() / rewards.len() as f64;
    assert!(rewards.len() >= 8 && mean(&rewards[rewards.len() - 4..]) > mean(&rewards[..2]), "{rewards:?}");
    // What is learned is what is sampled: by the last weights, not those that spoke best greedily.
    std::fs::remove_dir_all(place.path("rewards/checkpoints/best")).expect("a best checkpoint");
    let sampled = |run: &str| {
        let scores = place.icecap(&format!("evaluate {run} --split train --temperature 1 --json")).good().json();
        scores["cider"].as_f64().unwrap_or_else(|| panic!("{scores}"))
    };
    let (before, after) = (sampled("base"), sampled("rewards"));
    assert!(after > 1.05 * before, "{before} {after}");
    assert!(found.iter().filter(|line| line["loss"].is_f64()).all(|line| line["baseline"].is_f64()));

    place.write("picture.png", icecap::dataset::shapes::Scene { seed: 0, index: 2 << 32, side: 64 }.png());
    place.icecap("caption rewards picture.png --attention looked").good();
    assert!(place.read("looked/picture.png.json").contains("\"weights\""));
    let info = place.read("rewards/run.json");
    assert!(info.contains("\"init\"") && info.contains("/base"), "{info}");
}

#[test]
fn a_start_that_does_not_fit_is_named() {
    let place = place();
    let refused = |line: &str, why: &str| {
        let said = place.icecap(&format!("train rewards.toml --data . --cache cache --run other {line}")).bad();
        assert!(said.contains(why), "{said}");
        assert!(!place.path("other/run.json").exists(), "nothing was begun");
    };
    refused("", "`train.scst` needs a decoder that speaks already");
    refused("--init nowhere", "`nowhere` is not a run");
    refused("--init base --set decoder.hidden=20", "its `decoder.hidden` is `64`, and the recipe's is `20`");
    refused("--init base --set decoder.columns=[\"grid\"]", "its `decoder.columns` is `grid (");
    refused("--init base --set tokenizer.min_count=2", "its `tokenizer` is");
    refused("--init base --set decoder.standardize=false", "its `decoder.standardize` is `true`");
    refused("--init base --set train.label_smoothing=0.1", "a reward has no targets to smooth");
    refused("--init base --set train.scst.samples=1", "`1` does not work");
    refused("--init base --set train.scst.sample=1", "did you mean `samples`?");
    // Dropout is no part of the weights; and a run remembers what it began with.
    let line = "train rewards.toml --data . --cache cache --run other --set decoder.dropout=0.1 --set train.steps=2";
    place.icecap(&format!("{line} --init base")).good();
    place.icecap(&format!("{line} --init base --resume")).good();
    let said = place.icecap(&format!("{line} --init elsewhere --resume")).bad();
    assert!(said.contains("the run `other` began with `base`, not with `elsewhere`"), "{said}");
    // Killed before its first checkpoint, it begins again with the other run's weights; and a run may be made longer, not wider.
    let model = || std::fs::read(place.path("other/checkpoints/last/model.safetensors")).expect("a model");
    let whole = model();
    std::fs::remove_dir_all(place.path("other/checkpoints")).expect("checkpoints");
    place.icecap(&format!("{line} --resume")).good();
    assert!(model() == whole, "a training that begins again is the same training");
    let longer = place.icecap(&format!("{line} --set train.steps=3 --resume")).good();
    assert!(longer.err.contains("`steps = 3` where it was `steps = 2`"), "{}", longer.err);
    assert!(model() != whole && place.read("other/recipe.toml").contains("steps = 3"));
    let said = place.icecap(&format!("{line} --set train.steps=3 --set train.batch=50 --resume")).bad();
    assert!(said.contains("it has `batch = 200`, this one `batch = 50`"), "{said}");
}
