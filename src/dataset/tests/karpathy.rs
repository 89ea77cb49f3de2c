//! Karpathy's JSON.

use super::*;

const SPEC: &str = "format = 'karpathy'\ncaptions = 'd.json'\nimages = 'i'";
const JSON: &str = r#"{"dataset": "coco", "images": [
    {"filepath": "val2014", "filename": "a.jpg", "cocoid": 391895, "imgid": 0, "split": "test", "sentids": [1],
     "sentences": [{"tokens": ["a", "man"], "raw": "A man. ", "imgid": 0, "sentid": 1}]},
    {"filename": "b.jpg", "imgid": 1, "split": "restval", "sentences": [{"raw": "One"}, {"raw": "Two"}]},
    {"filepath": "", "filename": "c.jpg", "imgid": 2, "split": "val", "sentences": []}]}"#;

#[test]
fn ids_are_cocos_where_there_are_any() {
    let data = Data::new(&[("i/val2014/a.jpg", ""), ("i/c.jpg", ""), ("d.json", JSON)]);
    let dataset = data.load(SPEC).unwrap();
    assert_eq!(lines(&dataset), ["391895 [test] A man.", "b.jpg [train] One|Two", "c.jpg [val] "]);
    assert_eq!(dataset.name, "coco");
    assert_eq!(dataset.items[0].source.describe(), "i/val2014/a.jpg");
    assert_eq!(dataset.notes, ["1 images named in `d.json` are not in `i`: `b.jpg`"]);
}

#[test]
fn restval_counts_as_told() {
    let data = Data::new(&[("i/c.jpg", ""), ("d.json", JSON)]);
    let val = data.load(&format!("{SPEC}\nrestval = 'val'")).unwrap();
    assert_eq!(val.items[1].split, "val");
    assert_eq!(data.load(&format!("{SPEC}\nrestval = 'leave-out'")).unwrap().items.len(), 2);
}

#[test]
fn malformed_ones_are_refused() {
    let error = |from: &str, to: &str| Data::new(&[("i/c.jpg", ""), ("d.json", &JSON.replace(from, to))]).error(SPEC);
    insta::assert_snapshot!(error("\"test\"", "\"tset\""), @r"
    `tset` is no split that icecap knows, for `391895` in `d.json`
    hint: splits are train, val and test (dev, valid and validation count as val)
    ");
    insta::assert_snapshot!(error("c.jpg", "b.jpg"), @r"
    the id `b.jpg` occurs twice: in `images[1]` of `d.json` and in `images[2]` of `d.json`
    hint: every image is listed once, and in one split
    ");
    insta::assert_snapshot!(error("\"raw\": \"One\"", "\"text\": \"One\""), @r"
    `d.json` is not a Karpathy data set
    caused by: missing field `raw` at line 4 column 87
    ");
}
