use proptest::prelude::*;

use super::{super::bleu::Counts, *};
use crate::metrics::Objects;

/// An image whose CIDEr is `cider`, with so many of ten words right.
fn image(cider: f64, correct: u64) -> ImageScores {
    let counts = Counts {
        candidate_words: 10,
        reference_words: 10,
        guesses: [10, 9, 8, 7],
        correct: [correct, correct / 2, correct / 3, correct / 4],
    };
    let objects = Objects { named: 2, found: u64::from(correct > 5) };
    ImageScores { bleu: counts.bleu(), rouge_l: cider / 10.0, cider, counts, objects }
}

/// Images of uneven difficulty; `lift` is added to each one's CIDEr.
fn images(count: u64, lift: f64) -> Vec<ImageScores> {
    (0..count).map(|at| image((mix(at) % 1000) as f64 / 500.0 + lift, mix(at) % 11)).collect()
}

#[test]
fn an_interval_is_as_wide_as_the_standard_error_says() {
    let run = images(400, 0.0);
    let resampled = Resampled::draw(&[&run], Plan { resamples: 4000, ..Plan::default() }).unwrap();
    let mean = resampled.score(0, Metric::Cider);
    let variance = run.iter().map(|image| (image.cider - mean).powi(2)).sum::<f64>() / 400.0;
    let error = (variance / 400.0).sqrt();
    let Interval { low, high } = resampled.interval(0, Metric::Cider).unwrap();
    assert!((low - (mean - 1.96 * error)).abs() < 0.1 * error, "{low} {mean} {error}");
    assert!((high - (mean + 1.96 * error)).abs() < 0.1 * error, "{high} {mean} {error}");
    let bleu = resampled.interval(0, Metric::Bleu4).unwrap();
    assert!(bleu.low < resampled.score(0, Metric::Bleu4) && resampled.score(0, Metric::Bleu4) < bleu.high, "{bleu:?}");
}

#[test]
fn pairing_finds_a_difference_far_below_the_intervals_width() {
    let (low, high) = (images(300, 0.0), images(300, 0.02));
    let resampled = Resampled::draw(&[&low, &high, &low], Plan::default()).unwrap();
    let found = resampled.difference(0, 1, Metric::Cider).unwrap();
    let width = resampled.interval(0, Metric::Cider).unwrap();
    assert!(found.significant && found.difference > 0.0 && found.interval.low > 0.0, "{found:?}");
    assert!(width.high - width.low > 5.0 * found.difference, "{width:?}");
    let none = resampled.difference(0, 2, Metric::Cider).unwrap();
    assert_eq!((none.p, none.significant, none.difference), (1.0, false, 0.0));
    let back = resampled.difference(1, 0, Metric::Cider).unwrap();
    assert_eq!((back.difference, back.p), (-found.difference, found.p));
}

#[test]
fn noise_is_not_called_a_difference_more_often_than_it_may() {
    let mut called = 0;
    for seed in 0..200 {
        let noise = |salt: u64| {
            (0..60).map(|at| image((mix(at ^ mix(seed ^ salt)) % 1000) as f64 / 500.0, 5)).collect::<Vec<_>>()
        };
        let resampled =
            Resampled::draw(&[&noise(1 << 40), &noise(1 << 41)], Plan { resamples: 400, ..Plan::default() }).unwrap();
        called += usize::from(resampled.difference(0, 1, Metric::Cider).unwrap().significant);
    }
    assert!((2..=22).contains(&called), "{called} of 200 at a level of 5%");
}

#[test]
fn holms_correction() {
    assert_eq!(holm(&[0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02]);
    assert_eq!(holm(&[0.9, 0.5]), [1.0, 1.0]);
    assert_eq!(holm(&[0.04]), [0.04]);
    assert!(holm(&[]).is_empty());
}

#[test]
fn many_pairs_need_more_resamples_and_more_evidence() {
    assert_eq!(Plan::for_pairs(1), Plan::default());
    let plan = Plan::for_pairs(190);
    assert!(190.0 * 2.0 / (plan.resamples as f64 + 1.0) < 0.05, "{plan:?}");

    let (first, second, third) = (images(200, 0.0), images(200, 0.01), images(200, 0.02));
    let resampled = Resampled::draw(&[&first, &second, &third], Plan::default()).unwrap();
    let pairs = resampled.pairs(Metric::Cider);
    assert_eq!(pairs.iter().map(|pair| (pair.a, pair.b)).collect::<Vec<_>>(), [(0, 1), (0, 2), (1, 2)]);
    assert!(pairs.iter().all(|pair| pair.p_holm >= pair.p && pair.significant == (pair.p_holm < 0.05)), "{pairs:?}");
    assert!((pairs[0].p_holm - 3.0 * pairs[0].p).abs() < 1e-12, "{pairs:?}");
    let against = resampled.against(2, Metric::Cider);
    assert_eq!(against.iter().map(|pair| (pair.a, pair.b)).collect::<Vec<_>>(), [(2, 0), (2, 1)]);
}

#[test]
fn what_cannot_be_resampled() {
    let run = images(3, 0.0);
    assert_eq!(Resampled::draw(&[], Plan::default()).unwrap_err(), MetricsError::NoImages);
    let other = Resampled::draw(&[&run, &run[..2]], Plan::default()).unwrap_err();
    assert_eq!(other, MetricsError::OtherImages { first: 3, other: 2 });
    let none = Resampled::draw(&[&run], Plan { resamples: 0, ..Plan::default() }).unwrap();
    assert_eq!(none.interval(0, Metric::Cider), None);
    let mut nothing = run.clone();
    nothing.iter_mut().for_each(|image| image.objects = Objects::default());
    let resampled = Resampled::draw(&[&nothing], Plan::default()).unwrap();
    assert!(resampled.score(0, Metric::ObjectRecall).is_nan());
    assert_eq!(resampled.interval(0, Metric::ObjectRecall), None);
    assert_eq!(resampled.difference(0, 0, Metric::ObjectRecall), None);
}

proptest! {
    #[test]
    fn a_run_is_the_same_alone_and_in_company(count in 1_u64..40, seed: u64, lift in 0.0..1.0) {
        let plan = Plan { resamples: 50, seed, ..Plan::default() };
        let (one, other) = (images(count, 0.0), images(count, lift));
        let alone = Resampled::draw(&[&one], plan).unwrap();
        let together = Resampled::draw(&[&other, &one], plan).unwrap();
        for metric in Metric::ALL {
            prop_assert_eq!(alone.interval(0, metric), together.interval(1, metric));
        }
    }

    #[test]
    fn every_draw_has_as_many_images(images in 1_usize..300, seed: u64, number in 0_usize..1000) {
        let times = draw(images, seed, number);
        prop_assert_eq!(times.iter().sum::<u32>() as usize, images);
        prop_assert_eq!(&times, &draw(images, seed, number));
    }

    #[test]
    fn corrected_values_keep_their_order(p in prop::collection::vec(0.0..=1.0_f64, 0..20)) {
        let corrected = holm(&p);
        for a in 0..p.len() {
            prop_assert!(corrected[a] >= p[a] && corrected[a] <= 1.0);
            for b in 0..p.len() {
                prop_assert!(p[a] > p[b] || corrected[a] <= corrected[b]);
            }
        }
    }
}

#[test]
fn a_group_is_the_mean_of_its_runs_and_its_interval_covers_its_seeds() {
    let runs = [images(300, 0.0), images(300, 0.3), images(300, -0.3), images(300, 0.0)];
    let runs: Vec<&[ImageScores]> = runs.iter().map(Vec::as_slice).collect();
    let resampled = Resampled::draw(&runs, Plan { resamples: 2000, ..Plan::default() }).unwrap();
    let grouped = resampled.grouped(&[vec![0, 1, 2], vec![3]]);
    let score = |of: &Resampled, at| of.score(at, Metric::Cider);
    assert!((score(&grouped, 0) - score(&resampled, 0)).abs() < 1e-9, "0.3 and -0.3 cancel out");
    let width = |of: &Resampled, at| of.interval(at, Metric::Cider).map(|of| of.high - of.low).unwrap();
    assert_eq!(width(&grouped, 1), width(&resampled, 3), "one run stays what it is");
    // The images' variance, and that of the mean of three draws of (0, 0.3, -0.3): 0.06 / 3.
    let images = width(&resampled, 3) / (2.0 * 1.96);
    let both = (images.powi(2) + 0.02).sqrt();
    assert!((width(&grouped, 0) / (2.0 * 1.96) - both).abs() < 0.1 * both, "{} {both}", width(&grouped, 0));
}
