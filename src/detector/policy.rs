//! Which of a detector's candidates become a picture's regions.
//!
//! Must not know networks. The decision defended: a picture always has a region. Where nothing passes the score, the best `min` are kept
//! all the same; where there is no candidate at all, the whole picture is the one region, with the score 0 and the label -1. A decoder
//! then always has something to attend to, no row is all zeros, and what happened can be read in the row.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::boxes::{Box4, batched_nms, is_large};

/// The label of the whole picture where it stands in for regions.
pub const NO_LABEL: i32 = -1;

/// Candidates looked at when the score lets too few pass.
const SECOND_LOOK: usize = 1000;

/// How many regions a picture gets, and how good they must be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Regions a picture at most: `K`, the vectors of a row.
    pub max: usize,
    /// Regions kept although their score is too low.
    pub min: usize,
    /// A region's score must be above this.
    pub score: f32,
    /// Of two regions of one class that overlap more than this (intersection over union), the better stays.
    pub nms: f32,
}

impl Policy {
    /// Everything here that decides a column's bytes.
    #[must_use]
    pub fn key_fields(&self, prefix: &str) -> Vec<(String, Value)> {
        let decimal = |value: f32| value.to_string().parse::<f64>().map_or(Value::Null, |value| json!(value));
        vec![
            (format!("{prefix}.max"), json!(self.max)),
            (format!("{prefix}.min"), json!(self.min)),
            (format!("{prefix}.score"), decimal(self.score)),
            (format!("{prefix}.nms"), decimal(self.nms)),
        ]
    }

    /// The regions among `candidates`: at most `max`, the best first.
    ///
    /// Candidates with a side below `least_side` are no regions.
    #[must_use]
    pub fn choose(&self, candidates: &[Candidate], least_side: f32) -> Vec<Candidate> {
        let fits = |candidate: &&Candidate| is_large(candidate.bbox, least_side);
        let above = candidates.iter().filter(|candidate| candidate.score > self.score).filter(fits).copied();
        let mut kept = self.suppress(&above.collect::<Vec<_>>());
        if kept.len() < self.min {
            let mut best: Vec<Candidate> =
                candidates.iter().filter(fits).filter(|candidate| candidate.score > 0.0).copied().collect();
            best.sort_by(|a, b| b.score.total_cmp(&a.score));
            best.truncate(SECOND_LOOK);
            kept = self.suppress(&best);
            kept.truncate(self.min);
        }
        kept.truncate(self.max);
        kept
    }

    fn suppress(&self, candidates: &[Candidate]) -> Vec<Candidate> {
        let boxes: Vec<Box4> = candidates.iter().map(|candidate| candidate.bbox).collect();
        let scores: Vec<f32> = candidates.iter().map(|candidate| candidate.score).collect();
        let labels: Vec<u32> = candidates.iter().map(|candidate| candidate.label as u32).collect();
        batched_nms(&boxes, &scores, &labels, shortest(self.nms)).into_iter().map(|index| candidates[index]).collect()
    }
}

/// 0.7 and not the 0.699999988 that an f32 makes of it: a threshold is compared as the decimal that was written.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

/// A box that may become a region.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Where it is.
    pub bbox: Box4,
    /// How sure the detector is.
    pub score: f32,
    /// Its class.
    pub label: i32,
    /// What it came from: an index into whatever the detector keeps.
    pub source: usize,
}

/// The regions of one picture, in pixels of the original: `count` of each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Regions {
    /// The boxes.
    pub boxes: Vec<Box4>,
    /// Their scores.
    pub scores: Vec<f32>,
    /// Their classes, as the detector numbers them.
    pub labels: Vec<i32>,
}

impl Regions {
    /// The regions `chosen`, or the whole picture of `(height, width)` where none was.
    #[must_use]
    pub fn of(chosen: &[Candidate], size: (u32, u32)) -> Self {
        if chosen.is_empty() {
            return Self::whole(size);
        }
        Self {
            boxes: chosen.iter().map(|candidate| candidate.bbox).collect(),
            scores: chosen.iter().map(|candidate| candidate.score).collect(),
            labels: chosen.iter().map(|candidate| candidate.label).collect(),
        }
    }

    /// The whole picture as its one region.
    #[must_use]
    pub fn whole((height, width): (u32, u32)) -> Self {
        Self { boxes: vec![[0.0, 0.0, width as f32, height as f32]], scores: vec![0.0], labels: vec![NO_LABEL] }
    }

    /// How many there are; never 0 for a picture.
    #[must_use]
    pub fn count(&self) -> usize {
        self.boxes.len()
    }

    /// Whether there are none: only before a picture was looked at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.boxes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { max: 2, min: 1, score: 0.5, nms: 0.5 };

    fn candidate(x: f32, score: f32, label: i32) -> Candidate {
        Candidate { bbox: [x, 0.0, x + 10.0, 10.0], score, label, source: 0 }
    }

    #[test]
    fn the_best_above_the_score_are_kept_up_to_max() {
        let all = [candidate(0.0, 0.6, 1), candidate(50.0, 0.9, 1), candidate(100.0, 0.7, 1), candidate(1.0, 0.55, 1)];
        let scores: Vec<f32> = POLICY.choose(&all, 1.0).iter().map(|candidate| candidate.score).collect();
        assert_eq!(scores, [0.9, 0.7]);
        let roomy = Policy { max: 9, ..POLICY };
        assert_eq!(roomy.choose(&all, 1.0).len(), 3, "the fourth lies on the first");
        assert_eq!(roomy.choose(&all[..1], 11.0).len(), 0, "too small");
    }

    #[test]
    fn below_the_score_the_best_min_are_kept() {
        let all = [candidate(0.0, 0.1, 1), candidate(50.0, 0.3, 2), candidate(51.0, 0.2, 2), candidate(90.0, 0.0, 1)];
        let min = |min| {
            let policy = Policy { min, max: 9, ..POLICY };
            policy.choose(&all, 1.0).iter().map(|candidate| candidate.score).collect::<Vec<_>>()
        };
        assert_eq!(min(1), [0.3]);
        assert_eq!(min(5), [0.3, 0.1], "one lies on a better one, and a score of zero is none");
        assert!(min(0).is_empty());
    }

    #[test]
    fn a_score_of_nan_is_no_candidate() {
        let policy = Policy { min: 5, ..POLICY };
        assert!(policy.choose(&[candidate(0.0, f32::NAN, 1)], 1.0).is_empty());
    }

    #[test]
    fn a_picture_without_candidates_is_one_region() {
        let regions = Regions::of(&[], (480, 640));
        assert_eq!((regions.boxes[0], regions.scores[0], regions.labels[0]), ([0.0, 0.0, 640.0, 480.0], 0.0, -1));
        assert_eq!(regions.count(), 1);
    }

    #[test]
    fn the_key_has_the_decimals_as_written() {
        let fields = Policy { nms: 0.7, ..POLICY }.key_fields("detector");
        assert_eq!(fields[3], ("detector.nms".to_owned(), json!(0.7)));
    }
}
