//! Captions packed by time, longest first: no padding, and a step's captions are always a prefix of the batch.

use tch::{Device, Kind, Tensor};

use super::{column::pinned, sent};

/// The token numbers with a meaning of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Special {
    /// Begins every caption.
    pub bos: u32,
    /// Ends every caption.
    pub eos: u32,
    /// Stands for words the vocabulary lacks, where there are any.
    pub unk: Option<u32>,
    /// Fills; never spoken.
    pub pad: u32,
}

impl From<crate::text::SpecialIds> for Special {
    fn from(ids: crate::text::SpecialIds) -> Self {
        Self { bos: ids.bos, eos: ids.eos, unk: ids.unk, pad: ids.pad }
    }
}

/// A batch of captions: `B` of them, `P` tokens to predict in all, `T` steps.
#[derive(Debug)]
pub struct Captions {
    /// The distinct tokens that go in, ascending: `[U]` i64. What depends on a token alone is computed once for all its uses.
    pub words: Tensor,
    /// What goes in, as places in `words`: `[P]` i64, step after step, the captions of a step in the batch's order. Begins
    /// with BOS.
    pub inputs: Tensor,
    /// What should come out: `[P]` i64. Ends with EOS unless the caption was cut.
    pub targets: Tensor,
    /// Which caption each token belongs to: `[P]` i64.
    pub owner: Tensor,
    /// Which image of the batch each caption describes: `[B]` i64.
    pub image: Tensor,
    /// How many captions are still being spoken at each step: `T` numbers, none larger than the one before.
    pub active: Vec<i64>,
    /// What each token's loss is multiplied with, `[P]` f32; `None` where all count alike.
    pub weights: Option<Tensor>,
}

impl Captions {
    /// Packs captions given as (index of the image in the batch, tokens); at most `limit` tokens are predicted of each.
    ///
    /// Captions of one length keep their order, longer ones come first. A caption without tokens still predicts EOS.
    #[must_use]
    pub fn pack(captions: &[(i64, &[u32])], special: Special, limit: usize) -> Self {
        let sorted = longest_first(captions, limit).into_iter().map(|at| captions[at]).collect::<Vec<_>>();
        Self::packed(&sorted, special, limit)
    }

    /// The same, each caption's tokens with a weight of their own.
    #[must_use]
    pub fn pack_weighted(captions: &[(i64, &[u32])], weights: &[f32], special: Special, limit: usize) -> Self {
        let order = longest_first(captions, limit);
        let sorted: Vec<_> = order.iter().map(|&at| captions[at]).collect();
        let weights: Vec<f32> = order.iter().map(|&at| weights[at]).collect();
        let packed = Self::packed(&sorted, special, limit);
        let weights = Tensor::from_slice(&weights).index_select(0, &packed.owner);
        Self { weights: Some(weights), ..packed }
    }

    fn packed(sorted: &[(i64, &[u32])], special: Special, limit: usize) -> Self {
        let length = |tokens: &[u32]| length(tokens, limit);
        let steps = sorted.first().map_or(0, |caption| length(caption.1));
        let mut active = Vec::with_capacity(steps);
        let (mut inputs, mut targets, mut owner) = (vec![], vec![], vec![]);
        for step in 0..steps {
            let spoken = sorted.partition_point(|caption| length(caption.1) > step);
            active.push(spoken as i64);
            for (index, (_, tokens)) in sorted[..spoken].iter().enumerate() {
                let before = step.checked_sub(1).map_or(special.bos, |at| tokens[at]);
                inputs.push(i64::from(before));
                targets.push(i64::from(tokens.get(step).copied().unwrap_or(special.eos)));
                owner.push(index as i64);
            }
        }
        let words = take_words(&mut inputs);
        let image: Vec<i64> = sorted.iter().map(|caption| caption.0).collect();
        Self {
            words: Tensor::from_slice(&words),
            inputs: Tensor::from_slice(&inputs),
            targets: Tensor::from_slice(&targets),
            owner: Tensor::from_slice(&owner),
            image: Tensor::from_slice(&image),
            active,
            weights: None,
        }
    }

    /// What goes in, as tokens: `[P]` i64.
    pub fn fed(&self) -> Tensor {
        self.words.index_select(0, &self.inputs)
    }

    /// The same captions, but these tokens go in (`P` of them, on the host).
    #[must_use]
    pub fn with_fed(&self, mut tokens: Vec<i64>) -> Self {
        let (words, device) = (take_words(&mut tokens), self.targets.device());
        Self {
            words: sent(&words, device),
            inputs: sent(&tokens, device),
            targets: self.targets.shallow_clone(),
            owner: self.owner.shallow_clone(),
            image: self.image.shallow_clone(),
            active: self.active.clone(),
            weights: self.weights.as_ref().map(Tensor::shallow_clone),
        }
    }

    /// Captions in the batch.
    #[must_use]
    pub fn count(&self) -> i64 {
        self.image.size()[0]
    }

    /// Tokens to predict.
    #[must_use]
    pub fn tokens(&self) -> i64 {
        self.active.iter().sum()
    }

    /// The same captions in page-locked memory for the GPU `device`.
    pub(super) fn pinned(self, device: Device) -> Self {
        let pin = |tensor: &Tensor| pinned(tensor, device);
        let (words, inputs, targets) = (pin(&self.words), pin(&self.inputs), pin(&self.targets));
        Self { words, inputs, targets, owner: pin(&self.owner), image: pin(&self.image), ..self }
    }

    /// The same captions on `device`.
    #[must_use]
    pub fn to_device(&self, device: Device) -> Self {
        let there = |tensor: &Tensor| tensor.to_device_(device, Kind::Int64, true, false);
        Self {
            words: there(&self.words),
            inputs: there(&self.inputs),
            targets: there(&self.targets),
            owner: there(&self.owner),
            image: there(&self.image),
            active: self.active.clone(),
            weights: self.weights.as_ref().map(|weights| weights.to_device(device)),
        }
    }
}

/// Tokens that are predicted of a caption.
fn length(tokens: &[u32], limit: usize) -> usize {
    (tokens.len() + 1).min(limit.max(1))
}

/// The captions' places, longest first; those of one length keep their order.
fn longest_first(captions: &[(i64, &[u32])], limit: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..captions.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(length(captions[at].1, limit)));
    order
}

/// The distinct tokens, ascending; `tokens` become places among them.
fn take_words(tokens: &mut [i64]) -> Vec<i64> {
    let mut words = tokens.to_vec();
    words.sort_unstable();
    words.dedup();
    for token in tokens {
        *token = words.partition_point(|word| word < token) as i64;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIAL: Special = Special { bos: 1, eos: 2, unk: Some(3), pad: 0 };

    fn numbers(tensor: &Tensor) -> Vec<i64> {
        Vec::try_from(tensor).unwrap()
    }

    #[test]
    fn packs_longest_first_and_step_by_step() {
        let captions: [(i64, &[u32]); 3] = [(0, &[10]), (1, &[20, 21, 22]), (0, &[30, 31])];
        let packed = Captions::pack(&captions, SPECIAL, 40);
        assert_eq!(packed.active, [3, 3, 2, 1]);
        assert_eq!(numbers(&packed.image), [1, 0, 0]);
        assert_eq!(numbers(&packed.words), [1, 10, 20, 21, 22, 30, 31]);
        let inputs = packed.words.index_select(0, &packed.inputs);
        assert_eq!(numbers(&inputs), [1, 1, 1, 20, 30, 10, 21, 31, 22]);
        assert_eq!(numbers(&packed.targets), [20, 30, 10, 21, 31, 2, 22, 2, 2]);
        assert_eq!(numbers(&packed.owner), [0, 1, 2, 0, 1, 2, 0, 1, 0]);
        assert_eq!((packed.count(), packed.tokens()), (3, 9));
    }

    #[test]
    fn weights_go_with_their_captions_and_other_tokens_can_go_in() {
        let captions: [(i64, &[u32]); 3] = [(0, &[10]), (1, &[20, 21, 22]), (0, &[30, 31])];
        let packed = Captions::pack_weighted(&captions, &[0.5, -1.0, 2.0], SPECIAL, 40);
        let weights: Vec<f32> = Vec::try_from(packed.weights.as_ref().unwrap()).unwrap();
        assert_eq!(weights, [-1.0, 2.0, 0.5, -1.0, 2.0, 0.5, -1.0, 2.0, -1.0]);
        assert_eq!(numbers(&packed.fed()), [1, 1, 1, 20, 30, 10, 21, 31, 22]);
        let other = packed.with_fed(vec![1, 1, 1, 20, 50, 10, 21, 31, 20]);
        assert_eq!(numbers(&other.words), [1, 10, 20, 21, 31, 50]);
        assert_eq!(numbers(&other.fed()), [1, 1, 1, 20, 50, 10, 21, 31, 20]);
        assert!(other.targets.equal(&packed.targets) && other.active == packed.active);
    }

    #[test]
    fn a_cut_caption_does_not_learn_to_end() {
        let captions: [(i64, &[u32]); 2] = [(0, &[10, 11, 12]), (0, &[])];
        let packed = Captions::pack(&captions, SPECIAL, 2);
        assert_eq!(packed.active, [2, 1]);
        assert_eq!(numbers(&packed.targets), [10, 2, 11]);
    }
}
