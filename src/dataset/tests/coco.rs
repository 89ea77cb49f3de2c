//! COCO captions.

use super::*;

const SPEC: &str =
    "format = 'coco'\n[train]\ncaptions = 't.json'\nimages = 't'\n[val]\ncaptions = 'v.json'\nimages = 'v'";
const TRAIN_JSON: &str = r#"{"info": {"year": 2017}, "licenses": [], "images": [
    {"id": 9, "file_name": "9.jpg", "height": 4, "coco_url": "http://x"}, {"id": 2, "file_name": "2.jpg"}],
    "annotations": [{"id": 1, "image_id": 2, "caption": "A \"dog\" .\n"}, {"id": 2, "image_id": 9, "caption": "A cat ."},
    {"id": 3, "image_id": 2, "caption": "One dog ."}, {"id": 4, "image_id": 77, "caption": "Whose ?"}]}"#;

fn val(id: u64) -> String {
    format!(r#"{{"images": [{{"id": {id}, "file_name": "v.jpg"}}], "annotations": []}}"#)
}

#[test]
fn parts_are_joined_in_the_order_of_their_images() {
    let val = val(5);
    let data = Data::new(&[("t/2.jpg", ""), ("v/v.jpg", ""), ("t.json", TRAIN_JSON), ("v.json", &val)]);
    let dataset = data.load(SPEC).unwrap();
    assert_eq!(lines(&dataset), ["9 [train] A cat .", "2 [train] A \"dog\" .|One dog .", "5 [val] "]);
    assert_eq!(dataset.items[0].source.describe(), "t/9.jpg");
    assert_eq!(
        dataset.notes,
        [
            "1 images named in `t.json` are not in `t`: `9.jpg`",
            "1 captions in `t.json` are of images that it does not list, and are left out: `77`"
        ]
    );
}

#[test]
fn an_id_in_two_parts_is_refused() {
    let val = val(9);
    let data = Data::new(&[("t/2.jpg", ""), ("v/v.jpg", ""), ("t.json", TRAIN_JSON), ("v.json", &val)]);
    insta::assert_snapshot!(data.error(SPEC), @r"
    the id `9` occurs twice: in `t.json` and in `v.json`
    hint: every image is listed once, and in one split
    ");
}

#[test]
fn other_json_is_refused_with_its_place() {
    let error = |json: &str| {
        Data::new(&[("t/2.jpg", ""), ("t.json", json)])
            .error("format = 'coco'\ntrain = { captions = 't.json', images = 't' }")
    };
    insta::assert_snapshot!(error(r#"{"images": []"#), @r"
    `t.json` is not COCO captions
    caused by: EOF while parsing an object at line 1 column 13
    ");
    insta::assert_snapshot!(error(r#"{"images": [], "annotations": [{"image_id": 1, "bbox": []}]}"#), @r"
    `t.json` is not COCO captions
    caused by: missing field `caption` at line 1 column 58
    ");
}

#[test]
fn a_part_is_needed() {
    insta::assert_snapshot!(Data::new(&[]).error("format = 'coco'"), @r"
    `format = coco` cannot be used in `[dataset]`
    hint: give at least one of train, val and test, each { captions = FILE, images = FOLDER }
    ");
}

#[test]
fn training_images_can_be_held_out() {
    let json = |count: u64| {
        let images: Vec<String> = (1..=count).map(|id| format!(r#"{{"id": {id}, "file_name": "{id}.jpg"}}"#)).collect();
        format!(r#"{{"images": [{}], "annotations": []}}"#, images.join(","))
    };
    let spec = "format = 'coco'\ntrain = { captions = 't.json', images = 't' }\nholdout = { val = 0.3 }";
    let splits = |count: u64| {
        let dataset = Data::new(&[("t/1.jpg", ""), ("t.json", &json(count))]).load(spec).unwrap();
        dataset.items.iter().map(|item| item.split.clone()).collect::<Vec<_>>()
    };
    let all = splits(200);
    assert!((30..90).contains(&all.iter().filter(|split| *split == VAL).count()), "{all:?}");
    assert!(all.iter().all(|split| split == VAL || split == TRAIN));
    assert_eq!(splits(50), all[..50], "more images move none");
    let error = Data::new(&[("t/1.jpg", ""), ("t.json", &json(2))]).load(&spec.replace("0.3", "1.3")).unwrap_err();
    assert!(matches!(error, DatasetError::Setting { key: "holdout", .. }), "{error}");
}
