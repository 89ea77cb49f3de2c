use proptest::prelude::*;

use super::*;

/// Scores that pycocoevalcap gave, with the raw captions: see tests/fixtures/metrics/make_fixtures.py.
#[derive(serde::Deserialize)]
struct Golden {
    candidates: Vec<String>,
    references: Vec<Vec<String>>,
    bleu: [f64; 4],
    rouge_l: f64,
    cider: f64,
    per_image_bleu: [Vec<f64>; 4],
    per_image_rouge_l: Vec<f64>,
    per_image_cider: Vec<f64>,
}

fn golden() -> Golden {
    let json = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/metrics/scores.json"));
    serde_json::from_str(json).unwrap()
}

fn assert_close(what: &str, ours: f64, theirs: f64) {
    assert!((ours - theirs).abs() < 1e-9, "{what}: {ours} here, {theirs} there");
}

#[test]
fn corpus_scores_equal_pycocoevalcap() {
    let golden = golden();
    let scores = score(&golden.candidates, &golden.references).unwrap();
    for order in 0..4 {
        assert_close("BLEU", scores.bleu[order], golden.bleu[order]);
    }
    assert_close("ROUGE-L", scores.rouge_l, golden.rouge_l);
    assert_close("CIDEr", scores.cider, golden.cider);
    assert_eq!(scores.images, golden.candidates.len());
}

#[test]
fn image_scores_equal_pycocoevalcap() {
    let golden = golden();
    let scores = score(&golden.candidates, &golden.references).unwrap();
    for (image, ours) in scores.per_image.iter().enumerate() {
        for order in 0..4 {
            assert_close("BLEU", ours.bleu[order], golden.per_image_bleu[order][image]);
        }
        assert_close("ROUGE-L", ours.rouge_l, golden.per_image_rouge_l[image]);
        assert_close("CIDEr", ours.cider, golden.per_image_cider[image]);
    }
}

#[test]
fn one_picture_needs_the_frequencies_of_others() {
    let golden = golden();
    let (one, its) = (&golden.candidates[..1], &golden.references[..1]);
    assert_eq!(score(one, its).unwrap().cider, 0.0, "alone, every n-gram is in every image");
    let frequency = cider::DocumentFrequency::from_raw(&golden.references);
    assert_eq!(frequency.images(), golden.references.len());
    let scores = score_with(&frequency, one, its).unwrap();
    assert_close("CIDEr", scores.cider, golden.per_image_cider[0]);
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[test]
fn what_cannot_be_scored() {
    let (a, refs) = (strings(&["a dog"]), vec![strings(&["a cat"])]);
    assert_eq!(score(&a, &[]), Err(MetricsError::Lengths { candidates: 1, references: 0 }));
    assert_eq!(score(&[], &[]), Err(MetricsError::NoImages));
    assert_eq!(score(&a, &[vec![]]), Err(MetricsError::NoReferences { image: 0 }));
    assert!(score(&a, &refs).is_ok());
}

#[test]
fn results_serialize() {
    let scores = score(&strings(&["a dog runs"]), &[strings(&["a dog runs"])]).unwrap();
    let json = serde_json::to_value(&scores).unwrap();
    assert_eq!(json["images"], 1);
    assert_eq!(json["counts"]["candidate_words"], 3);
    assert_eq!(json["per_image"][0]["rouge_l"], 1.0);
}

fn caption() -> impl Strategy<Value = String> {
    "(a |the |two |dog |cat |runs |jumps |red |over |grass |\\. |, |isn't ){0,14}"
}

fn images() -> impl Strategy<Value = Vec<(String, Vec<String>)>> {
    prop::collection::vec((caption(), prop::collection::vec(caption(), 1..5)), 1..8)
}

proptest! {
    #[test]
    fn scores_stay_in_range(images in images()) {
        let (candidates, references): (Vec<_>, Vec<_>) = images.into_iter().unzip();
        let scores = score(&candidates, &references).unwrap();
        for image in &scores.per_image {
            prop_assert!(image.bleu.iter().all(|bleu| (0.0..=1.0).contains(bleu)), "{image:?}");
            prop_assert!((0.0..=1.0 + 1e-12).contains(&image.rouge_l), "{image:?}");
            prop_assert!((0.0..=10.0 + 1e-9).contains(&image.cider), "{image:?}");
        }
        prop_assert!(scores.bleu.iter().all(|bleu| (0.0..=1.0).contains(bleu)), "{scores:?}");
    }

    #[test]
    fn a_reference_scores_best(captions in prop::collection::vec("[a-f]{2,3}( [a-f]{2,3}){4,9}", 2..6)) {
        // A word of its own in each caption: no n-gram order is common to all images, so none is worth nothing.
        let candidates: Vec<String> = captions.iter().enumerate().map(|(i, caption)| format!("{caption} own{i}")).collect();
        let references: Vec<Vec<String>> = candidates.iter().map(|caption| vec![caption.clone()]).collect();
        let scores = score(&candidates, &references).unwrap();
        prop_assert!(scores.bleu.iter().all(|bleu| (bleu - 1.0).abs() < 1e-6), "{scores:?}");
        prop_assert!((scores.rouge_l - 1.0).abs() < 1e-12);
        prop_assert!((scores.cider - 10.0).abs() < 1e-9, "{scores:?}");
    }

    #[test]
    fn the_order_of_references_does_not_matter(images in images()) {
        let (candidates, mut references): (Vec<_>, Vec<Vec<String>>) = images.into_iter().unzip();
        let before = score(&candidates, &references).unwrap();
        references.iter_mut().for_each(|captions| captions.reverse());
        let after = score(&candidates, &references).unwrap();
        prop_assert!((before.cider - after.cider).abs() < 1e-9);
        prop_assert_eq!((before.bleu, before.rouge_l), (after.bleu, after.rouge_l));
    }
}
