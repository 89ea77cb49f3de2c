//! A GPT-2 from a Hugging Face folder, with the built program: trained, resumed, heard, exported; and folders that do not fit.

use crate::support::{Place, fixture};

const TOKENIZER: &str = r#"{"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": {"type": "WordLevel",
"unk_token": "<unk>", "vocab": {"<pad>": 0, "<bos>": 1, "<eos>": 2, "<unk>": 3, "a": 4, "circle": 5, "square": 6, "red": 7, "blue": 8,
"green": 9, "the": 10}}}"#;

const DECODER: &str = r#"
[decoder]
kind = "gpt2"
columns = ["whole"]
pretrained = "gpt2"
freeze = "lm"
lora = 1

[train]
steps = 6
batch = 20
max_tokens = 8
validate_every = 0.5
learning_rate = 1e-2
"#;

/// A place with a cache, a tiny pretrained GPT-2, and `gpt2.toml`.
fn place() -> Place {
    let place = Place::with_recipe();
    for name in ["config.json", "model.safetensors"] {
        place
            .write(&format!("gpt2/{name}"), std::fs::read(fixture(&format!("gpt2/prefix/{name}"))).expect("a fixture"));
    }
    place.write("gpt2/tokenizer.json", TOKENIZER);
    let recipe = place.read("recipe.toml");
    let begin = &recipe[..recipe.find("[decoder]").expect("a decoder")];
    place.write("gpt2.toml", format!("{begin}{DECODER}"));
    place.icecap("encode gpt2.toml --data . --cache cache").good();
    place
}

#[test]
fn pretrained_weights_are_trained_resumed_heard_and_exported() {
    let place = place();
    let line = "train gpt2.toml --data . --cache cache --run run";
    let trained = place.icecap(line).good();
    assert!(trained.err.contains("11 words, 92 parameters and 580 frozen"), "{}", trained.err);
    let held = |name: &str| place.path(&format!("run/checkpoints/best/{name}")).exists();
    assert!(["config.json", "generation_config.json", "tokenizer.json"].into_iter().all(held));

    // The run has all it needs: the folder may go.
    std::fs::remove_dir_all(place.path("gpt2")).expect("removed");
    place.icecap(&format!("{line} --resume")).good();
    let scores = place.icecap("evaluate run --split test --beam 2 --no-java --json").good().json();
    assert_eq!(scores["images"], 12);
    place.write("picture.png", icecap::dataset::shapes::Scene { seed: 0, index: 2 << 32, side: 64 }.png());
    let said = place.icecap("caption run picture.png --json").good().json();
    assert!(said[0]["caption"].as_str().is_some_and(|caption| !caption.is_empty()), "{said}");

    let said = place.icecap("caption run picture.png --attention looked").bad();
    assert!(said.contains("no attention to show") && said.contains("`mapping = \"cross-attention\"`"), "{said}");
    let sets = "--set decoder.mapping=cross-attention --set decoder.columns=[\"grid\"] --set decoder.pretrained=again";
    std::fs::create_dir(place.path("again")).expect("a folder");
    for name in ["config.json", "model.safetensors"] {
        let bytes = std::fs::read(fixture(&format!("gpt2/prefix/{name}"))).expect("a fixture");
        place.write(&format!("again/{name}"), bytes);
    }
    place.write("again/tokenizer.json", TOKENIZER);
    place.icecap(&format!("train gpt2.toml --data . --cache cache --run cross {sets}")).good();
    place.icecap("caption cross picture.png --attention looked").good();
    let looked: serde_json::Value = serde_json::from_str(&place.read("looked/picture.png.json")).expect("JSON");
    let looked = &looked["attention"];
    assert_eq!(looked["columns"][0]["name"], "grid");
    assert_eq!(looked["weights"].as_array().map(Vec::len), looked["tokens"].as_array().map(Vec::len));
    assert_eq!(looked["weights"][0].as_array().map(Vec::len), Some(16));
    // The page draws it too.
    place.icecap("compare cross -o report.html").good();
    assert!(place.read("report.html").contains("\"looks\":[{"));

    // What fails leaves nothing, and what was cut is written again.
    std::fs::create_dir(place.path("run/scales.safetensors")).expect("a folder where a file should be");
    let refused = place.icecap("export-run run -o out").bad();
    assert!(refused.contains("`out/.icecap-export` can't be written") && !place.path("out").exists(), "{refused}");
    std::fs::remove_dir(place.path("run/scales.safetensors")).expect("removed");
    place.write("out/.icecap-export/model.safetensors", "half");
    place.write("out/.icecap-export/scales.safetensors", "of another run");
    place.write("out/config.json", "moved already");
    place.write("out/notes.txt", "somebody's own");
    let refused = place.icecap("export-run run -o out").bad();
    assert!(refused.contains("the folder `out` is not empty"), "{refused}");
    assert_eq!(
        (place.read("out/notes.txt"), place.read("out/config.json")),
        ("somebody's own".into(), "moved already".into())
    );
    std::fs::remove_file(place.path("out/notes.txt")).expect("removed");
    std::fs::create_dir(place.path("out/tokenizer.json")).expect("a folder of a file's name");
    let refused = place.icecap("export-run run -o out").bad();
    assert!(refused.contains("the folder `out` is not empty") && place.read("out/config.json") == "moved already");
    std::fs::remove_dir(place.path("out/tokenizer.json")).expect("removed");
    let file = place.icecap("export-run run -o out/config.json").bad();
    assert!(file.contains("the folder `out/config.json` can't be read"), "{file}");
    place.icecap("export-run run -o out").good();
    let mut files: Vec<String> = crate::support::files(&place.path("out")).into_iter().map(|(name, _)| name).collect();
    files.sort();
    let expected = [
        "config.json",
        "generation_config.json",
        "icecap.safetensors",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(files, expected);
    let refused = place.icecap("export-run run -o out").bad();
    assert!(refused.contains("the folder `out` is not empty"), "{refused}");
    // What was exported is a folder to begin with.
    place.icecap("train gpt2.toml --data . --cache cache --run exported --set decoder.pretrained=out").good();
}

#[test]
fn folders_and_sizes_that_do_not_fit() {
    let place = place();
    // The messages themselves have their snapshots beside the errors.
    let refused = |sets: &str, why: &str| {
        let said = place.icecap(&format!("train gpt2.toml --data . --cache cache --run run {sets}")).bad();
        assert!(said.contains(why), "{said}");
    };
    refused("--set decoder.pretrained=elsewhere", "elsewhere/tokenizer.json");
    place.write("bare/tokenizer.json", TOKENIZER);
    refused("--set decoder.pretrained=bare", "bare/config.json");
    place.write("own/tokenizer.json", TOKENIZER.replace("\"the\": 10", "\"the\": 10, \"of\": 11"));
    refused("--set tokenizer.kind=file --set tokenizer.file=own/tokenizer.json", "the tokenizer has `12` tokens");
    refused("--set decoder.columns=[\"grid\"]", "the prefix takes `18` places, but the model has `10`");
    assert!(!place.path("run/run.json").exists(), "nothing was begun");

    refused("--set train.max_tokens=9", "has places for `8`");

    place.icecap("train recipe.toml --data . --cache cache --run lstm --set train.steps=1").good();
    let said = place.icecap("export-run lstm -o out").bad();
    assert!(said.contains("only a `gpt2` decoder can be exported"), "{said}");
    assert!(!place.path("out").exists());
}
