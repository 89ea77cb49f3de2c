//! What the program says when something is wrong: each message as a user sees it.

use crate::support::{Place, fixture};

#[test]
fn help_and_usage() {
    let place = Place::new();
    assert!(place.icecap("--help").good().out.contains("encode"));
    for command in [
        "demo",
        "export",
        "inspect",
        "plan",
        "encode",
        "cache list",
        "cache verify",
        "cache missing",
        "cache drop",
        "cache merge",
        "cache import",
        "cache export",
        "drift",
        "train",
        "sweep",
        "caption",
        "evaluate",
        "export-run",
    ] {
        let help = place.icecap(&format!("{command} --help")).good().out;
        assert!(help.contains("Example:"), "{command} has no example:\n{help}");
    }
    assert_eq!(place.icecap("encode").code, Some(2));
    assert_eq!(place.icecap("frobnicate").code, Some(2));
    assert_eq!(place.icecap("encode recipe.toml --cache cache --max-missing 200%").code, Some(2));
}

#[test]
fn a_recipe_that_is_not_there() {
    insta::assert_snapshot!(Place::new().icecap("encode nowhere.toml --cache cache").bad(), @r#"
    error: the recipe `nowhere.toml` can't be read
      cause: No such file or directory (os error 2)
    hint: check the path; the recipes that come with icecap are in pipelines/
    "#);
}

#[test]
fn a_tap_that_does_not_exist() {
    let place = Place::with_recipe();
    insta::assert_snapshot!(place.icecap("encode recipe.toml --data . --cache cache --set column.0.tap=c22").bad(), @r#"
    error: `./tiny.onnx` has no tensor `c22`; nearest: `c2`, `c1`
    hint: `icecap inspect ./tiny.onnx` lists what can be tapped
    "#);
}

#[test]
fn a_model_that_does_not_say_how_pictures_are_prepared() {
    let place = Place::with_recipe();
    std::fs::copy(fixture("encoder/fixed_batch.onnx"), place.path("bare.onnx")).expect("a model");
    insta::assert_snapshot!(place.icecap("encode recipe.toml --data . --cache cache --set encoder.model=bare.onnx").bad(), @r#"
    error: `./bare.onnx` doesn't say how its pictures are prepared, and the recipe's [encoder] lacks mean, std
    hint: give them as the encoder was trained: resize (the shorter side, or [height, width]), mean and std, for example mean = [0.485, 0.456, 0.406]
    "#);
}

#[test]
fn a_column_of_another_key() {
    let place = Place::with_recipe();
    place.icecap("encode recipe.toml --data . --cache cache").good();
    let refused = place.icecap("encode recipe.toml --data . --cache cache --set column.0.pool=2x2").bad();
    assert!(refused.contains("`encoder.pool`") && refused.contains("2x2") && refused.contains("4x4"), "{refused}");
    assert!(refused.contains("--overwrite"), "{refused}");
    place.icecap("encode recipe.toml --data . --cache cache --set column.0.pool=2x2 --overwrite").good();
}

#[test]
fn bad_pictures_are_missing_rows_with_their_reasons() {
    let place = Place::with_recipe();
    let good = icecap::dataset::shapes::Scene { seed: 1, index: 0, side: 64 }.png();
    for index in 0..4 {
        place.write(&format!("pictures/good{index}.png"), &good);
    }
    place.write("pictures/empty.jpg", "");
    place.write("pictures/text.jpg", "this is not a picture");
    place.write("pictures/cut.png", &good[..good.len() / 2]);
    let recipe = place.read("recipe.toml");
    let columns = &recipe[recipe.find("[encoder]").expect("an encoder")..];
    place.write("folder.toml", format!("[dataset]\nformat = \"folder\"\nimages = \"pictures\"\n\n{columns}"));
    insta::assert_snapshot!(place.icecap("encode folder.toml --data . --cache cache").bad(), @"
    7 rows: 7 new
    error: 3 of 7 pictures of column `grid` are missing (1 empty, 1 not-an-image, 1 truncated), more than the 5% that --max-missing allows
      pictures/cut.png: truncated (the PNG is truncated: its data ends after `999` bytes, before the picture is complete)
      pictures/empty.jpg: empty (the file is empty (`0` bytes))
      pictures/text.jpg: not-an-image (not an image: it begins with `this is not a pi`)
    hint: nothing is lost: put the pictures in place and run the same command with --retry-missing, or allow more, for example --max-missing 43%
    ");
    // Nothing was lost: with leave to miss so many, the column is finished without encoding anything again.
    let report = place.icecap("encode folder.toml --data . --cache cache --max-missing 50% --json").good().json();
    assert_eq!(report["encoded"], 0);
    assert_eq!(report["columns"][0]["missing"], serde_json::json!({"empty": 1, "not-an-image": 1, "truncated": 1}));
    // A picture put in place is encoded on request.
    place.write("pictures/empty.jpg", &good);
    let line = "encode folder.toml --data . --cache cache --max-missing 50% --retry-missing --json";
    let report = place.icecap(line).good().json();
    assert_eq!(report["columns"][0]["missing"], serde_json::json!({"not-an-image": 1, "truncated": 1}));
}

#[test]
fn folders_that_are_no_cache_and_no_run() {
    let place = Place::with_recipe();
    place.write("other/file.txt", "something else");
    insta::assert_snapshot!(place.icecap("train recipe.toml --data . --cache other --run run").bad(), @r#"
    error: `other` is not a cache: it has no `cache.json`
    hint: `icecap encode RECIPE --cache other` makes one
    "#);
    insta::assert_snapshot!(place.icecap("encode recipe.toml --data . --cache other").bad(), @r#"
    error: cannot make a cache in `other`: the folder holds `file.txt`
    hint: name a folder that is empty or does not exist yet
    "#);
    insta::assert_snapshot!(place.icecap("caption other picture.png").bad(), @r#"
    error: `other` is not a run: it has no `run.json`
    hint: give the folder that `icecap train --run` wrote
    "#);
    insta::assert_snapshot!(place.icecap("cache list other").bad(), @r#"
    error: `other` is not a cache: it has no `cache.json`
    hint: `icecap encode RECIPE --cache other` makes one
    "#);
}

#[test]
fn a_flipped_bit_is_found() {
    let place = Place::with_recipe();
    place.icecap("encode recipe.toml --data . --cache cache").good();
    let (name, mut bytes) = crate::support::files(&place.path("cache/columns"))
        .into_iter()
        .find(|(name, _)| name.starts_with("whole") && name.ends_with(".safetensors"))
        .expect("a shard");
    let at = bytes.len() - 2000;
    bytes[at] ^= 1;
    place.write(&format!("cache/columns/{name}"), bytes);
    let ended = place.icecap("cache verify cache");
    assert_eq!(ended.code, Some(1));
    assert!(ended.out.contains("grid: sound"), "{}", ended.out);
    assert!(ended.out.contains("whole: DAMAGED"), "{}", ended.out);
    assert!(ended.out.contains("00000.safetensors"), "{}", ended.out);
}

#[test]
fn a_damaged_manifest_is_damage_and_hides_no_other() {
    let place = Place::with_recipe();
    place.icecap("encode recipe.toml --data . --cache cache").good();
    let columns = crate::support::files(&place.path("cache/columns"));
    let manifest = |column: &str| {
        let is_its = |name: &str| name.starts_with(column) && name.ends_with("column.json");
        columns.iter().find(|(name, _)| is_its(name)).cloned().expect("a manifest")
    };
    let (name, bytes) = manifest("grid");
    let text = String::from_utf8(bytes).expect("text");
    for damaged in [text[..text.len() / 2].to_owned(), text.replace("\"device\": \"cpu\"", "\"device\": \"gpu\"")] {
        assert_ne!(damaged, text);
        place.write(&format!("cache/columns/{name}"), damaged);
        let ended = place.icecap("cache verify cache");
        assert_eq!(ended.code, Some(1), "{}", ended.out);
        assert!(ended.out.contains("grid: DAMAGED") && ended.out.contains("column.json"), "{}", ended.out);
        assert!(ended.out.contains("whole: sound"), "{}", ended.out);
        assert!(ended.err.contains("1 of 2 columns are damaged"), "{}", ended.err);
        let found = place.icecap("cache verify cache grid --json");
        assert_eq!((found.code, &found.json()[0]["sound"]), (Some(1), &serde_json::json!(false)));
    }
    place.icecap("encode recipe.toml --data . --cache cache --overwrite").good();
    place.icecap("cache verify cache").good();
}

#[test]
fn a_refused_encode_leaves_no_column_behind() {
    let place = Place::with_recipe();
    let line = |name: &str| {
        format!(
            "encode recipe.toml --data . --cache cache --set column.0.name={name} --set decoder.columns=[\"{name}\"]"
        )
    };
    place.icecap(&line("first")).good();
    let refused = place.icecap(&format!("{} --set column.1.dtype=f16", line("second"))).bad();
    assert!(refused.contains("`whole`"), "{refused}");
    let listed = place.icecap("cache list cache --json").good().json();
    let names: Vec<&str> =
        listed.as_array().expect("a list").iter().filter_map(|column| column["name"].as_str()).collect();
    assert_eq!(names, ["first", "whole"]);
}

#[test]
fn pictures_gone_from_the_data_set_are_not_missing() {
    let place = Place::with_recipe();
    for index in 0..4 {
        let scene = icecap::dataset::shapes::Scene { seed: 1, index, side: 64 };
        place.write(&format!("pictures/{index}.png"), scene.png());
    }
    let recipe = place.read("recipe.toml");
    let columns = &recipe[recipe.find("[encoder]").expect("an encoder")..];
    place.write("folder.toml", format!("[dataset]\nformat = \"folder\"\nimages = \"pictures\"\n\n{columns}"));
    let encode =
        |more: &str| place.icecap(&format!("encode folder.toml --data . --cache cache --json {more}")).good().json();
    encode("");
    std::fs::rename(place.path("pictures/2.png"), place.path("2.png")).expect("it moves");
    encode("--set column.1.name=later --max-missing 0%");
    std::fs::rename(place.path("2.png"), place.path("pictures/2.png")).expect("it is back");
    let report = encode("--set column.1.name=later --max-missing 0%");
    assert_eq!((&report["encoded"], &report["columns"][1]["missing"]), (&1.into(), &serde_json::json!({})));
}

#[test]
fn results_that_do_not_fit_their_annotations() {
    let place = Place::new();
    place.write("truth.json", r#"{"annotations": [{"image_id": 1, "caption": "a dog runs"}]}"#);
    place.write("twice.json", r#"[{"image_id": 1, "caption": "a dog"}, {"image_id": 1, "caption": "a cat"}]"#);
    place.write("other.json", r#"[{"image_id": 7, "caption": "a dog"}]"#);
    place.write("broken.json", "[{");
    insta::assert_snapshot!(place.icecap("evaluate twice.json --annotations truth.json").bad(), @r#"
    error: `twice.json` has more than one caption for image 1
    hint: a results file holds one caption an image
    "#);
    insta::assert_snapshot!(place.icecap("evaluate other.json --annotations truth.json").bad(), @r#"
    error: `other.json` captions 1 image that `truth.json` doesn't have: 7
    hint: give the annotations of the same split
    "#);
    insta::assert_snapshot!(place.icecap("evaluate broken.json --annotations truth.json").bad(), @r#"
    error: `broken.json` is not a results file: [{"image_id": .., "caption": ..}, ..]
      cause: EOF while parsing an object at line 1 column 2
    "#);
    insta::assert_snapshot!(place.icecap("evaluate other.json").bad(), @r#"
    error: `other.json` is a results file, and there is nothing to compare it with
    hint: give the references by --annotations captions.json
    "#);
}

#[test]
fn onnxruntime_that_is_not_where_it_was_said_to_be() {
    let place = Place::with_recipe();
    insta::assert_snapshot!(place.icecap("--onnxruntime nowhere.so encode recipe.toml --data . --cache cache").bad(), @r#"
    error: ONNX Runtime was not found; looked at
      `nowhere.so` (named, but there is no such file)
    hint: run `make setup`, or name the library with --onnxruntime FILE or ORT_DYLIB_PATH
    "#);
}

#[test]
fn cuda_that_is_not_there_is_said_plainly() {
    if std::path::Path::new("/proc/driver/nvidia/version").exists() {
        eprintln!("skipped: there is a GPU");
        return;
    }
    let place = Place::with_recipe();
    let ended = place.icecap("encode recipe.toml --data . --cache cache --device cuda").good();
    assert!(ended.err.contains("`cuda:0` was asked for"), "{}", ended.err);
    let ended =
        place.icecap("train recipe.toml --data . --cache cache --run run --set train.steps=2 --device cuda").good();
    assert!(ended.err.contains("the decoder runs on the CPU"), "{}", ended.err);
}

#[test]
fn words_that_are_no_device_and_no_assignment_are_usage_errors() {
    let place = Place::with_recipe();
    for words in ["--device gpu", "--set foo", "--set =3"] {
        let ended = place.icecap(&format!("encode recipe.toml --data . --cache cache {words}"));
        assert_eq!(ended.code, Some(2), "{words}: {}", ended.err);
    }
}

#[test]
fn evaluating_nothing_and_options_without_a_use() {
    let place = Place::new();
    place.write("results.json", "[]");
    place.write("run/recipe.toml", "");
    insta::assert_snapshot!(place.icecap("evaluate nope").bad(), @"
    error: there is nothing at `nope`
    hint: give the folder of a run, or a results file with --annotations captions.json
    ");
    insta::assert_snapshot!(place.icecap("evaluate run --annotations truth.json").bad(), @"
    error: `--annotations` is for a results file, and `run` is a run: its references are in its cache
    hint: leave `--annotations` out
    ");
    insta::assert_snapshot!(place.icecap("evaluate results.json --annotations truth.json --beam 3").bad(), @"
    error: `--beam` is for a run, and `results.json` is a results file: its captions are there already
    hint: leave `--beam` out
    ");
    let split = place.icecap("evaluate results.json --annotations truth.json --split test").bad();
    assert!(split.contains("--split"), "{split}");
}

#[test]
fn a_slip_in_the_last_name_drops_nothing() {
    let place = Place::with_recipe();
    place.icecap("encode recipe.toml --data . --cache cache").good();
    insta::assert_snapshot!(place.icecap("cache drop cache whole nope").bad(), @"
    error: there is no column `nope` in `cache`
    hint: it has `grid-cc4b25ab`, `whole-60b0c8c2`
    ");
    let listed = place.icecap("cache list cache --json").good().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    assert_eq!(listed[0]["missing"], serde_json::json!({}));
    assert_eq!(listed[0]["missing_count"], 0);
    let nothing = place.icecap("encode recipe.toml --data . --cache cache --json").good().json();
    assert_eq!(nothing["bottleneck"], serde_json::Value::Null);
}

#[test]
fn a_model_that_is_neither_a_name_nor_a_file() {
    let place = Place::with_recipe();
    insta::assert_snapshot!(place.icecap("encode recipe.toml --data . --cache cache --set encoder.model=resnet19").bad(), @"
    error: `resnet19` is neither a known encoder nor a file: there is no `./resnet19`; nearest: `resnet18`, `resnet101`, `resnet34`
    hint: known are resnet18, resnet34, resnet50, resnet101, densenet121, inception_v3, fasterrcnn_resnet50_fpn; a path starts from the folder given by --data
    ");
}

/// A folder data set of 40 drawn pictures, the first four for validation; some of each split are spoilt.
fn spoilt() -> Place {
    let place = Place::with_recipe();
    let mut list = String::new();
    for index in 0..40 {
        let name = format!("pictures/{index:02}.png");
        let picture = icecap::dataset::shapes::Scene { seed: 5, index, side: 64 }.png();
        let bytes = if [0, 10, 20].contains(&index) { b"no picture".to_vec() } else { picture };
        place.write(&name, bytes);
        let split = if index < 4 { "val" } else { "train" };
        list += &format!("{{\"file_name\": \"{name}\", \"text\": \"a picture\", \"split\": \"{split}\"}}\n");
    }
    place.write("list.jsonl", list);
    let recipe = place.read("recipe.toml");
    let columns = &recipe[recipe.find("[encoder]").expect("an encoder")..];
    let dataset = "[dataset]\nformat = \"folder\"\nimages = \".\"\nmetadata = \"list.jsonl\"\n\n";
    place.write("folder.toml", format!("{dataset}{columns}"));
    place
}

#[test]
fn missing_pictures_are_named_and_trained_without() {
    let place = spoilt();
    let refused = place.icecap("encode folder.toml --data . --cache cache").bad();
    insta::assert_snapshot!(refused, @"
    40 rows: 40 new
    error: 3 of 40 pictures of column `grid` are missing (3 not-an-image), more than the 5% that --max-missing allows
      pictures/00.png: not-an-image (not an image: it begins with `no picture`)
      pictures/10.png: not-an-image (not an image: it begins with `no picture`)
      pictures/20.png: not-an-image (not an image: it begins with `no picture`)
    hint: nothing is lost: put the pictures in place and run the same command with --retry-missing, or allow more, for example --max-missing 8%
    ");
    // The column isn't finished yet, and its missing rows are known.
    let missing = place.icecap("cache missing cache grid --json").good().json();
    assert_eq!(missing.as_array().map(Vec::len), Some(3), "{missing}");
    assert_eq!(missing[1]["source"], "pictures/10.png");
    assert_eq!(missing[1]["reason"], "not-an-image");
    place.icecap("encode folder.toml --data . --cache cache --max-missing 10%").good();
    assert_eq!(place.icecap("cache missing cache --json").good().json().as_array().map(Vec::len), Some(6));
    insta::assert_snapshot!(place.icecap("cache missing cache whole").good().out, @"
    picture          column        reason                                     detail           source
    pictures/00.png   whole  not-an-image  not an image: it begins with `no picture`  pictures/00.png
    pictures/10.png   whole  not-an-image  not an image: it begins with `no picture`  pictures/10.png
    pictures/20.png   whole  not-an-image  not an image: it begins with `no picture`  pictures/20.png
    ");
    assert!(place.icecap("cache missing cache nope").bad().contains("nope"));

    let line = "train folder.toml --data . --cache cache --set train.steps=2 --set train.validate_every=1 --run run";
    let said = place.icecap(line).good().err;
    assert!(said.contains("2 of 36 images of the split `train` have no embedding and are left out"), "{said}");
    assert!(said.contains("1 of 4 images of the split `val` have no embedding and are left out"), "{said}");
    assert!(said.contains("34 captions of 34 images"), "{said}");

    // One bad picture keeps no other from its caption.
    place.write("bad.jpg", "no picture");
    let ended = place.icecap("caption run bad.jpg pictures/01.png nowhere.png");
    assert_eq!(ended.code, Some(1));
    assert!(ended.out.starts_with("pictures/01.png\t") && ended.out.lines().count() == 1, "{}", ended.out);
    insta::assert_snapshot!(ended.err, @"
    `bad.jpg` can't be captioned: not an image: it begins with `no picture`
    `nowhere.png` can't be captioned: No such file or directory (os error 2)
    error: 2 of 3 pictures could not be captioned
    ");
    let ended = place.icecap("caption run bad.jpg pictures/01.png --json");
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.json()[0]["image"], "bad.jpg");
    assert!(ended.json()[0]["error"].is_string() && ended.json()[1]["caption"].is_string(), "{}", ended.out);
}

#[test]
fn an_encode_that_goes_on_says_how_far_it_was() {
    let place = Place::with_recipe();
    place.icecap("encode recipe.toml --data . --cache cache --set dataset.train=100").good();
    let said = place.icecap("encode recipe.toml --data . --cache cache").good().err;
    assert!(said.contains("124 of 144 rows were encoded before; going on with the other 20"), "{said}");
}

#[test]
fn several_gpus_are_named_at_once_and_each_missing_one_is_said() {
    let place = Place::with_recipe();
    let twice = place.icecap("encode recipe.toml --data . --cache cache --device cuda:0,0");
    assert_eq!((twice.code, twice.err.contains("`cuda:0,0` names GPU 0 twice")), (Some(2), true), "{}", twice.err);
    let unknown = place.icecap("encode recipe.toml --data . --cache cache --device gpu:0,1");
    assert_eq!(
        (unknown.code, unknown.err.contains("several GPUs, such as cuda:0,1")),
        (Some(2), true),
        "{}",
        unknown.err
    );
    let ended = place.icecap("encode recipe.toml --data . --cache cache --device cuda:98,99").good();
    assert!(ended.err.contains("`cuda:98` was asked for"), "{}", ended.err);
    assert!(ended.err.contains("`cuda:99` was asked for"), "{}", ended.err);
    assert!(ended.err.contains(": encoding on the CPU"), "{}", ended.err);
}

#[test]
fn f16_and_fast_decoding_are_other_columns() {
    let place = Place::with_recipe();
    place.icecap("encode recipe.toml --data . --cache cache").good();
    for (set, field) in [("encoder.precision=f16", "`encoder.precision`"), ("encoder.decode=fast", "`image.decode`")] {
        let refused = place.icecap(&format!("encode recipe.toml --data . --cache cache --set {set}")).bad();
        assert!(refused.contains(field) && refused.contains("--overwrite"), "{refused}");
        let again =
            place.icecap(&format!("encode recipe.toml --data . --cache {field}-cache --set {set}").replace('`', ""));
        assert_eq!(again.code, Some(0), "{}", again.err);
        let note = again.err.contains("precision = \"f16\" is for GPUs");
        assert_eq!(note, set.contains("precision"), "{}", again.err);
    }
    let unknown = place.icecap("encode recipe.toml --data . --cache cache --set encoder.precision=f8").bad();
    assert!(unknown.contains("f32") && unknown.contains("f16"), "{unknown}");
}

#[test]
fn another_data_set_in_a_cache_is_refused() {
    let place = Place::with_recipe();
    place.icecap("encode recipe.toml --data . --cache cache").good();
    place.write("photos/a.png", icecap::dataset::shapes::Scene { seed: 1, index: 0, side: 64 }.png());
    let recipe = place.read("recipe.toml");
    let columns = &recipe[recipe.find("[encoder]").expect("an encoder")..];
    place.write("folder.toml", format!("[dataset]\nformat = \"folder\"\nimages = \"photos\"\n\n{columns}"));
    let before = place.read("cache/rows.jsonl");
    insta::assert_snapshot!(place.icecap("encode folder.toml --data . --cache cache").bad(), @r"
    error: the cache `cache` holds `shapes`, and `photos` has 0 of its 144 images
    hint: give `photos` a cache of its own
    ");
    assert_eq!(place.read("cache/rows.jsonl"), before);
}

#[test]
fn training_on_a_column_of_another_recipe_is_refused() {
    let place = Place::with_recipe();
    place.icecap("encode recipe.toml --data . --cache cache").good();
    let line = "train recipe.toml --data . --cache cache --run run --set train.steps=1";
    insta::assert_snapshot!(place.icecap(&format!("{line} --set column.0.pool=2x2 --set encoder.resize=48")).bad(), @r#"
    error: column `grid` was not encoded by this recipe: it was made with `resize = 32`, `pool = "4x4"`, and the recipe has `resize = 48`, `pool = "2x2"`
    hint: encode it anew with `icecap encode --overwrite`, or give the recipe and the --set values that it was encoded with
    "#);
    place.icecap(&format!("{line} --set encoder.batch=4")).good();
}
