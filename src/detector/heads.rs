//! The box head's numbers as candidates: torchvision's `RoIHeads.postprocess_detections`, up to the choice among them.
//!
//! Must not know ONNX Runtime. Class 0 is the background; each other class of each proposal is a candidate of its own, with the box
//! that the network makes of the proposal for that class.

use super::{
    anchors,
    boxes::{Box4, clip},
    policy::Candidate,
};

/// What the box deltas are divided by.
const WEIGHTS: [f32; 4] = [10.0, 10.0, 5.0, 5.0];

/// Sides of a detection, in pixels of the input.
pub const LEAST_SIDE: f32 = 1e-2;

/// What the network says of one proposal.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// Where it is.
    pub proposal: Box4,
    /// `[classes]`
    pub logits: &'a [f32],
    /// `[classes * 4]`
    pub deltas: &'a [f32],
}

/// The candidates of a picture of `size`, clipped to it, whose score is above `least`; `source` is the proposal's number.
#[must_use]
pub fn candidates<'a>(said: impl Iterator<Item = Said<'a>>, size: (u32, u32), least: f32) -> Vec<Candidate> {
    let mut found = Vec::new();
    let mut scores = Vec::new();
    for (source, said) in said.enumerate() {
        softmax(said.logits, &mut scores);
        let above = scores.iter().enumerate().skip(1).filter(|(_, score)| **score > least);
        found.extend(above.map(|(class, &score)| {
            let deltas = std::array::from_fn(|i| said.deltas[4 * class + i]);
            let bbox = clip(anchors::decode(said.proposal, deltas, WEIGHTS), size);
            Candidate { bbox, score, label: class as i32, source }
        }));
    }
    found
}

fn softmax(logits: &[f32], out: &mut Vec<f32>) {
    let most = logits.iter().fold(f32::NEG_INFINITY, |most, &value| most.max(value));
    out.clear();
    out.extend(logits.iter().map(|value| (value - most).exp()));
    let sum: f32 = out.iter().sum();
    out.iter_mut().for_each(|value| *value /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_but_the_background_is_a_candidate() {
        let logits = [1.0f32, 2.0, 3.0];
        let mut deltas = [0.0; 12];
        deltas[8] = 10.0; // dx of class 2: one width to the right
        let said = Said { proposal: [0.0, 0.0, 10.0, 10.0], logits: &logits, deltas: &deltas };
        let found = candidates([said, said].into_iter(), (20, 15), 0.0);
        let seen: Vec<_> = found.iter().map(|c| (c.label, c.source, c.bbox)).collect();
        let right = [10.0, 0.0, 15.0, 10.0];
        assert_eq!(seen[..2], [(1, 0, said.proposal), (2, 0, right)]);
        assert_eq!(seen[2..], [(1, 1, said.proposal), (2, 1, right)]);
        // torch.softmax(torch.tensor([1., 2., 3.]), 0)
        assert!((found[0].score - 0.244_728_47).abs() < 1e-6 && (found[1].score - 0.665_240_94).abs() < 1e-6);
        assert_eq!(candidates([said].into_iter(), (20, 15), 0.5).len(), 1);
    }
}
