//! Who goes on to the next rung: successive halving (Jamieson and Talwalkar 2016), in synchronous rounds.
//!
//! Pure: scores in, places out. A point is judged by the mean of its seeds, and its seeds go on together, so that the spread over
//! seeds can be told of whoever is left.

/// The places of the points that go on: the best one of `eta`, at least one, ties to the earlier. Points without a score go nowhere.
pub(super) fn promoted(scores: &[Option<f64>], eta: usize) -> Vec<usize> {
    let mut ranked: Vec<(usize, f64)> =
        scores.iter().enumerate().filter_map(|(at, score)| Some((at, (*score)?))).collect();
    ranked.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    ranked.truncate(scores.len().div_ceil(eta.max(2)));
    let mut kept: Vec<usize> = ranked.into_iter().map(|(at, _)| at).collect();
    kept.sort_unstable();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_eta_go_on_and_ties_go_to_the_earlier() {
        let scores = [Some(1.0), Some(3.0), None, Some(3.0), Some(2.0), Some(0.0)];
        assert_eq!(promoted(&scores, 2), [1, 3, 4]);
        assert_eq!(promoted(&scores, 3), [1, 3]);
        assert_eq!(promoted(&scores, 6), [1]);
        assert_eq!(promoted(&scores, 100), [1]);
        assert_eq!(promoted(&[Some(1.0), Some(1.0), Some(1.0)], 3), [0]);
        assert_eq!(promoted(&[None, None], 2), [0usize; 0]);
    }
}
