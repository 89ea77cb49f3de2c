//! Arithmetic of boxes `[x1, y1, x2, y2]`, and the suppression of those that overlap a better one.
//!
//! Must not know networks or pictures. Everything is f32 in the order of operations of torchvision's own (`torchvision.ops.boxes`), the
//! detour of [`batched_nms`] included: which box survives hangs on comparisons, and another rounding is another set of boxes.

/// `x1, y1, x2, y2` in pixels, continuous: a picture of width W reaches from 0 to W.
pub type Box4 = [f32; 4];

/// Above so many boxes torchvision suppresses class by class, up to it all at once.
const AT_ONCE: usize = 1000;

/// Width times height.
#[must_use]
pub fn area(b: Box4) -> f32 {
    (b[2] - b[0]) * (b[3] - b[1])
}

/// The part of the box inside a picture of `(height, width)`.
#[must_use]
pub fn clip(b: Box4, (height, width): (u32, u32)) -> Box4 {
    let (height, width) = (height as f32, width as f32);
    [b[0].clamp(0.0, width), b[1].clamp(0.0, height), b[2].clamp(0.0, width), b[3].clamp(0.0, height)]
}

/// Whether both sides are at least `least`. A box with a NaN is not.
#[must_use]
pub fn is_large(b: Box4, least: f32) -> bool {
    b[2] - b[0] >= least && b[3] - b[1] >= least
}

/// `min(a / b, ...)` over the union: 0 for boxes that don't touch.
fn overlap(a: Box4, area_a: f32, b: Box4, area_b: f32) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let both = width * height;
    both / (area_a + area_b - both)
}

/// Positions by descending score; equal scores keep their order.
#[must_use]
pub fn by_score(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

/// The boxes that no better one overlaps by more than `threshold`, by descending score.
#[must_use]
pub fn nms(boxes: &[Box4], scores: &[f32], threshold: f64) -> Vec<usize> {
    let order = by_score(scores);
    let areas: Vec<f32> = boxes.iter().map(|&b| area(b)).collect();
    let mut gone = vec![false; boxes.len()];
    let mut kept = Vec::new();
    for (place, &i) in order.iter().enumerate() {
        if gone[i] {
            continue;
        }
        kept.push(i);
        for &j in &order[place + 1..] {
            if !gone[j] && f64::from(overlap(boxes[i], areas[i], boxes[j], areas[j])) > threshold {
                gone[j] = true;
            }
        }
    }
    kept
}

/// [`nms`] among the boxes of each group (class or level) for itself; the survivors of all by descending score.
///
/// Few boxes are moved apart by group and suppressed at once, many group by group, as torchvision decides on a CPU: far from the
/// origin a coordinate has fewer digits, and a box at the threshold may fare differently.
#[must_use]
pub fn batched_nms(boxes: &[Box4], scores: &[f32], groups: &[u32], threshold: f64) -> Vec<usize> {
    if boxes.len() > AT_ONCE {
        return group_by_group(boxes, scores, groups, threshold);
    }
    let most = boxes.iter().flatten().fold(f32::NEG_INFINITY, |most, &value| most.max(value));
    let apart = |(b, &group): (&Box4, &u32)| {
        let offset = group as f32 * (most + 1.0);
        b.map(|value| value + offset)
    };
    let moved: Vec<Box4> = boxes.iter().zip(groups).map(apart).collect();
    nms(&moved, scores, threshold)
}

fn group_by_group(boxes: &[Box4], scores: &[f32], groups: &[u32], threshold: f64) -> Vec<usize> {
    let mut members: std::collections::BTreeMap<u32, Vec<usize>> = std::collections::BTreeMap::new();
    for (index, &group) in groups.iter().enumerate() {
        members.entry(group).or_default().push(index);
    }
    let mut kept = Vec::new();
    for members in members.values() {
        let of = |index: &usize| (boxes[*index], scores[*index]);
        let (boxes, scores): (Vec<Box4>, Vec<f32>) = members.iter().map(of).unzip();
        kept.extend(nms(&boxes, &scores, threshold).into_iter().map(|index| members[index]));
    }
    kept.sort_unstable();
    let scores: Vec<f32> = kept.iter().map(|&index| scores[index]).collect();
    by_score(&scores).into_iter().map(|place| kept[place]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_better_of_two_that_overlap_stays() {
        let boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [20.0, 0.0, 30.0, 10.0]];
        assert_eq!(nms(&boxes, &[0.5, 0.9, 0.1], 0.4), [1, 2]);
        assert_eq!(nms(&boxes, &[0.5, 0.9, 0.1], 0.5), [1, 0, 2], "an overlap of exactly the threshold is let pass");
        assert_eq!(batched_nms(&boxes, &[0.5, 0.9, 0.1], &[0, 1, 0], 0.4), [1, 0, 2], "groups don't see each other");
        assert!(nms(&[], &[], 0.5).is_empty() && batched_nms(&[], &[], &[], 0.5).is_empty());
    }

    #[test]
    fn equal_scores_keep_their_order() {
        let boxes = [[0.0, 0.0, 4.0, 4.0]; 3];
        assert_eq!(nms(&boxes, &[0.5; 3], 0.5), [0]);
        assert_eq!(by_score(&[0.1, 0.7, 0.7, 0.2]), [1, 2, 3, 0]);
    }

    #[test]
    fn boxes_are_clipped_and_small_ones_told() {
        assert_eq!(clip([-5.0, 2.0, 700.0, 9.0], (8, 640)), [0.0, 2.0, 640.0, 8.0]);
        assert!(is_large([0.0, 0.0, 1.0, 1.0], 1.0) && !is_large([0.0, 0.0, 1.0, 0.5], 1.0));
        assert!(!is_large([0.0, 0.0, f32::NAN, 5.0], 1.0));
    }

    fn some_boxes() -> impl Strategy<Value = (Vec<Box4>, Vec<f32>, Vec<u32>)> {
        let one = (0..64u8, 0..64u8, 1..32u8, 1..32u8, 0..1000u16, 0..3u32);
        proptest::collection::vec(one, 0..60).prop_map(|all| {
            let f = f32::from;
            let boxes = all.iter().map(|b| [f(b.0), f(b.1), f(b.0) + f(b.2), f(b.1) + f(b.3)]).collect();
            (boxes, all.iter().map(|b| f32::from(b.4)).collect(), all.iter().map(|b| b.5).collect())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn survivors_are_apart_and_each_of_the_others_has_a_reason((boxes, scores, groups) in some_boxes()) {
            let kept = group_by_group(&boxes, &scores, &groups, 0.5);
            let clash = |a: usize, b: usize| {
                groups[a] == groups[b] && overlap(boxes[a], area(boxes[a]), boxes[b], area(boxes[b])) > 0.5
            };
            prop_assert!(kept.windows(2).all(|pair| scores[pair[0]] >= scores[pair[1]]));
            for index in 0..boxes.len() {
                let better = |&other: &usize| other != index && scores[other] >= scores[index] && clash(other, index);
                prop_assert_eq!(!kept.contains(&index), kept.iter().any(better), "box {}", index);
            }
        }

        #[test]
        fn both_ways_agree_on_whole_numbers((boxes, scores, groups) in some_boxes()) {
            prop_assert_eq!(batched_nms(&boxes, &scores, &groups, 0.5), group_by_group(&boxes, &scores, &groups, 0.5));
        }
    }
}
