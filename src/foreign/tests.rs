//! Every way in which a source can be bad, and the good ones.

use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::*;
use crate::progress::Silent;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        std::fs::write(self.path(name), bytes).unwrap();
        self
    }

    fn open(&self, format: Format, from: &str, vectors: Option<usize>) -> Result<Box<dyn Source>, ForeignError> {
        let options = SourceOptions { format, from: self.path(from), array: "feat".into(), vectors };
        open(&options, &Silent)
    }

    /// Why the source is refused: when it is opened, or when its pictures are read.
    fn refused(&self, format: Format, from: &str) -> String {
        let tried = self.open(format, from, None).and_then(|source| {
            let mut row = Row::zeros(&source.shapes());
            (0..source.names().len()).try_for_each(|picture| source.read(picture, &mut row))
        });
        self.anonymous(&tried.expect_err("it is refused"))
    }

    fn anonymous(&self, error: &ForeignError) -> String {
        error.to_string().replace(self.0.path().to_str().unwrap(), "DIR")
    }
}

fn floats(values: &[f32]) -> String {
    STANDARD.encode(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

fn integers(values: &[i64]) -> String {
    STANDARD.encode(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

/// A line of Anderson's, of `boxes` boxes with 3 features each.
fn line(name: &str, boxes: usize) -> String {
    let numbers = |count: usize| (0..count).map(|n| n as f32).collect::<Vec<_>>();
    format!("{name}\t640\t480\t{boxes}\t{}\t{}\r\n", floats(&numbers(4 * boxes)), floats(&numbers(3 * boxes)))
}

fn row_of(source: &dyn Source, picture: usize) -> Row {
    let mut row = Row::zeros(&source.shapes());
    source.read(picture, &mut row).unwrap();
    row
}

#[test]
fn andersons_lines_are_padded_to_the_longest() {
    let place = Place::new();
    place.write("f.tsv", line("a", 2) + &line("b", 1) + "\r\n" + &line("c", 0));
    let source = place.open(Format::AndersonTsv, "f.tsv", None).unwrap();
    assert_eq!(source.names(), ["a", "b", "c"]);
    let shapes: Vec<_> = source.shapes().into_iter().map(|shape| (shape.name, shape.dimensions)).collect();
    assert_eq!(shapes, [("embedding", vec![2, 3]), ("boxes", vec![2, 4]), ("count", vec![1]), ("size", vec![2])]);
    let mut row = row_of(&*source, 0);
    assert_eq!(row.tensors[0], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    // A row that is used again keeps nothing of the picture before.
    source.read(1, &mut row).unwrap();
    assert_eq!(
        row.tensors,
        [
            vec![0.0, 1.0, 2.0, 0.0, 0.0, 0.0],
            vec![0.0, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0],
            vec![1.0],
            vec![640.0, 480.0]
        ]
    );
    assert_eq!(row_of(&*source, 2).tensors[2], [0.0]);
    let wider = place.open(Format::AndersonTsv, "f.tsv", Some(5)).unwrap();
    assert_eq!(wider.shapes()[0].dimensions, [5, 3]);
    assert_eq!(wider.digest(), source.digest());
    let narrow = place.open(Format::AndersonTsv, "f.tsv", Some(1)).map(drop).unwrap_err();
    insta::assert_snapshot!(place.anonymous(&narrow), @r"
    line 1 of `DIR/f.tsv` has 2 vectors, and a row has room for 1
    hint: give --vectors 2 or more, or leave --vectors out
    ");
}

#[test]
fn lxmerts_lines_have_the_height_first_and_labels() {
    let place = Place::new();
    let ids = integers(&[7, 1599]);
    let confidences = floats(&[0.5, 0.25]);
    let boxes = floats(&[1.0; 8]);
    let features = floats(&[2.0; 6]);
    place.write("f.tsv", format!("a\t480\t640\t{ids}\t{confidences}\t{ids}\t{confidences}\t2\t{boxes}\t{features}\n"));
    let source = place.open(Format::AndersonTsv, "f.tsv", None).unwrap();
    let row = row_of(&*source, 0);
    assert_eq!(
        row.tensors[3..],
        [vec![640.0, 480.0], vec![7.0, 1599.0], vec![0.5, 0.25], vec![7.0, 1599.0], vec![0.5, 0.25]]
    );
    assert_eq!(source.shapes()[4].name, "labels");
}

#[test]
fn a_bad_line_is_named() {
    let place = Place::new();
    let good = line("a", 2);
    let refused = |text: String| {
        place.write("f.tsv", text);
        place.refused(Format::AndersonTsv, "f.tsv")
    };
    let cut = &line("b", 2)[..20];
    let swap = |from: &str, to: &str| good.replacen(from, to, 1);
    let broken = good.replace("AAAA", "AA*A");
    let nan = format!("b\t640\t480\t1\t{}\t{}\n", floats(&[0.0; 4]), floats(&[0.0, f32::NAN, 0.0]));
    let other = format!("b\t640\t480\t1\t{}\t{}\n", floats(&[0.0; 4]), floats(&[0.0; 4]));
    let short = good.replacen("\t2\t", "\t3\t", 1);
    let all = [
        refused(format!("{good}{cut}")),
        refused(format!("{good}{}", &line("b", 2)[..good.len() - 12])),
        refused(short),
        refused(swap("\t2\t", "\tmany\t")),
        refused(swap("640", "wide")),
        refused(broken),
        refused(format!("{good}{nan}")),
        refused(format!("{good}{other}")),
        refused(format!("{good}{}{good}", line("b", 1))),
        refused(String::new()),
    ];
    insta::assert_snapshot!(all.join("\n"), @r"
    line 2 of `DIR/f.tsv` has 5 fields where 6 (Anderson's) or 10 (LXMERT's) are expected
    hint: a line that is cut off means that the file is: copy it again
    line 2 of `DIR/f.tsv`: `features` of 2 boxes takes a multiple of 8 bytes, and 15 are there
    hint: a line that is cut off means that the file is: copy it again
    line 1 of `DIR/f.tsv`: `boxes` of 3 boxes takes 48 bytes, and 32 are there
    hint: a line that is cut off means that the file is: copy it again
    line 1 of `DIR/f.tsv`: `many` is not a number of boxes
    line 1 of `DIR/f.tsv`: `wide` is not a width
    line 1 of `DIR/f.tsv`: the field `features` is not base64
    line 2 of `DIR/f.tsv`: number 1 of `features` is not finite
    hint: the features of this picture are broken: extract them again, or take the picture out
    line 2 of `DIR/f.tsv`: `features` of 1 boxes takes 12 bytes, and 16 are there
    hint: a line that is cut off means that the file is: copy it again
    `a` is there twice: in line 1 and in line 3 of `DIR/f.tsv`
    hint: a picture has its features once: take one of the two out
    `DIR/f.tsv` holds no features
    ");
}

/// An array of f32 as NumPy writes it.
fn npy(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let (rows, rest) = shape.split_first().unwrap();
    let mut writer = NpyWriter::create(&path, NpyKind::F32, *rows, rest).unwrap();
    writer.write(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>()).unwrap();
    writer.finish().unwrap();
    std::fs::read(path).unwrap()
}

fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn a_folder_of_arrays_of_one_shape_or_of_several_vectors() {
    let place = Place::new();
    std::fs::create_dir(place.path("fc")).unwrap();
    place
        .write("fc/2.npy", npy(&[3], &[4.0, 5.0, 6.0]))
        .write("fc/10.npy", npy(&[3], &[1.0, 2.0, 3.0]))
        .write("fc/x.txt", "");
    let source = place.open(Format::Npy, "fc", None).unwrap();
    assert_eq!(source.names(), ["10", "2"]);
    assert_eq!(source.shapes(), [Shape::new("embedding", [3])]);
    assert_eq!(row_of(&*source, 1).tensors, [vec![4.0, 5.0, 6.0]]);

    std::fs::create_dir(place.path("att")).unwrap();
    place.write("att/a.npz", npz(&[("feat", npy(&[2, 2], &[1.0; 4])), ("other", npy(&[1], &[0.0]))]));
    place.write("att/b.npz", npz(&[("feat", npy(&[1, 2], &[7.0, 8.0]))]));
    let source = place.open(Format::Npz, "att", None).unwrap();
    assert_eq!(source.shapes(), [Shape::new("embedding", [2, 2]), Shape::new("count", [1])]);
    assert_eq!(row_of(&*source, 1).tensors, [vec![7.0, 8.0, 0.0, 0.0], vec![1.0]]);
    let before = source.digest().to_owned();
    place.write("att/b.npz", npz(&[("feat", npy(&[1, 2], &[7.0, 9.0]))]));
    assert_ne!(place.open(Format::Npz, "att", None).unwrap().digest(), before);
}

#[test]
fn one_array_of_all_pictures() {
    let place = Place::new();
    std::fs::create_dir(place.path("d")).unwrap();
    place.write("d/ids.txt", "b.jpg\na.jpg\r\n").write("d/missing.txt", "c.jpg\tunreadable\n");
    place.write("d/features.npy", npy(&[2, 2, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]));
    place.write("d/count.npy", npy(&[2, 1], &[2.0, 1.0]));
    let source = place.open(Format::NpyRows, "d", None).unwrap();
    assert_eq!(source.names(), ["b.jpg", "a.jpg"]);
    assert_eq!(source.shapes(), [Shape::new("embedding", [2, 2]), Shape::new("count", [1])]);
    assert_eq!(row_of(&*source, 0).tensors, [vec![1.0, 2.0, 3.0, 4.0], vec![2.0]]);
    assert_eq!(row_of(&*source, 1).tensors, [vec![5.0, 6.0, 7.0, 8.0], vec![1.0]]);
    let digest = || place.open(Format::NpyRows, "d", None).unwrap().digest().to_owned();
    let before = digest();
    place.write("d/count.npy", npy(&[2, 1], &[2.0, 2.0]));
    let other_count = digest();
    place.write("d/ids.txt", "b.jpg\nc.jpg\n");
    assert!(before != other_count && other_count != digest());

    let refused = |name: &str, bytes: Vec<u8>| {
        let kept = std::fs::read(place.path("d").join(name)).ok();
        place.write(&format!("d/{name}"), bytes);
        let said = place.refused(Format::NpyRows, "d");
        match kept {
            Some(kept) => place.write(&format!("d/{name}"), kept),
            None => {
                std::fs::remove_file(place.path("d").join(name)).unwrap();
                &place
            }
        };
        said
    };
    let all = [
        refused("features.npy", npy(&[3, 2], &[0.0; 6])),
        refused("features.npy", npy(&[2], &[0.0; 2])),
        refused("features.npy", npy(&[2, 2], &[0.0, 1.0, 2.0, f32::NAN])),
        refused("features.npy", npy(&[2, 2], &[0.0; 4])[..140].to_vec()),
        refused("count.npy", npy(&[1, 1], &[0.0])),
        refused("sizes.npy", npy(&[2, 1], &[0.0; 2])),
        refused("ids.txt", b"a\na\n".to_vec()),
        refused("ids.txt", b"".to_vec()),
        place.refused(Format::Npy, "d"),
        place.refused(Format::NpyRows, "nowhere"),
    ];
    insta::assert_snapshot!(all.join("\n"), @r"
    `DIR/d/features.npy` has the shape `[3, 2]`, and `ids.txt` names 2 pictures
    hint: the array is [2, D] or [2, K, D]: a row for each line of `ids.txt`, in their order
    `DIR/d/features.npy` has the shape `[2]`, and `ids.txt` names 2 pictures
    hint: the array is [2, D] or [2, K, D]: a row for each line of `ids.txt`, in their order
    row 1 of `DIR/d/features.npy`: number 1 of `embedding` is not finite
    hint: the features of this picture are broken: extract them again, or take the picture out
    `DIR/d/features.npy` says that it has the shape `[2, 2]`, which takes 16 bytes, and 12 are there
    hint: it was cut off: copy it again
    `DIR/d/count.npy` has the shape `[1, 1]`, and `ids.txt` names 2 pictures
    hint: the array is [2, D] or [2, K, D]: a row for each line of `ids.txt`, in their order
    `DIR/d/sizes.npy` is nothing that a column holds: beside `features.npy` there may be `boxes.npy`, `scores.npy`, `labels.npy`, `attributes.npy`, `attribute_scores.npy`, `count.npy`, `size.npy`
    hint: take it out of the folder
    `a` is there twice: in line 1 of `DIR/d/ids.txt` and in line 2 of `DIR/d/ids.txt`
    hint: a picture has its features once: take one of the two out
    `DIR/d/ids.txt` holds no features
    `DIR/d` holds one array for all pictures: `features.npy`, and `ids.txt` names them
    hint: import it with --format npy-rows
    cannot read `DIR/nowhere/ids.txt`
    ");
}

fn regions(x: Vec<u8>, boxes: usize, number: f32) -> Vec<u8> {
    let scalar = |value: f32| npy(&[1], &[value]);
    let bbox = npy(&[boxes, 4], &vec![1.0; 4 * boxes]);
    let parts = [
        ("x", x),
        ("bbox", bbox),
        ("num_bbox", scalar(number)),
        ("image_h", scalar(480.0)),
        ("image_w", scalar(640.0)),
    ];
    npz(&parts)
}

#[test]
fn bottom_up_archives_with_the_vectors_as_rows_or_as_columns() {
    let place = Place::new();
    std::fs::create_dir(place.path("bu")).unwrap();
    place.write("bu/a.jpg.npz", regions(npy(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 2, 2.0));
    place.write("bu/b.jpg.npz", regions(npy(&[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]), 2, 2.0));
    let source = place.open(Format::BottomUpNpz, "bu", Some(3)).unwrap();
    let [one, two] = [0, 1].map(|picture| row_of(&*source, picture));
    assert_eq!(one, two);
    assert_eq!(one.tensors[0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0, 0.0]);
    assert_eq!(one.tensors[2..], [vec![2.0], vec![640.0, 480.0]]);
    place.write("bu/c.npz", regions(npy(&[4, 3], &[0.0; 12]), 2, 2.0));
    let x = place.refused(Format::BottomUpNpz, "bu");
    place.write("bu/c.npz", regions(npy(&[2, 3], &[0.0; 6]), 2, 36.0));
    let count = place.refused(Format::BottomUpNpz, "bu");
    insta::assert_snapshot!(format!("{x}\n{count}"), @r"
    `DIR/bu/c.npz`: `x` of the shape `[4, 3]`, `bbox` of `[2, 4]` and `num_bbox` of `2` do not agree
    hint: they should be [n, D] or [D, n], [n, 4], and n
    `DIR/bu/c.npz`: `x` of the shape `[2, 3]`, `bbox` of `[2, 4]` and `num_bbox` of `36` do not agree
    hint: they should be [n, D] or [D, n], [n, 4], and n
    ");
}

#[test]
fn a_bad_file_is_named() {
    let place = Place::new();
    std::fs::create_dir(place.path("d")).unwrap();
    place.write("d/a.npy", npy(&[3], &[0.0; 3]));
    let refused = |bytes: Vec<u8>| {
        place.write("d/b.npy", bytes);
        place.refused(Format::Npy, "d")
    };
    let mut all = vec![
        refused(npy(&[4], &[0.0; 4])),
        refused(npy(&[3, 1], &[0.0; 3])),
        refused(npy(&[3], &[0.0, f32::INFINITY, 0.0])),
        refused(npy(&[3], &[0.0; 3])[..130].to_vec()),
        refused(b"not an array".to_vec()),
    ];
    std::fs::rename(place.path("d/b.npy"), place.path("d/a.jpg.npy")).unwrap();
    place.write("d/a.jpg.npy", npy(&[3], &[0.0; 3]));
    all.push(place.refused(Format::Npy, "d"));
    all.push(place.refused(Format::Npz, "d"));
    place.write("d/c.npz", npz(&[("features", npy(&[3], &[0.0; 3]))]));
    all.push(place.refused(Format::Npz, "d"));
    place.write("d/c.npz", "PK but no zip");
    all.push(place.refused(Format::Npz, "d"));
    all.push(place.refused(Format::Npz, "nowhere"));
    insta::assert_snapshot!(all.join("\n"), @r"
    `DIR/d/b.npy` has the shape `[4]` where the others have `[3]`
    hint: a column's rows have one shape; only the number of vectors of `[K, D]` may differ
    `DIR/d/b.npy` has the shape `[3, 1]` where the others have `[3]`
    hint: a column's rows have one shape; only the number of vectors of `[K, D]` may differ
    `DIR/d/b.npy`: number 1 of `array` is not finite
    hint: the features of this picture are broken: extract them again, or take the picture out
    `DIR/d/b.npy` says that it has the shape `[3]`, which takes 12 bytes, and 2 are there
    hint: it was cut off: copy it again
    `DIR/d/b.npy` is no NumPy array
    `a` is there twice: in `DIR/d/a.jpg.npy` and in `DIR/d/a.npy`
    hint: a picture has its features once: take one of the two out
    `DIR/d` holds no `.npz` file
    hint: name the folder with one file a picture, and its --format
    `DIR/d/c.npz` has no array `feat`; it has `features`
    hint: name the array with --array
    `DIR/d/c.npz` is no `.npz`
    cannot read `DIR/nowhere`
    ");
}

#[test]
fn a_safetensors_file_is_what_the_crate_reads() {
    let place = Place::new();
    let path = place.path("f.safetensors");
    let tensor = |name: &str, dtype, shape: &[usize], element_bytes| FileTensor {
        name: name.into(),
        dtype,
        shape: shape.into(),
        element_bytes,
    };
    let tensors =
        [tensor("b\"oxes", "F32", &[2, 1], 4), tensor("embedding", "F16", &[2, 3], 2), tensor("ids", "U8", &[0], 1)];
    let mut writer = SafetensorsWriter::create(&path, &tensors, &[("column", "grid \"7\"".to_owned())]).unwrap();
    writer.write(&[1; 8]).unwrap();
    writer.write(&[2; 12]).unwrap();
    assert!(!path.exists(), "half a file has no name");
    writer.finish().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("embedding").unwrap().shape(), [2, 3]);
    assert_eq!(file.tensor("embedding").unwrap().data(), [2; 12]);
    assert_eq!(file.tensor("b\"oxes").unwrap().data(), [1; 8]);
    assert!(Path::new(&path).parent().unwrap().read_dir().unwrap().count() == 1);
}
