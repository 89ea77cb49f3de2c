//! `decode = "fast"` beside `"exact"`.

use super::*;
use crate::image::preprocess::Decode;

fn pre(side: u32, decode: Decode) -> Preprocess {
    Preprocess { resize: Resize::Shorter(side), crop: None, decode, ..Preprocess::default() }
}

fn load(bytes: &[u8], pre: &Preprocess, views: &[View]) -> Result<Vec<Vec<u8>>, ImageError> {
    let (height, width) = pre.output_size();
    let mut pixels = vec![vec![0; (height * width * 3) as usize]; views.len()];
    let mut targets: Vec<_> = views.iter().copied().zip(pixels.iter_mut().map(Vec::as_mut_slice)).collect();
    load_views(bytes, pre, &mut targets, None::<fn(&Picture<'_>)>)?;
    Ok(pixels)
}

fn mean_difference(a: &[u8], b: &[u8]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

fn jpegs() -> Vec<String> {
    let expected: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&fixture("expected.json")).unwrap();
    expected.into_keys().filter(|name| name.ends_with(".jpg")).collect()
}

#[test]
fn small_pictures_and_other_formats_are_the_same_to_the_bit() {
    for name in jpegs().iter().map(String::as_str).chain(["rgb.png"]) {
        let bytes = fixture(name);
        let [exact, fast] = [Decode::Exact, Decode::Fast].map(|decode| load(&bytes, &pre(12, decode), &[View::Center]));
        assert_eq!(fast.unwrap(), exact.unwrap(), "{name}");
    }
}

#[test]
fn every_kind_of_jpeg_is_nearly_what_it_is_when_decoded_whole() {
    for name in jpegs() {
        let bytes = fixture(&name);
        for side in [4, 2, 1] {
            let [exact, fast] =
                [Decode::Exact, Decode::Fast].map(|decode| load(&bytes, &pre(side, decode), &[View::Center]).unwrap());
            let difference = mean_difference(&exact[0], &fast[0]);
            assert!(difference < 16.0, "{name} at {side}: {difference}");
            let (mut one, mut other) = (vec![0; (side * side * 3) as usize], vec![0; (side * side * 3) as usize]);
            let sizes = [(Decode::Exact, &mut one), (Decode::Fast, &mut other)]
                .map(|(decode, out)| load_into(&bytes, &pre(side, decode), out).unwrap().original_size);
            assert_eq!(sizes[0], sizes[1], "{name}: the size is that of the whole picture");
        }
    }
}

#[test]
fn a_view_is_the_same_whatever_is_made_beside_it() {
    let bytes = fixture("exif6.jpg");
    let tile = View::Tile { row: 1, column: 0, rows: 2, columns: 2 };
    let views = [tile, View::Center, View::Whole, View::Hflip];
    let pre = pre(2, Decode::Fast);
    let together = load(&bytes, &pre, &views).unwrap();
    for (view, together) in views.iter().zip(&together) {
        assert_eq!(&load(&bytes, &pre, &[*view]).unwrap()[0], together, "{view}");
    }
    let mut out = vec![0; 12];
    let ((height, width), pixels) =
        load_views(&bytes, &pre, &mut [(View::Center, &mut out)], Some(|picture: &Picture<'_>| picture.pixels().len()))
            .unwrap();
    assert_eq!(pixels, Some((height * width * 3) as usize), "whoever looks at the picture gets all of it");
    assert_eq!(out, together[1]);
}

/// The decoder of reduced sizes forgives missing data; icecap does not.
#[test]
fn a_jpeg_cut_short_is_missing_even_with_its_end_put_back() {
    for name in ["baseline.jpg", "420.jpg", "grey.jpg", "restart.jpg"] {
        let whole = fixture(name);
        let data = whole.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap() + 14;
        assert!(load(&whole, &pre(4, Decode::Fast), &[View::Center]).is_ok(), "{name}");
        for kept in [data, data + (whole.len() - data) / 3, whole.len() - (whole.len() - data) / 3] {
            let cut = [&whole[..kept], &[0xff, 0xd9]].concat();
            let [exact, fast] =
                [Decode::Exact, Decode::Fast].map(|decode| load(&cut, &pre(4, decode), &[View::Center]));
            let [exact, fast] = [exact, fast].map(|result| result.map(drop).map_err(|error| error.reason()));
            assert_eq!(fast, exact, "{name} cut at {kept} of {}", whole.len());
            assert!(fast.is_err(), "{name} cut at {kept} of {}", whole.len());
        }
    }
}

/// Large photographs, made here of the real ones: how far fast rows are from exact ones, as an encoder would see them.
#[test]
fn real_photographs_keep_their_pixels() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/flickr8k/originals");
    let Ok(entries) = fs::read_dir(&folder) else {
        eprintln!("skipped: {} is absent", folder.display());
        return;
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut worst = 0.0f64;
    for file in files.iter().step_by(files.len() / 24) {
        let bytes = fs::read(file).unwrap();
        for side in [80, 40] {
            let [exact, fast] =
                [Decode::Exact, Decode::Fast].map(|decode| load(&bytes, &pre(side, decode), &[View::Center]).unwrap());
            worst = worst.max(mean_difference(&exact[0], &fast[0]));
        }
    }
    eprintln!("fast pictures are {worst:.2} of 255 from exact ones in the mean, at most");
    assert!(worst < 6.0, "{worst}");
}
