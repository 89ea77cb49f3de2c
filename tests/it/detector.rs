//! The detectors against torchvision, on the tiny Faster R-CNN of tests/fixtures/detector. They need ONNX Runtime (`make setup`), and
//! are no unit tests because those of finding the library ask that none be loaded.

use std::path::PathBuf;

use icecap::{
    detector::{Box4, Detector, DetectorError, DetectorPlan, Found, Kind, Look, Picture, Policy, Wanted},
    encoder::{Device, Pool, init_runtime},
};
use serde_json::json;

use crate::support::fixture;

/// A detection: class, score, box.
type Expected = (i32, f32, Box4);

fn plan(policy: Policy) -> DetectorPlan {
    let path: PathBuf = fixture("detector/tiny.onnx");
    DetectorPlan { kind: Kind::FasterRcnn, path, size: Some(64), max_size: Some(80), policy, batch: 4 }
}

/// torchvision's own.
const POLICY: Policy = Policy { max: 100, min: 0, score: 0.05, nms: 0.5 };

/// The pictures of make.py: shaded blocks of 8 pixels.
fn blocks((height, width): (u32, u32)) -> Vec<u8> {
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
    let block =
        |y: u32, x: u32, c: u32| ((y / 8 * 131 + x / 8 * 17 + c * 7 + 1).wrapping_mul(2_654_435_761) >> 21) % 128;
    let value = |y: u32, x: u32, c: u32| (block(y, x, c) + (3 * x * x + 5 * y * y + x * y) % 128) as u8;
    places.flat_map(|(y, x)| [0, 1, 2].map(|c| value(y, x, c))).collect()
}

const SIZES: [(u32, u32); 3] = [(50, 70), (60, 40), (64, 64)];

fn open(policy: Policy, wanted: Wanted) -> Detector {
    init_runtime(None).unwrap();
    Detector::open(plan(policy), wanted).unwrap()
}

fn detect(detector: &Detector, sizes: &[(u32, u32)]) -> Vec<Found> {
    let pictures: Vec<Vec<u8>> = sizes.iter().map(|&size| blocks(size)).collect();
    let looks: Vec<Look> =
        sizes.iter().zip(&pictures).map(|(&size, pixels)| detector.look(Picture { size, pixels })).collect();
    let mut session = detector.session(Device::Cpu, 1).unwrap();
    session.detect(&looks.iter().collect::<Vec<_>>()).unwrap()
}

fn regions() -> Wanted {
    Wanted { regions: true, levels: Vec::new() }
}

#[test]
fn a_batch_of_all_sizes_has_torchvisions_detections() {
    let expected: [Vec<Expected>; 3] = include!("../fixtures/detector/tiny.txt");
    let detector = open(POLICY, regions());
    assert_eq!((detector.feature_width(), detector.channels()), (Some(6), Some(4)));
    for (found, expected) in detect(&detector, &SIZES).iter().zip(expected) {
        assert_eq!(found.regions.count(), 100);
        assert_eq!(found.features.len(), 100 * 6);
        for (at, (label, score, bbox)) in expected.iter().enumerate() {
            assert_eq!(found.regions.labels[at], *label, "{at}");
            assert!((found.regions.scores[at] - score).abs() < 1e-5, "{at}");
            let apart = found.regions.boxes[at].iter().zip(bbox).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 1e-3, "{at}: {:?} {bbox:?}", found.regions.boxes[at]);
        }
    }
}

#[test]
fn a_picture_has_the_same_regions_alone_and_among_others() {
    let wanted = Wanted { regions: true, levels: vec![(0, Pool::Global), (4, Pool::Grid(2))] };
    let detector = open(POLICY, wanted);
    let all = detect(&detector, &[SIZES[0], SIZES[1], SIZES[2], SIZES[0]]);
    for (at, size) in SIZES.iter().enumerate() {
        let alone = detect(&detector, &[*size]).remove(0);
        assert_eq!(all[at].regions, alone.regions);
        assert_eq!((alone.levels[0].len(), alone.levels[1].len()), (4, 16));
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(&all[at].features, &alone.features) && close(&all[at].levels[0], &alone.levels[0]));
    }
    assert_eq!(all[0].regions, all[3].regions, "two of one size share a batch");
}

#[test]
fn where_nothing_is_found_the_whole_picture_is_the_region() {
    let none = open(Policy { score: 1.0, ..POLICY }, regions());
    let found = detect(&none, &SIZES[..1]).remove(0);
    assert_eq!((found.regions.boxes.as_slice(), found.regions.labels[0]), ([[0.0, 0.0, 70.0, 50.0]].as_slice(), -1));
    assert!(found.features.len() == 6 && found.features.iter().all(|value| value.is_finite()));
    let few = open(Policy { score: 1.0, min: 3, ..POLICY }, regions());
    let all = open(POLICY, regions());
    let (few, all) = (detect(&few, &SIZES[..1]).remove(0), detect(&all, &SIZES[..1]).remove(0));
    assert_eq!(few.regions.boxes, all.regions.boxes[..3], "the best three, below the score as they are");
    assert_eq!(few.features, all.features[..18]);
}

#[test]
fn other_networks_are_told_apart() {
    init_runtime(None).unwrap();
    let error = |kind| {
        let path = fixture("encoder/tiny.onnx");
        let other = DetectorPlan { kind, path, size: Some(64), ..plan(POLICY) };
        match Detector::open(other, regions()).err() {
            Some(error) => error,
            None => panic!("tiny.onnx detects nothing"),
        }
    };
    assert!(matches!(error(Kind::FasterRcnn), DetectorError::NotFasterRcnn { tensor, .. } if tensor == "fpn.0"));
    assert!(matches!(error(Kind::Yolox), DetectorError::NotYolox { .. } | DetectorError::Network(_)));
}

#[test]
fn the_key_follows_network_size_and_policy() {
    let detector = open(POLICY, regions());
    let fields = detector.key_fields();
    let value = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone()).unwrap();
    assert_eq!(value("detector.kind"), json!("fasterrcnn"));
    assert_eq!(value("detector.size"), json!([64, 80]));
    assert_eq!(value("detector.model").as_str().map(str::len), Some(64));
    let larger = Detector::open(DetectorPlan { size: Some(128), max_size: None, ..plan(POLICY) }, regions()).unwrap();
    let size = larger.key_fields().into_iter().find(|(field, _)| field == "detector.size").unwrap().1;
    assert_eq!(size, json!([128, 213]), "torchvision's proportion");
}
