//! Token files, Kaggle's CSV and split lists.

use super::*;

const SPEC: &str = "format = 'flickr8k'\nimages = 'i'\ncaptions = 'c.txt'\ntrain = 'train.txt'\nval = 'dev.txt'";
const PLAIN: &str = "format = 'flickr8k'\nimages = 'i'\ncaptions = 'c.txt'";
const TOKENS: &str = "a.jpg#0\tA dog .\r\nb.jpg#0\tA cat .\na.jpg#1\t A black dog . \nc.jpg#0\tA cow .\nd.jpg#0\tA hen .\nx.jpg.1#0\tStray .\nx.jpg.1#1\tStray .\n";

#[test]
fn captions_are_grouped_and_splits_read_from_lists() {
    let data = Data::new(&[
        ("i/a.jpg", ""),
        ("i/c.jpg", ""),
        ("c.txt", TOKENS),
        ("train.txt", "a.jpg\n\n"),
        ("dev.txt", "b.jpg\nz.jpg\n"),
    ]);
    let dataset = data.load(SPEC).unwrap();
    // b is listed and missing: it stays. c is in no list and there: no split. d is in no list and not there: left out.
    assert_eq!(
        lines(&dataset),
        ["a.jpg [train] A dog .|A black dog .", "b.jpg [val] A cat .", "c.jpg [] A cow .", "z.jpg [val] "]
    );
    assert_eq!(
        dataset.notes,
        [
            "1 names that are no image files were skipped: `x.jpg.1`",
            "1 images in the split lists have no captions: `z.jpg`",
            "2 images named in `c.txt` are not in `i`: `b.jpg`, `z.jpg`",
            "1 images with captions are in no split list and not on disk: left out",
        ]
    );
    let gone = dataset.items[1].source.read().unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}

#[test]
fn without_lists_all_is_train_or_held_out() {
    let data = Data::new(&[("i/a.jpg", ""), ("c.txt", "image,caption\na.jpg,\"A dog, a cat .\"\na.jpg,A cat .\n")]);
    assert_eq!(lines(&data.load(PLAIN).unwrap()), ["a.jpg [train] A dog, a cat .|A cat ."]);
    let held = data.load(&format!("{PLAIN}\nholdout = {{ val = 0.9999 }}")).unwrap();
    assert_eq!(held.items[0].split, "val");
}

#[test]
fn malformed_lines_are_placed() {
    let error = |tokens: &str| Data::new(&[("i/a.jpg", ""), ("c.txt", tokens)]).error(PLAIN);
    insta::assert_snapshot!(error("a.jpg#0\tA dog .\nb.jpg#0 A cat"), @"line 2 of `c.txt`: no tab between the name and the caption: `b.jpg#0 A cat`");
    insta::assert_snapshot!(error("a.jpg\tA dog ."), @"line 1 of `c.txt`: no `#` behind the image's name: `a.jpg`");
    insta::assert_snapshot!(error("a.jpg#x\tA dog ."), @"line 1 of `c.txt`: not `name#number`: `a.jpg#x`");
    insta::assert_snapshot!(error("a.jpg#0\t "), @"line 1 of `c.txt`: the caption is empty: `a.jpg#0	 `");
    insta::assert_snapshot!(error("a.jpg#0\tA\na.jpg#0\tB"), @r"
    the id `a.jpg#0` occurs twice: in line 1 of `c.txt` and in line 2 of `c.txt`
    hint: every image is listed once, and in one split
    ");
}

#[test]
fn an_image_in_two_splits_is_refused() {
    let lists = |train: &str, dev: &str| {
        Data::new(&[("i/a.jpg", ""), ("c.txt", TOKENS), ("train.txt", train), ("dev.txt", dev)]).error(SPEC)
    };
    insta::assert_snapshot!(lists("b.jpg\na.jpg", "a.jpg"), @r"
    the id `a.jpg` occurs twice: in the list of `train` and in line 1 of `dev.txt`
    hint: every image is listed once, and in one split
    ");
    insta::assert_snapshot!(lists("a.jpg#0\tA dog", ""), @"line 1 of `train.txt`: not one image's name: `a.jpg#0	A dog`");
}
