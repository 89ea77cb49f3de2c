use super::*;

#[test]
fn lists_of_captions_and_urls() {
    let data = Data::new(&[
        (
            "t.tsv",
            "a dog runs .\thttp://x/1.jpg\na cat\thttps://x/2.jpg\r\nthe dog\thttp://x/1.jpg\na dog runs .\thttp://x/1.jpg\n",
        ),
        ("v.tsv", "a bird\thttp://y/1.jpg\tlabels\tmids\t0.5\n\n\thttp://y/2.jpg\nseen\thttps://x/2.jpg\n"),
    ]);
    let dataset = data.load("format = 'conceptual-captions'\ntrain = 't.tsv'\nval = 'v.tsv'").unwrap();
    insta::assert_snapshot!(lines(&dataset).join("\n"), @"
    http://x/1.jpg [train] a dog runs .|the dog
    https://x/2.jpg [train] a cat
    http://y/1.jpg [val] a bird
    http://y/2.jpg [val] 
    ");
    insta::assert_snapshot!(dataset.notes.join("\n"), @"
    2 lines of `t.tsv` name a URL again: one image with several captions
    1 URLs of `v.tsv` are in an earlier split, and stay there alone: `https://x/2.jpg`
    ");
    assert!(dataset.is_remote());
    assert_eq!(dataset.items[0].source, Source::Url("http://x/1.jpg".into()));
    assert_eq!(dataset.items[0].source.describe(), "http://x/1.jpg");
    assert!(dataset.items[0].source.read().is_err());
}

#[test]
fn bad_lines_are_left_out_and_listed() {
    let data = Data::new(&[]);
    let bytes = b"caption\turl\nfine\thttp://x/1.jpg\nno tab here\n\xff\xfe broken\thttp://x/2.jpg\nno url\t \nodd\tjavascript:alert(1)\n";
    fs::write(data.0.path().join("t.tsv"), bytes).unwrap();
    let twice = data.load("format = 'conceptual-captions'\ntrain = 't.tsv'\nval = 't.tsv'").unwrap();
    assert_eq!(twice.items.len(), 2, "a list that adds nothing is a list all the same");
    let dataset = data.load("format = 'conceptual-captions'\ntrain = 't.tsv'").unwrap();
    insta::assert_snapshot!(lines(&dataset).join("\n"), @"
    http://x/1.jpg [train] fine
    javascript:alert(1) [train] odd
    ");
    insta::assert_snapshot!(dataset.notes.join("\n"), @"3 lines of `t.tsv` are left out: `line 3: there is no tab between a caption and a URL`, `line 4: it is not UTF-8`, `line 5: there is no URL after the tab`");
}

#[test]
fn a_file_that_is_no_list_is_refused() {
    let data = Data::new(&[("t.csv", "image,caption\na.jpg,A dog\n")]);
    insta::assert_snapshot!(data.error("format = 'conceptual-captions'\ntrain = 't.csv'"), @"line 1 of `t.csv`: there is no tab between a caption and a URL: `image,caption`");
    insta::assert_snapshot!(data.error("format = 'conceptual-captions'"), @r#"
    `train = ` cannot be used in `[dataset]`
    hint: name at least one list of captions and URLs: `train = "Train_GCC-training.tsv"`
    "#);
}

#[test]
fn what_is_held_out_depends_on_the_url() {
    let text: String = (0..1000).map(|at| format!("a\thttp://x/{at}.jpg\n")).collect();
    let data = Data::new(&[("t.tsv", &text)]);
    let dataset = data.load("format = 'conceptual-captions'\ntrain = 't.tsv'\nholdout = { val = 0.1 }").unwrap();
    assert!((70..130).contains(&dataset.split("val").count()));
}

#[test]
fn the_real_list_is_read() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/captions/Validation_GCC-1.1.0-Validation.tsv");
    if !path.exists() {
        eprintln!("skipped: {} is absent", path.display());
        return;
    }
    let data = Data::new(&[]);
    fs::copy(path, data.0.path().join("v.tsv")).unwrap();
    let dataset = data.load("format = 'conceptual-captions'\nval = 'v.tsv'").unwrap();
    assert_eq!(dataset.items.iter().map(|item| item.captions.len()).sum::<usize>(), 15_833, "{:?}", dataset.notes);
}
