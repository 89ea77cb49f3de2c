//! Numbers that no type refuses and nothing can be done with: found when the recipe is read, before hours of encoding.
//!
//! The rules are those of the modules that use the numbers; here they only get their place in the file.

use super::Recipe;
use crate::{decoder::DecoderError, trainer::TrainError};

/// Says each number of `recipe` that does not work to `fault`: its place, what is wrong, the way out.
pub(super) fn check(recipe: &Recipe, fault: &mut impl FnMut(&[&str], String, Option<String>)) {
    let does_not_work = |value: &str, must: &str| format!("`{value}` does not work: it must be {must}");
    for error in recipe.train.faults() {
        if let TrainError::Spec { field, value, must } = error {
            let path: Vec<&str> = ["train"].into_iter().chain(field.split('.')).collect();
            fault(&path, does_not_work(&value, must), None);
        }
    }
    for error in recipe.decode.faults() {
        if let DecoderError::Decode { field, value, must } = error {
            fault(&["decode", field], does_not_work(&value, must), None);
        }
    }
    let decoder = recipe.decoder.as_ref().map(|decoder| decoder.spec.check_numbers());
    if let Some(Err(DecoderError::Spec { field, value, must })) = decoder {
        fault(&["decoder", field], does_not_work(&value, &must), None);
    }
    let encoder = &recipe.encoder;
    let finite = |values: [f32; 3]| values.iter().all(|value| value.is_finite());
    if let Some(std) = encoder.std.filter(|std| !finite(*std) || std.contains(&0.0)) {
        fault(&["encoder", "std"], does_not_work(&format!("{std:?}"), "finite numbers, none of them 0"), None);
    }
    if let Some(mean) = encoder.mean.filter(|mean| !finite(*mean)) {
        fault(&["encoder", "mean"], does_not_work(&format!("{mean:?}"), "finite numbers"), None);
    }
    if encoder.batch == Some(0) {
        fault(&["encoder", "batch"], does_not_work("0", "at least 1"), None);
    }
}
