//! `[train]`'s own words (scheduled sampling and rewards): what they leave no place for, found when the recipe is read.

use super::strict;
use crate::trainer::TrainSpec;

/// What a recipe that learns by rewards alone means where it doesn't say: no target is smoothed.
pub(super) fn settle(train: &mut TrainSpec, text: &str) {
    if train.only_rewards() && strict::span_of(text, &["train", "label_smoothing"]).is_none() {
        train.label_smoothing = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Recipe;

    const BEGIN: &str = "[dataset]\nformat = \"shapes\"\n[encoder]\nmodel = \"any.onnx\"\nresize = 64\n[[column]]\nname = \"a\"\ntap = \"x\"\n";

    fn read(train: &str) -> Result<Recipe, String> {
        Recipe::parse(&format!("{BEGIN}{train}"), "recipe.toml", &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn rewards_alone_smooth_nothing() {
        let recipe = read("[train.scst]\nsamples = 3").unwrap();
        assert_eq!(recipe.train.label_smoothing, 0.0);
        assert_eq!(Recipe::parse(&recipe.resolved(), "resolved", &[]).unwrap(), recipe);
        assert_eq!(read("[train.scst]\nafter = 2.0").unwrap().train.label_smoothing, 0.1);
        let train = "[train]\nlabel_smoothing = 0.1\nscheduled_sampling = { max = 2.0 }\n[train.scst]\nsamples = 1";
        insta::assert_snapshot!(read(train).unwrap_err(), @r#"
        the recipe `recipe.toml` has 4 faults
        `0.1` does not work: it must be 0 with `scst`: a reward has no targets to smooth
          --> recipe.toml:10:19
           |
        10 | label_smoothing = 0.1
           |                   ^^^
        `max = 2` does not work: it must be left out with `scst`: all words are sampled already (or let `scst.after` epochs of cross entropy come first)
          --> recipe.toml:11:22
           |
        11 | scheduled_sampling = { max = 2.0 }
           |                      ^^^^^^^^^^^^^
        `2` does not work: it must be 0 to 1
          --> recipe.toml:11:30
           |
        11 | scheduled_sampling = { max = 2.0 }
           |                              ^^^
        `1` does not work: it must be 2 to 100: `baseline = "mean"` is the mean of an image's other samples
          --> recipe.toml:13:11
           |
        13 | samples = 1
           |           ^
        "#);
    }
}
