//! Tars of every kind, listed and read; and pictures kept in tars, across kills.

use std::fs;
use std::path::PathBuf;

use tar::{Builder, EntryType, Header};

use super::super::{Dataset, DatasetError, DatasetSpec, Item, load};
use super::*;

/// A data folder with tars in it.
struct Data(tempfile::TempDir);

type Members<'a> = &'a [(&'a str, &'a [u8])];

impl Data {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(name: &str, members: Members<'_>) -> Self {
        let data = Self::new();
        data.write(name, &tar_of(members));
        data
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), bytes).unwrap();
    }

    fn load(&self, toml: &str) -> Result<Dataset, DatasetError> {
        let spec: DatasetSpec = toml::from_str(&format!("format = 'webdataset'\n{toml}")).unwrap();
        load(&spec, self.0.path())
    }

    fn error(&self, toml: &str) -> String {
        self.load(toml).unwrap_err().to_string().replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn header(bytes: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(bytes as u64);
    header.set_mode(0o644);
    header
}

/// A tar whose members have these names, whatever they are.
fn tar_of(members: Members<'_>) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = header(bytes.len());
        if name.starts_with('/') || name.contains("..") {
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, *bytes).unwrap();
        } else {
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

/// `id [split] captions = bytes` of every item.
fn lines(dataset: &Dataset) -> String {
    let line = |item: &Item| {
        let bytes =
            item.source.read().map_or_else(|error| error.kind().to_string(), |b| String::from_utf8_lossy(&b).into());
        format!("{} [{}] {} = {bytes}", item.id, item.split, item.captions.join("|"))
    };
    dataset.items.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn img2datasets_tars_are_read_where_they_lie() {
    let data = Data::new();
    let json = br#"{"caption": "a dog", "url": "http://x/", "key": "000000000", "status": "success", "width": 4}"#;
    data.write(
        "cc/00000.tar",
        &tar_of(&[("000000000.jpg", b"one"), ("000000000.txt", b"a dog"), ("000000000.json", json)]),
    );
    data.write("cc/00001.tar", &tar_of(&[("000010007.txt", b"a cat\n"), ("000010007.png", b"two")]));
    data.write("cc/00000_stats.json", b"{}");
    data.write("cc/00000.parquet", b"PAR1");
    data.write("cc/00002.tar.partial", b"not yet");
    for train in ["cc", "cc/{00000..00001}.tar"] {
        let dataset = data.load(&format!("train = '{train}'")).unwrap();
        insta::allow_duplicates! {
            insta::assert_snapshot!(lines(&dataset), @r"
            00000/000000000 [train] a dog = one
            00001/000010007 [train] a cat = two
            ");
        }
        assert_eq!(dataset.notes, [""; 0]);
        assert_eq!(dataset.items[1].source.describe(), "cc/00001.tar/000010007.png");
    }
    let both = data.load("train = 'cc/00000.tar'\nval = 'cc/00001.tar'").unwrap();
    assert_eq!(both.items.iter().map(|item| item.split.as_str()).collect::<Vec<_>>(), ["train", "val"]);
}

#[test]
fn captions_come_from_text_and_json_once_each() {
    let captions = br#"{"captions": ["one", "two", 3], "caption": "zero", "text": null}"#;
    let members: Members<'_> = &[
        ("./a.JPG", b"A"),
        ("a.txt", b"two"),
        ("a.json", captions),
        ("b.c.jpg", b"not a picture's name"),
        ("d/e.webp", b"E"),
        ("d/e.json", b"{broken"),
        ("f.txt", b"\xff\xfe"),
        ("f.gif", b"F"),
        ("readme", b"nothing"),
    ];
    let data = Data::with("x.tar", members);
    let dataset = data.load("train = 'x.tar'").unwrap();
    insta::assert_snapshot!(lines(&dataset), @"
    x/a [train] two|zero|one = A
    x/d/e [train]  = E
    x/f [train]  = F
    ");
    insta::assert_snapshot!(dataset.notes.join("\n"), @"
    2 members of `x.tar` hold no readable caption: `d/e.json`, `f.txt`
    2 images have no caption
    ");
}

#[test]
fn names_are_never_paths_and_odd_members_are_left_out() {
    let mut builder = Builder::new(tar_of(&[
        ("../../etc/passwd.jpg", b"up"),
        ("/etc/shadow.jpg", b"root"),
        ("a/../b.jpg", b"around"),
        ("good.jpg", b"good"),
        ("good.png", b"again"),
        ("lonely.txt", b"no picture"),
    ]));
    builder.get_mut().truncate(6 * 1024);
    for (kind, name) in
        [(EntryType::Symlink, "link.jpg"), (EntryType::Link, "hard.jpg"), (EntryType::Directory, "folder")]
    {
        let mut header = header(0);
        header.set_entry_type(kind);
        builder.append_link(&mut header, name, "good.jpg").unwrap();
    }
    let data = Data::new();
    data.write("x.tar", &builder.into_inner().unwrap());
    let dataset = data.load("train = 'x.tar'").unwrap();
    assert_eq!(lines(&dataset), "x/good [train]  = good");
    insta::assert_snapshot!(dataset.notes.join("\n"), @"
    3 members of `x.tar` have names that lead out of a folder or are not UTF-8, and are left out: `../../etc/passwd.jpg`, `/etc/shadow.jpg`, `a/../b.jpg`
    2 members of `x.tar` are links or other special files, and are left out: `link.jpg`, `hard.jpg`
    1 members of `x.tar` are second pictures of their keys, and are left out: `good.png`
    1 members of `x.tar` describe a picture that is not there, and are left out: `lonely`
    1 images have no caption
    ");
}

#[test]
fn long_names_of_both_kinds_are_whole() {
    let long = format!("{}/{}.jpg", "folder".repeat(20), "k".repeat(90));
    let data = Data::with("gnu.tar", &[(&long, b"gnu"), ("b.jpg", b"b")]);
    let name = format!("path={long}\n");
    let record = format!("{} {name}", name.len() + 4);
    let mut builder = Builder::new(Vec::new());
    let mut pax = header(record.len());
    pax.set_entry_type(EntryType::XHeader);
    builder.append_data(&mut pax, "PaxHeaders/x", record.as_bytes()).unwrap();
    builder.append_data(&mut header(3), "short.jpg", &b"pax"[..]).unwrap();
    data.write("pax.tar", &builder.into_inner().unwrap());
    let dataset = data.load("train = '{gnu,pax}.tar'").unwrap();
    let key = long.trim_end_matches(".jpg");
    assert_eq!(lines(&dataset), format!("gnu/{key} [train]  = gnu\ngnu/b [train]  = b\npax/{key} [train]  = pax"));
}

#[test]
fn a_tar_that_is_cut_off_says_so_and_loses_no_more_than_it_lost() {
    let whole = tar_of(&[("a.jpg", b"first"), ("a.txt", b"one"), ("b.jpg", &[7; 2000]), ("b.txt", b"two")]);
    let data = Data::new();
    let mut seen = Vec::new();
    for cut in (0..whole.len()).step_by(64).skip(1) {
        data.write("x.tar", &whole[..cut]);
        match data.load("train = 'x.tar'") {
            Ok(dataset) => {
                let cut_off = dataset.notes.iter().any(|note| note.contains("is cut off or damaged"));
                assert_eq!(cut_off, cut < whole.len() - 512, "{cut} of {}: {:?}", whole.len(), dataset.notes);
                seen.push(dataset.items.iter().map(|item| item.source.read().is_ok()).collect::<Vec<_>>());
            }
            Err(DatasetError::Tar { .. } | DatasetError::Nothing { .. }) => seen.push(Vec::new()),
            Err(other) => panic!("{other}"),
        }
    }
    // No picture, one, one and a missing row, two.
    seen.dedup();
    assert_eq!(seen, [vec![], vec![false], vec![true], vec![true, false], vec![true, true]]);
}

#[test]
fn damage_in_the_middle_ends_the_list_there() {
    let mut whole = tar_of(&[("a.jpg", b"first"), ("b.jpg", b"second"), ("c.jpg", b"third")]);
    whole[1024 + 20] ^= 1;
    let data = Data::new();
    data.write("x.tar", &whole);
    let dataset = data.load("train = 'x.tar'").unwrap();
    assert_eq!(lines(&dataset), "x/a [train]  = first");
    insta::assert_snapshot!(dataset.notes[0], @"`x.tar` is cut off or damaged at byte 517 (archive header checksum mismatch): what follows is lost");
}

#[test]
fn a_tar_that_was_replaced_gives_no_other_pictures_bytes() {
    let data = Data::with("x.tar", &[("a.jpg", b"first"), ("b.jpg", b"other")]);
    let dataset = data.load("train = 'x.tar'").unwrap();
    fs::remove_file(data.path("x.tar")).unwrap();
    data.write("x.tar", &tar_of(&[("b.jpg", b"other"), ("a.jpg", b"first")]));
    // A fresh thread has no tar open.
    let read = std::thread::scope(|scope| scope.spawn(|| dataset.items[0].source.read()).join().unwrap());
    assert_eq!(read.unwrap_err().to_string(), "the tar was changed while it was being read");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let data = Data::with("a/x.tar", &[("a.jpg", b"1")]);
    data.write("b/x.tar", &tar_of(&[("a.jpg", b"2")]));
    data.write("z.tar", b"\x1f\x8b a gzip'd tar");
    data.write("t.tar", "a text that is longer than a block ".repeat(40).as_bytes());
    insta::assert_snapshot!(data.error("train = '{a,b}/x.tar'"), @"
    the id `x/...` occurs twice: in `a/x.tar` and in `b/x.tar`
    hint: every image is listed once, and in one split
    ");
    insta::assert_snapshot!(data.error("train = 'z.tar'"), @"
    `z.tar` is not a tar
    hint: WebDataset's shards are plain tars; unpack a compressed one first (`gunzip`)
    ");
    assert_eq!(data.error("train = 't.tar'"), data.error("train = 'z.tar'").replace("z.tar", "t.tar"));
    insta::assert_snapshot!(data.error("train = 'a/{x,y}.tar'"), @"
    cannot read `a/y.tar`
    hint: paths in a recipe are relative to the data folder (`--data DIR`)
    ");
    insta::assert_snapshot!(data.error("train = 'a/{5..1}.tar'"), @r#"
    `train = "a/{5..1}.tar"` cannot be used in `[dataset]`
    hint: a range in braces goes up, over at most 1,000,000 numbers
    "#);
    insta::assert_snapshot!(data.error(""), @r#"
    `train = ` cannot be used in `[dataset]`
    hint: name at least one split's tars: `train = "cc3m/{00000..00331}.tar"`
    "#);
}

/// The beginning of a JPEG, and `text`.
fn jpeg(text: &str) -> Vec<u8> {
    [&b"\xff\xd8\xff"[..], text.as_bytes()].concat()
}

fn keep(keeper: &Keeper, row: u32) {
    let (url, captions) = (format!("http://x/{row}"), [format!("picture {row}"), "another".to_owned()]);
    let bytes = jpeg(&format!(" {row}"));
    assert!(keeper.keep(&Kept { row, url: &url, captions: &captions, bytes: &bytes }).unwrap());
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> String {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.join(" ")
}

#[test]
fn kept_pictures_come_back_as_a_data_set() {
    let data = Data::new();
    let folder = data.path("kept");
    let keeper = Keeper::open(&folder, "row 0", [3, 5, 1002, 999, 7].into_iter()).unwrap();
    [1002, 5, 3].iter().for_each(|row| keep(&keeper, *row));
    let page = Kept { row: 7, url: "http://x/7", captions: &[], bytes: b"<html>not found" };
    assert!(!keeper.keep(&page).unwrap(), "an error page is not kept");
    assert_eq!(names(&folder), ".lock 00000.tar.partial 00001.tar.partial icecap.json");
    [3, 5, 1002, 999].iter().for_each(|row| keeper.settle(*row).unwrap());
    assert_eq!(names(&folder), ".lock 00000.tar.partial 00001.tar icecap.json");
    keeper.settle(7).unwrap();
    assert_eq!(names(&folder), ".lock 00000.tar 00001.tar icecap.json");
    let dataset = data.load("train = 'kept'").unwrap();
    insta::assert_snapshot!(lines(&dataset), @"
    00000/000000005 [train] picture 5|another = ��� 5
    00000/000000003 [train] picture 3|another = ��� 3
    00001/000010002 [train] picture 1002|another = ��� 1002
    ");
    assert_eq!(dataset.notes, [""; 0]);
}

#[test]
fn a_kill_at_any_byte_costs_no_whole_sample_and_keeps_no_half_one() {
    let reference = Data::new();
    let rows = || [1, 2, 3].into_iter();
    let keeper = Keeper::open(&reference.path("kept"), "id", rows()).unwrap();
    rows().for_each(|row| keep(&keeper, row));
    drop(keeper);
    let partial = fs::read(reference.path("kept/00000.tar.partial")).unwrap();
    let sample = partial.len() / 3;
    for cut in (0..=partial.len()).step_by(256) {
        let data = Data::new();
        fs::create_dir_all(data.path("kept")).unwrap();
        fs::copy(reference.path("kept/icecap.json"), data.path("kept/icecap.json")).unwrap();
        data.write("kept/00000.tar.partial", &partial[..cut]);
        let keeper = Keeper::open(&data.path("kept"), "id", rows()).unwrap();
        for row in rows() {
            let bytes = jpeg(&format!(" {row}"));
            let url = format!("http://x/{row}");
            let kept = Kept { row, url: &url, captions: &[], bytes: &bytes };
            // The JSON's last block may lack its padding and is whole all the same.
            let is_there = cut >= row as usize * sample - 256;
            assert_eq!(keeper.keep(&kept).unwrap(), !is_there, "row {row} of a tar cut at {cut}, {sample} a sample");
            keeper.settle(row).unwrap();
        }
        let dataset = data.load("train = 'kept'").unwrap();
        assert_eq!((dataset.items.len(), dataset.notes.iter().any(|note| note.contains("cut off"))), (3, false));
        assert!(dataset.items.iter().all(|item| item.source.read().unwrap().starts_with(b"\xff\xd8\xff")));
    }
}

#[test]
fn a_finished_tar_takes_a_picture_that_was_found_later() {
    let data = Data::new();
    let folder = data.path("kept");
    let keeper = Keeper::open(&folder, "id", [1].into_iter()).unwrap();
    keep(&keeper, 1);
    keeper.settle(1).unwrap();
    drop(keeper);
    let keeper = Keeper::open(&folder, "id", [1, 4].into_iter()).unwrap();
    let again = Kept { row: 1, url: "http://x/1", captions: &[], bytes: &jpeg("other") };
    assert!(!keeper.keep(&again).unwrap(), "it is there already");
    let error = keeper.keep(&Kept { url: "http://y/2", ..again }).unwrap_err().to_string();
    let error = error.replace(&format!("{}/", folder.parent().unwrap().display()), "");
    insta::assert_snapshot!(error, @"
    `kept` holds tars that are not of this cache: `000000001` of kept/00000.tar is from `http://x/1`, and row 1 from `http://y/2`
    hint: give --keep-images a folder of its own
    ");
    assert_eq!(names(&folder), ".lock 00000.tar icecap.json", "nothing is copied for nothing");
    keep(&keeper, 4);
    assert_eq!(data.load("train = 'kept'").unwrap().items.len(), 1, "the finished tar is whole meanwhile");
    drop(keeper);
    // Killed before it was published, and nothing is left to do: it is published all the same.
    drop(Keeper::open(&folder, "id", [].into_iter()).unwrap());
    assert_eq!(data.load("train = 'kept'").unwrap().items.len(), 2);
    assert_eq!(names(&folder), ".lock 00000.tar icecap.json");
}

#[test]
fn other_peoples_tars_are_not_touched() {
    let data = Data::with("cc/00000.tar", &[("a.jpg", b"1")]);
    let error = |result: Result<Keeper, KeepError>| {
        result.unwrap_err().to_string().replace(&format!("{}/", data.0.path().display()), "")
    };
    insta::assert_snapshot!(error(Keeper::open(&data.path("cc"), "id", [].into_iter())), @"
    `cc` holds tars that are not of this cache: `00000.tar`
    hint: give --keep-images a folder of its own
    ");
    let keeper = Keeper::open(&data.path("kept"), "http://x/0.jpg", [].into_iter()).unwrap();
    insta::assert_snapshot!(error(Keeper::open(&data.path("kept"), "http://x/0.jpg", [].into_iter())), @"
    another icecap keeps pictures in `kept`
    hint: give --keep-images a folder of its own
    ");
    drop(keeper);
    insta::assert_snapshot!(error(Keeper::open(&data.path("kept"), "other", [].into_iter())), @"
    `kept` holds tars that are not of this cache: their first row is `http://x/0.jpg`
    hint: give --keep-images a folder of its own
    ");
    insta::assert_snapshot!(error(Keeper::open(&data.path("cc/00000.tar"), "id", [].into_iter())), @"cannot make `cc/00000.tar` to keep pictures");
}
