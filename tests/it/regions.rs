//! Columns of regions, with the built program: boxes from a file and from a detector, trained on and captioned with.

use icecap_cache::Cache;

use crate::support::{Place, fixture};

/// The recipe of the support module with a column of regions in the place of the grid.
fn recipe(place: &Place, column: &str) {
    std::fs::copy(fixture("detector/tiny.onnx"), place.path("detector.onnx")).expect("the tiny detector");
    let text = place.read("recipe.toml").replace("tap = \"c2\"\npool = \"4x4\"\n", column);
    place.write("regions.toml", text.replace("train = 120", "train = 30"));
}

const DETECTOR: &str =
    "\n[detector]\nkind = \"fasterrcnn\"\nmodel = \"detector.onnx\"\nsize = 128\nmax = 5\nscore = 0.45\n\n";

fn with_detector(place: &Place, column: &str) {
    recipe(place, column);
    place.write("regions.toml", place.read("regions.toml").replace("\n[decoder]", &format!("{DETECTOR}[decoder]")));
}

fn floats(bytes: Option<&[u8]>) -> Vec<f32> {
    let bytes = bytes.expect("a row that is there");
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().expect("four"))).collect()
}

#[test]
fn regions_from_a_file_lie_beside_their_vectors() {
    let place = Place::with_recipe();
    recipe(&place, "tap = \"c2\"\nregions = { file = \"boxes.jsonl\", max = 3 }\ndtype = \"f32\"\n");
    let line = |id: &str, boxes: &str| format!("{{\"id\": \"{id}\", \"boxes\": {boxes}}}\n");
    let lines = [line("train-000000", "[[0, 0, 64, 64], [8, 8, 40, 24]]"), line("train-000001", "[[1, 2, 3, 4]]")];
    place.write("boxes.jsonl", lines.concat());
    let ended = place.icecap("encode regions.toml --data . --cache cache").good();
    assert!(ended.err.contains("52 of 54 pictures have no boxes in `./boxes.jsonl`"), "{}", ended.err);

    let column = Cache::open(place.path("cache")).expect("a cache").column("grid").expect("a column");
    let of = |name: &str, row: u32| floats(column.row_of(column.tensor(name).expect("a tensor"), row));
    assert_eq!(column.row_shape(), [3, 8]);
    assert_eq!(of("boxes", 0), [0., 0., 64., 64., 8., 8., 40., 24., 0., 0., 0., 0.]);
    assert_eq!((of("count", 0), of("scores", 0), of("labels", 0)), (vec![2.0], vec![1., 1., 0.], vec![-1., -1., 0.]));
    let vectors = floats(column.row(0));
    assert!(vectors[..16].iter().any(|value| *value != 0.0) && vectors[16..].iter().all(|value| *value == 0.0));
    assert_eq!(
        (of("count", 5), of("boxes", 5)[..4].to_vec()),
        (vec![1.0], vec![0., 0., 64., 64.]),
        "the whole picture"
    );
    assert_eq!(floats(column.row(5))[8..], [0.0; 16]);

    place.icecap("cache verify cache").good();
    place.icecap("train regions.toml --data . --cache cache --run run --set train.steps=3").good();
    let picture = icecap::dataset::shapes::Scene { seed: 0, index: 2 << 32, side: 64 }.png();
    place.write("picture.png", picture);
    let refused = place.icecap("caption run picture.png").bad();
    assert!(refused.contains("was trained on regions from `boxes.jsonl`, and new pictures have none"), "{refused}");

    place.write("boxes.jsonl", line("train-000000", "[[0, 0, 64, 32]]"));
    let other = place.icecap("encode regions.toml --data . --cache cache").bad();
    assert!(other.contains("regions.file"), "{other}");
    place.write("boxes.jsonl", line("another", "[[0, 0, 64, 64]]"));
    let foreign = place.icecap("encode regions.toml --data . --cache other").bad();
    assert!(foreign.contains("has boxes of none of the data set's 54 pictures"), "{foreign}");
}

#[test]
fn regions_of_a_detector_are_captioned_as_they_were_cached() {
    let place = Place::with_recipe();
    with_detector(&place, "tap = \"c2\"\nregions = \"detector\"\n");
    place.icecap("encode regions.toml --data . --cache cache --threads 1").good();
    place.icecap("encode regions.toml --data . --cache again --threads 3 --set encoder.batch=3").good();
    let rows = |cache: &str| {
        let column = Cache::open(place.path(cache)).expect("a cache").column("grid").expect("a column");
        (0..54)
            .map(|row| (0..5).map(|tensor| column.row_of(tensor, row).map(<[u8]>::to_vec)).collect())
            .collect::<Vec<Vec<_>>>()
    };
    assert!(rows("cache") == rows("again"), "regions depend on batch or threads");
    let column = Cache::open(place.path("cache")).expect("a cache").column("grid").expect("a column");
    let counts: Vec<f32> =
        (0..54).flat_map(|row| floats(column.row_of(column.tensor("count").expect("it"), row))).collect();
    assert!(counts.iter().all(|count| (1.0..=5.0).contains(count)), "{counts:?}");

    place.icecap("train regions.toml --data . --cache cache --run run --set train.steps=200").good();
    let scores = place.icecap("evaluate run --split test --no-java -o results.json --json").good().json();
    assert_eq!(scores["images"], 12);
    let results: Vec<serde_json::Value> = serde_json::from_str(&place.read("results.json")).expect("results");
    for (index, result) in results.iter().enumerate().take(3) {
        let index = (2_u64 << 32) + index as u64;
        place.write("picture.png", icecap::dataset::shapes::Scene { seed: 0, index, side: 64 }.png());
        let captioned = place.icecap("caption run picture.png --json").good().json();
        assert_eq!(captioned[0]["caption"], result["caption"]);
    }
}

#[test]
fn a_detectors_own_features_and_levels_come_in_one_pass() {
    let place = Place::with_recipe();
    let column = "from = \"detector\"\ntap = \"box_features\"\n\n[[column]]\nname = \"level\"\nfrom = \"detector\"\ntap = \"fpn.1\"\npool = \"2x2\"\ndtype = \"f32\"\n";
    with_detector(&place, column);
    let report = place.icecap("encode regions.toml --data . --cache cache --json").good().json();
    assert_eq!(report["columns"][0]["shape"], serde_json::json!([5, 6]));
    assert_eq!(report["columns"][1]["shape"], serde_json::json!([4, 4]));
    let again = place.icecap("encode regions.toml --data . --cache cache").good();
    assert!(again.err.contains("all 54 rows were encoded before"), "{}", again.err);
    place.icecap("train regions.toml --data . --cache cache --run run --set train.steps=3").good();

    let other = place.icecap("encode regions.toml --data . --cache cache --set detector.score=0.5").bad();
    assert!(other.contains("regions.score"), "{other}");
    place.write(
        "regions.toml",
        place.read("regions.toml").replace("model = \"detector.onnx\"", "model = \"tiny.onnx\""),
    );
    let foreign = place.icecap("encode regions.toml --data . --cache other").bad();
    assert!(foreign.contains("is no Faster R-CNN in two halves: it has no tensor `fpn.0`"), "{foreign}");
}
