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
