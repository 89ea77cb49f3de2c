//! Every format, pixel format and malformation, from the fixtures in `tests/fixtures/image`.

use super::*;
use icecap_cache::Reason;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

mod fast;
mod parity;

const PLENTY: u64 = 1 << 24;

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/image").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn reason(bytes: &[u8]) -> Reason {
    decode(bytes, PLENTY).expect_err("it should not decode").reason()
}

/// How far one channel may be from Pillow's: decoders of lossy formats differ in their rounding.
fn tolerance(name: &str) -> u8 {
    match name.rsplit_once('.').unwrap().1 {
        // Chroma is upsampled by slightly different filters.
        "jpg" if name.starts_with("42") => 6,
        "jpg" => 4,
        "webp" if name.starts_with("lossy") => 4,
        _ => 0,
    }
}

#[test]
fn every_kind_of_picture_is_what_pillow_makes_of_it() {
    type Spot = [u8; 5];
    let expected: BTreeMap<String, (u32, u32, Spot, Spot, Spot)> =
        serde_json::from_slice(&fixture("expected.json")).unwrap();
    assert!(expected.len() > 30);
    let mut wrong = Vec::new();
    for (name, (width, height, a, b, c)) in expected {
        let image = decode(&fixture(&name), PLENTY).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!((image.width, image.height), (width, height), "{name}");
        assert_eq!(image.pixels.len(), (width * height * 3) as usize, "{name}");
        for [x, y, rgb @ ..] in [a, b, c] {
            let found = &image.pixels[(usize::from(y) * width as usize + usize::from(x)) * 3..][..3];
            let worst = rgb.iter().zip(found).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            if worst > tolerance(&name) {
                wrong.push(format!("{name} at {x},{y}: {found:?}, Pillow {rgb:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn orientations_of_one_jpeg_are_turns_of_each_other() {
    let stored = decode(&fixture("exif1.jpg"), PLENTY).unwrap();
    let (w, h) = (stored.width as usize, stored.height as usize);
    let at = |image: &RgbImage, x: usize, y: usize| image.pixels[(y * image.width as usize + x) * 3..][..3].to_vec();
    for orientation in 1..=8 {
        let turned = decode(&fixture(&format!("exif{orientation}.jpg")), PLENTY).unwrap();
        for (x, y) in [(0, 0), (5, 3), (w - 1, 2), (7, h - 1)] {
            let (to_x, to_y) = match orientation {
                1 => (x, y),
                2 => (w - 1 - x, y),
                3 => (w - 1 - x, h - 1 - y),
                4 => (x, h - 1 - y),
                5 => (y, x),
                6 => (h - 1 - y, x),
                7 => (h - 1 - y, w - 1 - x),
                _ => (y, w - 1 - x),
            };
            assert_eq!(at(&turned, to_x, to_y), at(&stored, x, y), "orientation {orientation}");
        }
    }
}

#[test]
fn what_is_no_image_is_told_apart() {
    insta::assert_snapshot!(decode(b"", 1).unwrap_err(), @"the file is empty (`0` bytes)");
    insta::assert_snapshot!(decode(b"<!DOCTYPE html>\n<html>", 1).unwrap_err(), @r"not an image: it begins with `<!DOCTYPE html>\n`");
    insta::assert_snapshot!(decode(b"II*\0\x08\0\0\0", 1).unwrap_err(), @r"
    unsupported image: `tiff`
    hint: JPEG, PNG, WebP, GIF and BMP are read; convert the picture to one of them
    ");
    assert_eq!(reason(b""), Reason::Empty);
    assert_eq!(reason(b"hello"), Reason::NotAnImage);
    assert_eq!(reason(b"II*\0\x08\0\0\0"), Reason::Unsupported);
    assert_eq!(reason(b"\0\0\0\x18ftypheic\0\0\0\0"), Reason::Unsupported);
}

#[test]
fn a_cut_picture_is_truncated_wherever_it_is_cut() {
    for name in ["baseline.jpg", "420.jpg", "progressive.jpg", "restart.jpg", "grey.jpg", "cmyk.jpg", "rgb.jpg"] {
        let bytes = fixture(name);
        for end in 3..bytes.len() {
            assert_eq!(reason(&bytes[..end]), Reason::Truncated, "{name} cut to {end} of {}", bytes.len());
        }
    }
    for name in ["rgb.png", "palette.png", "lossless.webp", "lossy.webp", "plain.gif", "plain.bmp"] {
        let bytes = fixture(name);
        for tenth in 2..10 {
            let end = bytes.len() * tenth / 10;
            assert_eq!(reason(&bytes[..end]), Reason::Truncated, "{name} cut to {end} of {}", bytes.len());
        }
    }
    insta::assert_snapshot!(
        decode(&fixture("baseline.jpg")[..700], PLENTY).unwrap_err(),
        @"the JPEG is truncated: its data ends after `700` bytes, before the picture is complete"
    );
}

#[test]
fn a_jpeg_that_ends_too_early_is_truncated() {
    for name in ["baseline.jpg", "420.jpg", "restart.jpg", "grey.jpg", "cmyk.jpg"] {
        let bytes = fixture(name);
        let scan = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap() + 20;
        let half = (scan + bytes.len()) / 2;
        let ended = [&bytes[..half], &[0xff, 0xd9]].concat();
        assert!(matches!(reason(&ended), Reason::Truncated | Reason::Unreadable), "{name}");
    }
}

#[test]
fn bytes_behind_the_picture_do_not_matter() {
    for name in ["baseline.jpg", "progressive.jpg", "rgb.png", "plain.gif", "plain.bmp"] {
        let bytes = fixture(name);
        let longer = [&bytes[..], &[0; 100], b"appended", &[0xff, 0xd8, 0xff]].concat();
        assert_eq!(decode(&longer, PLENTY).unwrap(), decode(&bytes, PLENTY).unwrap(), "{name}");
    }
}

#[test]
fn a_bomb_is_refused_from_its_header() {
    for name in ["baseline.jpg", "progressive.jpg", "rgb.png", "lossless.webp", "lossy.webp", "plain.gif", "plain.bmp"]
    {
        let error = decode(&fixture(name), 24 * 16 - 1).unwrap_err();
        assert!(matches!(error, ImageError::TooLarge { width: 24, height: 16, .. }), "{name}: {error}");
        assert!(decode(&fixture(name), 24 * 16).is_ok(), "{name}");
    }
    let mut bomb = fixture("baseline.jpg");
    let frame = bomb.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    bomb[frame + 5..frame + 9].fill(0xff);
    insta::assert_snapshot!(decode(&bomb, 100_000_000).unwrap_err(), @r"
    the picture is too large: `65535x65535` pixels, the limit is `100000000` in all
    hint: raise `max_pixels` if such pictures are meant to be read
    ");
    assert_eq!(reason(&bomb), Reason::TooLarge);
}

#[test]
fn unsupported_jpegs_are_named() {
    let with_frame = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = fixture("baseline.jpg");
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        change(&mut bytes[frame..]);
        decode(&bytes, PLENTY).unwrap_err()
    };
    insta::assert_snapshot!(with_frame(&|frame| frame[4] = 12), @r"
    unsupported image: `JPEG of 12 bits a sample`
    hint: JPEG, PNG, WebP, GIF and BMP are read; convert the picture to one of them
    ");
    assert!(with_frame(&|frame| frame[1] = 0xc9).to_string().contains("arithmetic"));
    assert!(with_frame(&|frame| frame[1] = 0xc3).to_string().contains("lossless"));
    assert!(with_frame(&|frame| frame[9] = 2).to_string().contains("2 components"));
}

#[test]
fn damage_is_an_error_with_its_cause() {
    let mut bytes = fixture("rgb.png");
    let data = bytes.windows(4).position(|name| name == b"IDAT").unwrap();
    bytes[data + 8] ^= 0x55;
    let error = decode(&bytes, PLENTY).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.reason()), ("the PNG is damaged", Reason::Unreadable));
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn load_into_writes_the_whole_output() {
    let pre = Preprocess { resize: Resize::Shorter(8), crop: Some([8, 10]), ..Preprocess::default() };
    let mut out = vec![0; 8 * 10 * 3];
    let decoded = load_into(&fixture("exif6.jpg"), &pre, &mut out).unwrap();
    assert_eq!(decoded.original_size, (24, 16), "upright: 24 high");
    // 16 wide becomes 8; the crop of 10 pads one black column on each side.
    for row in out.chunks_exact(30) {
        assert_eq!((&row[..3], &row[27..]), (&[0; 3][..], &[0; 3][..]));
        assert!(row[3..27].iter().any(|&value| value > 0));
    }
    insta::assert_snapshot!(load_into(b"", &pre, &mut [0; 3]).unwrap_err(), @"the buffer for a picture holds `3` bytes, `240` are needed");
}

#[test]
fn a_picture_does_not_depend_on_the_one_before() {
    let names = ["baseline.jpg", "cmyk.jpg", "rgba.png", "exif6.jpg", "grey.jpg", "lossy.webp", "plain.gif"];
    let pre = Preprocess { resize: Resize::Shorter(12), crop: Some([20, 14]), ..Preprocess::default() };
    let load = |name: &str| {
        let mut out = vec![0; 20 * 14 * 3];
        load_into(&fixture(name), &pre, &mut out).map(|_| out)
    };
    let fresh = names.map(|name| std::thread::scope(|scope| scope.spawn(|| load(name).unwrap()).join().unwrap()));
    for _ in 0..2 {
        for (name, fresh) in names.iter().zip(&fresh) {
            let _ = decode(&fixture("baseline.jpg")[..600], PLENTY);
            assert_eq!(load(name).unwrap(), *fresh, "{name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(start in 0usize..6, bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let magic: [&[u8]; 6] = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF\x40\0\0\0WEBPVP8 "];
        let _ = decode(&[magic[start], &bytes].concat(), 1 << 16);
    }

    #[test]
    fn mutated_pictures_never_panic(
        which in 0usize..10, changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let names = ["baseline.jpg", "420.jpg", "progressive.jpg", "restart.jpg", "cmyk.jpg", "exif6.jpg", "rgb.png", "lossy.webp", "lossless.webp", "animated.gif"];
        let mut bytes = fixture(names[which]);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(image) = decode(&bytes, 1 << 20) {
            prop_assert_eq!(image.pixels.len(), image.width as usize * image.height as usize * 3);
        }
    }
}
