//! The whole way, with the built program: encode, be killed, resume, train, evaluate, caption.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use crate::support::{Place, files, shared};

#[test]
fn from_pictures_to_captions() {
    let place = Place::with_recipe();
    let report = place.icecap("encode recipe.toml --data . --cache cache --json").good().json();
    assert_eq!(report["rows"], 144);
    assert_eq!(report["encoded"], 144);
    assert_eq!(report["columns"][0]["shape"], serde_json::json!([16, 8]));
    assert_eq!(report["columns"][1]["dtype"], "f32");

    let again = place.icecap("encode recipe.toml --data . --cache cache").good();
    assert!(again.err.contains("all 144 rows were encoded before"), "{}", again.err);

    let listed = place.icecap("cache list cache --json").good().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    place.icecap("cache verify cache").good();

    place
        .icecap("train recipe.toml --data . --cache cache --run run --set train.steps=600 --set train.validate_every=5")
        .good();
    let scores = place.icecap("evaluate run --split test --beam 3 --no-java -o results.json --json").good().json();
    assert_eq!(scores["images"], 12);
    assert!(scores["bleu"][0].as_f64().is_some_and(|bleu| bleu > 0.2), "{scores}");
    let results: Vec<serde_json::Value> = serde_json::from_str(&place.read("results.json")).expect("results");
    assert_eq!(results.len(), 12);
    assert_eq!(results[0]["image_id"], "test-000000");

    // Each image's scores stay in the run, and are all that the whole's are made of.
    let kept: serde_json::Value = serde_json::from_str(&place.read("run/scores/test.json")).expect("per-image scores");
    let images = kept["images"].as_array().expect("images");
    assert_eq!((images.len(), &images[0]["caption"]), (12, &results[0]["caption"]));
    let mean = images.iter().filter_map(|image| image["cider"].as_f64()).sum::<f64>() / 12.0;
    assert!(scores["cider"].as_f64().is_some_and(|cider| (cider - mean).abs() < 1e-12), "{scores}");
    assert_eq!((&kept["summary"], &kept["made"]["search"]["beam"]), (&scores, &3.into()));
    assert!(scores["seen_in_training"].as_f64().is_some_and(|share| (0.0..=1.0).contains(&share)), "{scores}");

    // The same scores from the files alone.
    let rows = place.read("cache/rows.jsonl");
    let annotations: Vec<serde_json::Value> = rows
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a row"))
        .filter(|row| row["split"] == "test")
        .flat_map(|row| {
            let captions = row["captions"].as_array().expect("captions").clone();
            captions.into_iter().map(move |caption| serde_json::json!({"image_id": row["id"], "caption": caption}))
        })
        .collect();
    place.write("truth.json", serde_json::json!({ "annotations": annotations }).to_string());
    let alone = place.icecap("evaluate results.json --annotations truth.json --no-java --json").good().json();
    assert_eq!(alone["cider"], scores["cider"]);

    // A picture of its own, from a file: what the cache says of the same scene must be said again.
    let picture = icecap::dataset::shapes::Scene { seed: 0, index: 2 << 32, side: 64 }.png();
    place.write("picture.png", picture);
    let captioned = place.icecap("caption run picture.png --beam 3 --json").good().json();
    assert_eq!(captioned[0]["caption"], results[0]["caption"]);

    place.icecap("cache drop cache whole").good();
    assert_eq!(place.icecap("cache list cache --json").good().json().as_array().map(Vec::len), Some(1));
}

/// Kills the program again and again while it encodes; what is there in the end is what one run alone would have written.
#[test]
fn a_killed_encode_resumes_to_the_same_bytes() {
    let place = Place::with_recipe();
    let line = "encode recipe.toml --data . --set dataset.train=1500";
    place.icecap(&format!("{line} --cache whole --threads 1")).good();
    let begun = Instant::now();
    for wait in [30_u64, 60, 90, 120, 150, 60, 45, 75] {
        let mut command = place.command(&format!("{line} --cache killed --threads 2"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("icecap runs");
        // The time from the start of the encoding proper, which takes a while to begin.
        let journal = |place: &Place| {
            let columns = place.path("killed/columns");
            std::fs::read_dir(columns).is_ok_and(|mut folders| folders.next().is_some())
        };
        while !journal(&place) && begun.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().expect("SIGKILL");
        child.wait().expect("an end");
    }
    place.icecap(&format!("{line} --cache killed --threads 2")).good();
    place.icecap("cache verify killed").good();
    let shards = |cache: &str| {
        let mut found = files(&place.path(&format!("{cache}/columns")));
        found.retain(|(name, _)| name.ends_with(".safetensors") || name.ends_with("missing.jsonl"));
        found
    };
    let (whole, killed) = (shards("whole"), shards("killed"));
    assert!(!whole.is_empty());
    for ((name, bytes), (other, others)) in whole.iter().zip(&killed) {
        assert_eq!(name, other);
        assert!(bytes == others, "{name} differs");
    }
    assert_eq!(whole.len(), killed.len());
}

#[test]
fn a_killed_training_resumes_to_the_same_weights() {
    let place = Place::with_recipe();
    place.icecap("encode recipe.toml --data . --cache cache").good();
    let line = "train recipe.toml --data . --cache cache --set train.steps=60 --set train.validate_every=0.1";
    place.icecap(&format!("{line} --run whole")).good();

    let mut child = place.command(&format!("{line} --run killed"));
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("icecap runs");
    let begun = Instant::now();
    while !place.path("killed/checkpoints/last/model.safetensors").exists()
        && begun.elapsed() < Duration::from_secs(120)
    {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("an end");
    place.icecap(&format!("{line} --run killed --resume")).good();
    for name in ["model.safetensors", "optimizer.safetensors"] {
        let bytes =
            |run: &str| std::fs::read(place.path(&format!("{run}/checkpoints/last/{name}"))).expect("a checkpoint");
        assert!(bytes("whole") == bytes("killed"), "{name} differs");
    }
    let last = place.path("killed/checkpoints/last/model.safetensors");
    let weights = std::fs::read(&last).expect("a checkpoint");
    std::fs::write(&last, "cut short").expect("a damaged checkpoint");
    let refused = place.icecap(&format!("{line} --run killed --resume")).bad();
    assert!(refused.contains("last/model.safetensors`") && refused.contains("`--resume=best`"), "{refused}");
    // Each checkpoint is named as the other's way out, as long as it is one.
    let best = place.path("killed/checkpoints/best/optimizer.safetensors");
    let moments = std::fs::read(&best).expect("a checkpoint");
    std::fs::write(&best, "cut short").expect("a damaged checkpoint");
    for resume in ["--resume", "--resume=best"] {
        let refused = place.icecap(&format!("{line} --run killed {resume}")).bad();
        assert!(refused.contains("the run has no other checkpoint"), "{refused}");
    }
    std::fs::write(&last, &weights).expect("the checkpoint again");
    let refused = place.icecap(&format!("{line} --run killed --resume=best")).bad();
    assert!(refused.contains("`--resume` goes on from the last checkpoint, step "), "{refused}");
    std::fs::write(&best, moments).expect("the checkpoint again");
    std::fs::write(&last, "cut short").expect("a damaged checkpoint");
    let said = place.icecap(&format!("{line} --run killed --resume=best")).good().err;
    assert!(said.contains("goes on from the best checkpoint") && said.contains("last.left"), "{said}");
    assert!(std::fs::read(place.path("whole/checkpoints/last/model.safetensors")).ok() == std::fs::read(&last).ok());
    let refused = place.icecap(&format!("{line} --run killed")).bad();
    assert!(refused.contains("holds a run already"), "{refused}");
    let refused = place.icecap(&format!("{line} --run killed --resume --set train.seed=9")).bad();
    assert!(refused.contains("seed = 9"), "{refused}");
}

/// New and changed pictures are encoded, and only they.
#[test]
fn only_new_and_changed_pictures_are_encoded_again() {
    let place = Place::with_recipe();
    let scene = |index| icecap::dataset::shapes::Scene { seed: 5, index, side: 64 }.png();
    for index in 0..20 {
        place.write(&format!("pictures/{index:02}.png"), scene(index));
    }
    let recipe = place.read("recipe.toml");
    let columns = &recipe[recipe.find("[encoder]").expect("an encoder")..];
    place.write("folder.toml", format!("[dataset]\nformat = \"folder\"\nimages = \"pictures\"\n\n{columns}"));
    let encode = || place.icecap("encode folder.toml --data . --cache cache --json").good().json()["encoded"].clone();
    assert_eq!(encode(), 20);
    assert_eq!(encode(), 0);
    place.write("pictures/03.png", scene(100));
    place.write("pictures/90.png", scene(101));
    assert_eq!(encode(), 2);
    assert_eq!(encode(), 0);
    place.icecap("cache verify cache").good();

    // The cache of all 21 at once holds the same rows, in another order of pictures.
    place.icecap("encode folder.toml --data . --cache fresh").good();
    let rows = |cache: &str| {
        let cache = icecap_cache::Cache::open(place.path(cache)).expect("a cache");
        let column = cache.column("whole").expect("a column");
        let mut rows: Vec<(String, Vec<u8>)> = (0..cache.rows().len())
            .map(|row| (cache.rows().id(row), column.row(row).expect("a row").to_vec()))
            .collect();
        rows.sort();
        rows
    };
    assert_eq!(rows("cache"), rows("fresh"));
}

/// Real photographs through a real encoder, and a real shard read by Python.
#[test]
fn python_opens_a_shard_of_real_photographs() {
    let (Some(pictures), Some(model)) = (shared("coco_mini/train2017"), shared("encoders/mobilenet_v2.onnx")) else {
        return;
    };
    let place = Place::new();
    place.write(
        "recipe.toml",
        format!(
            "[dataset]\nformat = \"folder\"\nimages = {pictures:?}\n[encoder]\nmodel = {model:?}\nresize = 224\ncrop = 224\n\
             mean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n[[column]]\nname = \"avgpool\"\ntap = \"features\"\n"
        ),
    );
    let report = place.icecap("encode recipe.toml --data . --cache cache --json").good().json();
    assert_eq!(report["rows"], 80);
    let python = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let code = "import glob\nfrom safetensors import safe_open\n\
                rows = safe_open(glob.glob('cache/columns/avgpool-*/*.safetensors')[0], 'np').get_tensor('embedding')\n\
                print(rows.shape, rows.dtype, bool((rows != 0).any(axis=1).all()))";
    let output =
        std::process::Command::new(python).args(["-c", code]).current_dir(place.path(".")).output().expect("Python");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "(80, 1280) float16 True", "{output:?}");
}

/// Pictures that came after a column was finished are left out, with a line; a picture that went away keeps its embedding.
#[test]
fn a_data_set_that_grows_and_shrinks_is_trained_on_as_far_as_it_is_encoded() {
    let place = Place::with_recipe();
    let scene = |index| icecap::dataset::shapes::Scene { seed: 5, index, side: 64 }.png();
    let list = |names: &[String]| -> String {
        let line = |name: &String| {
            let split = if name < &"pictures/04".to_owned() { "val" } else { "train" };
            format!("{{\"file_name\": \"{name}\", \"text\": \"a picture\", \"split\": \"{split}\"}}\n")
        };
        names.iter().map(line).collect()
    };
    let names: Vec<String> = (0..20).map(|index| format!("pictures/{index:02}.png")).collect();
    for (index, name) in names.iter().enumerate() {
        place.write(name, scene(index as u64));
    }
    place.write("list.jsonl", list(&names[..16]));
    let recipe = place.read("recipe.toml");
    let columns = &recipe[recipe.find("[encoder]").expect("an encoder")..];
    let dataset = "[dataset]\nformat = \"folder\"\nimages = \".\"\nmetadata = \"list.jsonl\"\n\n";
    place.write("folder.toml", format!("{dataset}{columns}"));
    place.icecap("encode folder.toml --data . --cache cache").good();

    // Another recipe over the same cache brings four rows that the column doesn't have.
    place.write("list.jsonl", list(&names));
    place
        .icecap("encode folder.toml --data . --cache cache --set column.0.name=other --set decoder.columns=['other']")
        .good();
    let line = "train folder.toml --data . --cache cache --set train.steps=4 --set train.validate_every=1";
    let trained = place.icecap(&format!("{line} --run run")).good();
    assert!(trained.err.contains("4 of 16 images of the split `train` are not in the columns yet"), "{}", trained.err);
    place.icecap("evaluate run").good();

    // A picture that goes away is told, and changes nothing else.
    std::fs::remove_file(place.path("pictures/07.png")).expect("a picture");
    let report = place.icecap("encode folder.toml --data . --cache cache --json").good().json();
    assert_eq!(report["encoded"], 4, "{report}");
    assert_eq!(report["columns"][0]["missing"], serde_json::json!({}), "{report}");
    place.icecap("cache verify cache").good();

    // The run was begun on fewer captions than there are now.
    let changed = place.icecap(&format!("{line} --run run --resume")).bad();
    assert!(changed.contains("was trained with `captions` = `12`, not `16`"), "{changed}");
}

/// Splits that a column lacks, and captions of nothing, are named; and so is what of a run's data is another when it goes on.
#[test]
fn what_of_the_data_does_not_do_is_named() {
    let place = Place::with_recipe();
    let recipe = place.read("recipe.toml");
    let columns = &recipe[recipe.find("[encoder]").expect("an encoder")..];
    let dataset = "[dataset]\nformat = \"folder\"\nimages = \".\"\nmetadata = \"list.jsonl\"\n\n";
    place.write("folder.toml", format!("{dataset}{columns}"));
    let list = |count: usize, text: &str| -> String {
        let line = |at: usize| {
            let split = if at < 8 { "train" } else { "val" };
            format!("{{\"file_name\": \"pictures/{at:02}.png\", \"text\": \"{text}\", \"split\": \"{split}\"}}\n")
        };
        (0..count).map(line).collect()
    };
    for at in 0..12 {
        let scene = icecap::dataset::shapes::Scene { seed: 5, index: at, side: 64 };
        place.write(&format!("pictures/{at:02}.png"), scene.png());
    }
    let encode = |cache: &str, sets: &str| {
        place.icecap(&format!("encode folder.toml --data . --cache {cache} {sets}")).good();
    };
    let train = |cache: &str, run: &str, sets: &str| {
        format!("train folder.toml --data . --cache {cache} --run {run} --set train.steps=2 {sets}")
    };
    place.write("list.jsonl", list(8, "a picture"));
    encode("later", "");
    place.write("list.jsonl", list(12, "a picture"));
    encode("later", "--set column.0.name=other --set decoder.columns=['other']");
    let said = place.icecap(&train("later", "none", "")).bad();
    assert!(said.contains("column `grid` holds none of the 4 captioned images of the split `val`"), "{said}");
    assert!(said.contains("hint: they came after it was encoded"), "{said}");

    encode("cache", "");
    place.icecap(&train("cache", "run", "")).good();
    // Another word for one of the tokens: the same captions come out as other numbers.
    let tokenizer = place.read("run/tokenizer.json");
    place.write("run/tokenizer.json", tokenizer.replace("\"picture\"", "\"photograph\""));
    let said = place.icecap(&train("cache", "run", "--resume")).bad();
    assert!(said.contains("was trained with another tokenizer") && said.contains("last/tokenizer.json`"), "{said}");
    place.write("run/tokenizer.json", tokenizer);
    place.icecap(&train("cache", "run", "--resume")).good();

    place.write("list.jsonl", list(12, "?!"));
    encode("empty", "");
    let words = r#"{"version": "1.0", "added_tokens": [],
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[^a-z]+"}, "behavior": "Removed", "invert": false},
        "model": {"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<pad>": 0, "<bos>": 1, "<eos>": 2, "<unk>": 3, "a": 4}}}"#;
    place.write("words.json", words);
    let file = "--set tokenizer.kind=file --set tokenizer.file=words.json";
    place.write("folder.toml", place.read("folder.toml").replace("min_count = 1\n", ""));
    let said = place.icecap(&train("empty", "empty-run", file)).bad();
    assert!(said.contains("none of the 8 training captions has a word"), "{said}");
    assert!(said.contains("captions, and at the recipe's [tokenizer]: nothing"), "{said}");
}

#[test]
fn one_process_trains_a_run() {
    let place = Place::with_recipe();
    place.icecap("encode recipe.toml --data . --cache cache").good();
    std::fs::create_dir(place.path("run")).expect("a folder");
    let held = std::fs::File::create(place.path("run/lock")).expect("a lock");
    held.lock().expect("the lock");
    let line = "train recipe.toml --data . --cache cache --run run --set train.steps=2";
    insta::assert_snapshot!(place.icecap(line).bad(), @r"
    error: the run `run` is being trained by another process
    hint: wait for it to end, or train into another folder
    ");
    drop(held);
    place.icecap(line).good();
}
