//! The data in `../shared`, where it is.

use super::*;
use std::collections::HashSet;

/// The shared data, or `None` with a line that says so.
fn shared() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: no shared data at {}", path.display());
    None
}

#[test]
fn flickr8k_is_whole() {
    let Some(data) = shared() else { return };
    let spec = "format = 'flickr8k'\nimages = 'flickr8k/images'\ncaptions = 'flickr8k/Flickr8k.token.txt'\n\
                train = 'flickr8k/Flickr_8k.trainImages.txt'\nval = 'flickr8k/Flickr_8k.devImages.txt'";
    let dataset = load(&toml::from_str(spec).unwrap(), &data).unwrap();
    assert_eq!(dataset.split("train").count(), 6000);
    assert_eq!(dataset.split("val").count(), 1000);
    assert_eq!(dataset.items.len(), 7000);
    assert!(dataset.items.iter().all(|item| item.captions.len() == 5));
    assert!(dataset.items.iter().all(|item| !item.source.read().unwrap().is_empty()));
    assert_eq!(dataset.notes, [] as [&str; 0]);
}

#[test]
fn coco_mini_has_its_captions() {
    let Some(data) = shared() else { return };
    let spec =
        "format = 'coco'\ntrain = { captions = 'coco_mini/captions_train2017.json', images = 'coco_mini/train2017' }";
    let dataset = load(&toml::from_str(spec).unwrap(), &data).unwrap();
    assert_eq!((dataset.items.len(), dataset.notes.len()), (80, 0));
    assert!(dataset.items.iter().all(|item| item.captions.len() >= 5 && item.id.parse::<u64>().is_ok()));
}

#[test]
fn captions_without_their_images_are_listed() {
    let Some(data) = shared() else { return };
    let spec = "format = 'coco'\nval = { captions = 'captions/captions_val2017.json', images = 'coco_mini/train2017' }";
    let dataset = load(&toml::from_str(spec).unwrap(), &data).unwrap();
    assert_eq!(dataset.items.len(), 5000);
    assert_eq!(dataset.items.iter().map(|item| item.captions.len()).sum::<usize>(), 25_014);
    assert_eq!(dataset.items.iter().map(|item| &item.id).collect::<HashSet<_>>().len(), 5000);
    assert!(
        dataset.notes[0].starts_with("5000 images named in `captions/captions_val2017.json`"),
        "{:?}",
        dataset.notes
    );
    assert!(dataset.notes[0].ends_with("and 4990 more"));
}
