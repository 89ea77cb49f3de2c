//! Pillow beside icecap, on real photographs: needs `../shared/data` and a `.venv` with torchvision, else it says so.

use super::*;
use std::path::PathBuf;
use std::process::Command;

/// For each filter, writes `[images, 224, 224, 3]` of the files on the command line after torchvision's `Resize(256)` and
/// `CenterCrop(224)`; and each picture as Pillow decodes it, as PNG.
const SCRIPT: &str = r#"
import sys
import numpy as np
from PIL import Image, ImageOps
from torchvision import transforms as T
out, *files = sys.argv[1:]
for number, name in enumerate(files):
    image = ImageOps.exif_transpose(Image.open(name)).convert("RGB")
    image.save(f"{out}/{number}.png", compress_level=1)
    for mode in ["bilinear", "bicubic", "lanczos"]:
        pre = T.Compose([T.Resize(256, interpolation=T.InterpolationMode(mode), antialias=True), T.CenterCrop(224)])
        with open(f"{out}/{mode}", "ab") as reference:
            reference.write(np.asarray(pre(image)).tobytes())
"#;

/// The views of each picture in turn, as torchvision and Pillow make them: the mirror, `FiveCrop`, 2x3 tiles and the whole.
const VIEWS: &str = r#"
import sys
import numpy as np
from PIL import Image
from torchvision import transforms as T
out, *files = sys.argv[1:]
resize = T.Resize(256, antialias=True)
# In two steps: which of the passes Pillow makes first depends on its version, and the rounding between them on that.
across = lambda image: image.resize((224, image.size[1]), Image.Resampling.BILINEAR)
squeeze = lambda image: across(image).resize((224, 224), Image.Resampling.BILINEAR)
with open(f"{out}/views", "wb") as reference:
    for name in files:
        image = Image.open(name)
        wide, tall = image.size
        views = [T.functional.hflip(T.CenterCrop(224)(resize(image))), *T.FiveCrop(224)(resize(image))]
        for r in range(2):
            for c in range(3):
                views.append(squeeze(image.crop((c * wide // 3, r * tall // 2, (c + 1) * wide // 3, (r + 1) * tall // 2))))
        for view in [*views, squeeze(image)]:
            reference.write(np.asarray(view).tobytes())
"#;

const SIDE: usize = 224;
const IMAGES: usize = 8;

/// Paths of some photographs and of Python, or `None` with a line that says what is missing.
fn prerequisites() -> Option<(Vec<PathBuf>, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (folder, python) = (root.join("../shared/data/flickr8k/originals"), root.join(".venv/bin/python"));
    if !python.exists() {
        eprintln!("skipped: no Python at {}", python.display());
        return None;
    }
    let Ok(entries) = fs::read_dir(&folder) else {
        eprintln!("skipped: no photographs at {}", folder.display());
        return None;
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let step = files.len() / IMAGES;
    Some((files.into_iter().step_by(step.max(1)).take(IMAGES).collect(), python))
}

/// The largest difference and the mean one, of icecap's pictures from Pillow's.
fn difference(files: &[PathBuf], pre: &Preprocess, reference: &[u8]) -> (u8, f64) {
    let mut out = vec![0; SIDE * SIDE * 3];
    let (mut largest, mut sum) = (0, 0u64);
    for (file, expected) in files.iter().zip(reference.chunks_exact(SIDE * SIDE * 3)) {
        load_into(&fs::read(file).unwrap(), pre, &mut out).unwrap();
        for (a, b) in out.iter().zip(expected) {
            largest = largest.max(a.abs_diff(*b));
            sum += u64::from(a.abs_diff(*b));
        }
    }
    (largest, sum as f64 / reference.len() as f64)
}

#[test]
fn real_photographs_are_what_torchvision_makes_of_them() {
    let Some((files, python)) = prerequisites() else { return };
    let folder = tempfile::tempdir().unwrap();
    let run = Command::new(&python).args(["-c", SCRIPT]).arg(folder.path()).args(&files).output().unwrap();
    if !run.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&run.stderr));
        return;
    }
    let lossless: Vec<_> = (0..files.len()).map(|number| folder.path().join(format!("{number}.png"))).collect();
    for (interpolation, mode) in [
        (Interpolation::Bilinear, "bilinear"),
        (Interpolation::Bicubic, "bicubic"),
        (Interpolation::Lanczos, "lanczos"),
    ] {
        let reference = fs::read(folder.path().join(mode)).unwrap();
        assert_eq!(reference.len(), files.len() * SIDE * SIDE * 3);
        let pre = Preprocess { interpolation, ..Preprocess::default() };
        assert_eq!(difference(&lossless, &pre, &reference), (0, 0.0), "{mode}: resizing is equal to the bit");
        let (largest, mean) = difference(&files, &pre, &reference);
        eprintln!("{mode}: JPEGs differ by at most {largest}, {mean:.3} in the mean");
        assert!(largest <= 6 && mean < 0.3, "{mode}: {largest}, {mean}");
    }
}

#[test]
fn the_views_of_real_photographs_are_torchvisions_to_the_bit() {
    let Some((files, python)) = prerequisites() else { return };
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> =
        files.iter().enumerate().map(|(number, file)| lossless(file, folder.path(), number)).collect();
    let run = Command::new(&python).args(["-c", VIEWS]).arg(folder.path()).args(&files).output().unwrap();
    if !run.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&run.stderr));
        return;
    }
    let tiles: Tiles = "2x3+1".parse().unwrap();
    let views = [resolve_views(&[ViewSpec::Hflip, ViewSpec::FiveCrop], 0), tiles.resolve()].concat();
    let reference = fs::read(folder.path().join("views")).unwrap();
    let picture = SIDE * SIDE * 3;
    assert_eq!(reference.len(), files.len() * views.len() * picture);
    let mut out = vec![0; picture];
    for (file, expected) in files.iter().zip(reference.chunks_exact(views.len() * picture)) {
        let pre = Preprocess::default();
        with_picture(&fs::read(file).unwrap(), pre.max_pixels, |image| {
            for (view, expected) in views.iter().zip(expected.chunks_exact(picture)) {
                image.view(&pre, *view, &mut out)?;
                assert!(out == expected, "{view} of {}", file.display());
            }
            Ok(())
        })
        .unwrap();
    }
}

/// The picture in `file` as we decode it, in a form that both sides read alike.
fn lossless(file: &Path, folder: &Path, number: usize) -> PathBuf {
    let image = decode(&fs::read(file).unwrap(), PLENTY).unwrap();
    let path = folder.join(format!("{number}.bmp"));
    fs::write(&path, bmp(&image)).unwrap();
    path
}

/// A BMP of 24 bits: rows from the bottom, blue first, padded to four bytes.
fn bmp(image: &RgbImage) -> Vec<u8> {
    let (row, stride) = (image.width as usize * 3, (image.width as usize * 3).next_multiple_of(4));
    let size = (54 + stride * image.height as usize) as u32;
    let mut bytes = b"BM".to_vec();
    let words = [size, 0, 54, 40, image.width, image.height, 1 | 24 << 16, 0, size - 54, 2835, 2835, 0, 0];
    bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    for pixels in image.pixels.chunks_exact(row).rev() {
        bytes.extend(pixels.as_chunks::<3>().0.iter().flat_map(|[r, g, b]| [*b, *g, *r]));
        bytes.resize(bytes.len() + stride - row, 0);
    }
    bytes
}
