//! Folders of images: metadata, CSV, sub-folders, bare.

use super::*;

const SPEC: &str = "format = 'folder'\nimages = 'p'";

#[test]
fn a_bare_folder_is_walked_in_order() {
    let data = Data::new(&[("p/b.PNG", ""), ("p/a/z.jpeg", ""), ("p/notes.txt", ""), ("p/.hidden.jpg", "")]);
    let dataset = data.load(SPEC).unwrap();
    assert_eq!(lines(&dataset), ["a/z.jpeg [] ", "b.PNG [] "]);
    assert_eq!((dataset.name.as_str(), dataset.notes.len()), ("p", 0));
}

#[test]
fn sub_folders_give_splits() {
    let data = Data::new(&[("p/train/a.jpg", ""), ("p/validation/b.jpg", ""), ("p/other/c.jpg", "")]);
    assert_eq!(
        lines(&data.load(SPEC).unwrap()),
        ["other/c.jpg [] ", "train/a.jpg [train] ", "validation/b.jpg [val] "]
    );
}

#[test]
fn json_lines_hold_captions_in_any_of_three_ways() {
    let metadata = r#"{"file_name": "a.jpg", "text": "One", "width": 3}
{"image": "b.jpg", "captions": ["One", "Two "], "split": "dev"}
{"file_name": "gone.jpg", "caption": ["Three"]}"#;
    let data = Data::new(&[("p/a.jpg", ""), ("p/b.jpg", ""), ("p/extra.jpg", ""), ("p/metadata.jsonl", metadata)]);
    let dataset = data.load(SPEC).unwrap();
    assert_eq!(lines(&dataset), ["a.jpg [train] One", "b.jpg [val] One|Two", "gone.jpg [train] Three"]);
    assert_eq!(
        dataset.notes,
        [
            "1 images are named in the metadata and are not in `p`: `gone.jpg`",
            "1 images are not named in the metadata, and are left out: `extra.jpg`"
        ]
    );
}

#[test]
fn each_sub_folder_may_have_its_own_metadata() {
    let data = Data::new(&[
        ("p/train/a.jpg", ""),
        ("p/train/metadata.jsonl", r#"{"file_name": "a.jpg", "text": "One"}"#),
        ("p/test/a.jpg", ""),
        ("p/test/metadata.csv", "file_name,text\na.jpg,Two\na.jpg,Three\n"),
    ]);
    assert_eq!(lines(&data.load(SPEC).unwrap()), ["test/a.jpg [test] Two|Three", "train/a.jpg [train] One"]);
}

#[test]
fn a_csv_elsewhere_may_be_named() {
    let data = Data::new(&[("p/a.jpg", ""), ("c.csv", "split,image,caption\ntest,a.jpg,One\ntest,a.jpg,Two\n")]);
    let dataset = data.load(&format!("{SPEC}\nmetadata = 'c.csv'")).unwrap();
    assert_eq!(lines(&dataset), ["a.jpg [test] One|Two"]);
}

#[test]
fn malformed_metadata_is_placed() {
    let error = |metadata: &str| Data::new(&[("p/a.jpg", ""), ("p/metadata.jsonl", metadata)]).error(SPEC);
    insta::assert_snapshot!(error("{\"file_name\": \"a.jpg\"}\n\n{\"file_name\": }"), @r#"line 3 of `p/metadata.jsonl`: expected value: `{"file_name": }`"#);
    insta::assert_snapshot!(error("{\"text\": \"a\"}"), @r#"line 1 of `p/metadata.jsonl`: missing field `file_name`: `{"text": "a"}`"#);
    insta::assert_snapshot!(error("{\"file_name\": \"a.jpg\", \"text\": 3}"), @r#"line 1 of `p/metadata.jsonl`: a caption or a list of captions: `{"file_name": "a.jpg", "text": 3}`"#);
    insta::assert_snapshot!(error("{\"file_name\": \"a.jpg\"}\n{\"file_name\": \"a.jpg\"}"), @r"
    the id `a.jpg` occurs twice: in line 1 of `p/metadata.jsonl` and in line 2 of `p/metadata.jsonl`
    hint: every image is listed once, and in one split
    ");
    insta::assert_snapshot!(error("{\"file_name\": \"a.jpg\", \"split\": \"tset\"}"), @r"
    `tset` is no split that icecap knows, for `a.jpg` in `p/metadata.jsonl`
    hint: splits are train, val and test (dev, valid and validation count as val)
    ");
}
