//! What a recipe's `[decode]` may say: how captions are spoken.
//!
//! Must not know decoders or states. All ways share the bans (marks, lengths, repeated n-grams), so that the ways can be compared.

use serde::{Deserialize, Serialize};

use super::{DecoderError, Special};

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The most probable token each time.
    Greedy,
    /// The most probable caption among the `beam` best at each length.
    #[default]
    Beam,
    /// A random token, by its probability among the `top_k` and `top_p` most probable.
    Sample,
}

/// How captions are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecodeSpec {
    /// Greedy, beam search or sampling.
    pub method: Method,
    /// Captions kept at each length by beam search.
    pub beam: usize,
    /// Log-probabilities are divided by length to this power; 0 prefers short captions, 1 compares by token.
    pub length_penalty: f64,
    /// Tokens at most, the end mark not counted.
    pub max_length: usize,
    /// Tokens at least.
    pub min_length: usize,
    /// The mark of unknown words may be spoken.
    pub allow_unknown: bool,
    /// No sequence of so many tokens is said twice in a caption; 0 allows it.
    pub no_repeat_ngram: usize,
    /// Logits are divided by this before sampling: below 1 is safer, above 1 more varied.
    pub temperature: f64,
    /// Only so many of the most probable tokens are sampled from; 0 for all.
    pub top_k: usize,
    /// Only the most probable tokens that together reach this probability are sampled from (Holtzman et al. 2020); 1 for all.
    pub top_p: f64,
    /// Decides what is sampled, with the image's place in the call and the position.
    pub seed: u64,
}

impl Default for DecodeSpec {
    fn default() -> Self {
        Self {
            method: Method::Beam,
            beam: 5,
            length_penalty: 0.5,
            max_length: 30,
            min_length: 1,
            allow_unknown: false,
            no_repeat_ngram: 0,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            seed: 0,
        }
    }
}

impl DecodeSpec {
    /// Greedy, otherwise the same.
    #[must_use]
    pub fn greedy(self) -> Self {
        Self { method: Method::Greedy, ..self }
    }

    /// Refuses numbers that nothing can be spoken with.
    ///
    /// # Errors
    /// Names the first field that does not work.
    pub fn check(&self) -> Result<(), DecoderError> {
        let rules: [(&'static str, bool, String, &'static str); 6] = [
            ("beam", (1..=1000).contains(&self.beam), self.beam.to_string(), "1 to 1000"),
            ("length_penalty", self.length_penalty.is_finite(), self.length_penalty.to_string(), "a finite number"),
            ("max_length", self.max_length > 0, self.max_length.to_string(), "at least 1"),
            ("min_length", self.min_length <= self.max_length, self.min_length.to_string(), "at most `max_length`"),
            (
                "temperature",
                self.temperature.is_finite() && self.temperature > 0.0,
                self.temperature.to_string(),
                "above 0; `method = \"greedy\"` always takes the most probable token",
            ),
            ("top_p", self.top_p > 0.0 && self.top_p <= 1.0, self.top_p.to_string(), "above 0 and at most 1"),
        ];
        match rules.into_iter().find(|(_, holds, ..)| !holds) {
            Some((field, _, value, must)) => Err(DecoderError::Decode { field, value, must }),
            None => Ok(()),
        }
    }

    /// Tokens that may not be spoken as the `position`-th (from 0), whatever was said before.
    pub(super) fn forbidden(&self, special: Special, position: usize) -> Vec<i64> {
        let mut tokens = vec![special.bos, special.pad];
        if !self.allow_unknown {
            tokens.extend(special.unk);
        }
        if position < self.min_length {
            tokens.push(special.eos);
        }
        tokens.retain(|&token| token != special.eos || position < self.min_length);
        tokens.into_iter().map(i64::from).collect()
    }

    /// Tokens that would say an n-gram of `said` again.
    pub(super) fn repeats(&self, said: &[u32]) -> Vec<u32> {
        let n = self.no_repeat_ngram;
        if n == 0 || said.len() < n {
            return vec![];
        }
        let tail = &said[said.len() + 1 - n..];
        said.windows(n).filter(|window| window[..n - 1] == *tail).map(|window| window[n - 1]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ngram_is_not_said_again() {
        let spec = |n| DecodeSpec { no_repeat_ngram: n, ..DecodeSpec::default() };
        let said = [5, 6, 7, 5, 6];
        assert_eq!(spec(3).repeats(&said), [7]);
        assert_eq!(spec(2).repeats(&said), [7]);
        assert_eq!(spec(1).repeats(&said), said);
        assert!(spec(0).repeats(&said).is_empty() && spec(3).repeats(&said[..2]).is_empty());
        assert_eq!(spec(2).repeats(&[4, 4]), [4]);
    }

    #[test]
    fn numbers_that_speak_nothing_are_named() {
        DecodeSpec::default().check().unwrap();
        let field = |spec: DecodeSpec| match spec.check() {
            Err(DecoderError::Decode { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(DecodeSpec { beam: 0, ..Default::default() }), "beam");
        assert_eq!(field(DecodeSpec { temperature: 0.0, ..Default::default() }), "temperature");
        assert_eq!(field(DecodeSpec { top_p: 1.5, ..Default::default() }), "top_p");
        assert_eq!(field(DecodeSpec { min_length: 40, ..Default::default() }), "min_length");
    }
}
