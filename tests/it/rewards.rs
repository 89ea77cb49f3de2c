//! Scheduled sampling, Up-Down and rewards (SCST), with the built program on drawn shapes: a run by cross entropy, then one by rewards
//! that begins with it; cut and resumed; and what does not fit.

use crate::support::Place;

const TRAIN: &str = "[train]\npatience = 0\nvalidate_every = 1\n";

/// `base.toml`, an Up-Down with scheduled sampling, and `rewards.toml`, the same decoder with rewards; a run of the first.
fn place() -> Place {
    let place = Place::with_recipe();
    let recipe = place.read("recipe.toml");
    let columns = "columns = [\"grid\", \"whole\"]\nvariant = \"up-down\"\nstandardize = true\ndropout = 0.0";
    let begin = recipe[..recipe.find("[train]").expect("a section")]
        .replace("columns = [\"grid\"]", columns)
        .replace("train = 120\nval = 12", "train = 240\nval = 40")
        .replace("hidden = 24", "hidden = 48");
    let base = "batch = 50\nlearning_rate = 5e-3\nscheduled_sampling = { max = 0.1, over = 2 }\n";
    place.write("base.toml", format!("{begin}{TRAIN}{base}steps = 300\n"));
    let rewards = "batch = 100\nlearning_rate = 3e-3\nsteps = 60\nlog_every = 10\n[train.scst]\nsamples = 4\n";
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
    let scores: Vec<f64> = found.iter().filter_map(|line| line["score"].as_f64()).collect();
    let best = scores.iter().copied().fold(0.0, f64::max);
    assert_eq!(found[0]["step"], 0, "what it began with is scored first");
    assert!(best > scores[0], "{scores:?}");
    let rewards: Vec<f64> = found.iter().filter_map(|line| line["reward"].as_f64()).collect();
    let mean = |rewards: &[f64]| rewards.iter().sum::<f64>() / rewards.len() as f64;
    assert!(mean(&rewards[6..]) > mean(&rewards[..3]), "{rewards:?}");
    assert!(found.iter().filter(|line| line["loss"].is_f64()).all(|line| line["baseline"].is_f64()));

    place.icecap("evaluate rewards --split test --json").good();
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
    refused("--init base --set decoder.hidden=20", "its `decoder.hidden` is `48`, and the recipe's is `20`");
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
}
