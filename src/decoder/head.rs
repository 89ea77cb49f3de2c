//! Logits, loss and their gradients together: each logit is computed once and kept in no graph.
//!
//! With 50,257 words the logits are the largest tensors of a step by far. torch's own differentiation keeps their
//! log-softmax, and makes two more of their size on the way back; here they live a few rows at a time. On a GPU a step of a small decoder is
//! as long as its kernels are many: there are half as many here as torch's loss has.

use tch::{Device, Kind, Tensor};

use crate::batch::Captions;

/// Words whose logits live at once: enough for the products to be efficient.
const AT_ONCE: i64 = 256;
/// The same on a GPU, which is fed by larger ones.
const AT_ONCE_ON_GPU: i64 = 4096;
/// The fast bf16 products want vocabularies of a multiple of it: GPT-2's 50,257 words are odd, and three to six times as slow.
const VOCAB_MULTIPLE: i64 = 64;
/// In f32 and up to so many words, what label smoothing takes from all of them is taken from each logit's gradient; else from the sums.
const SMALL_VOCAB: i64 = 8192;

/// A decoder's last layer, detached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head<'a> {
    /// `[V, W]`
    pub weight: &'a Tensor,
    /// `[V]`
    pub bias: Option<&'a Tensor>,
    /// Whether gradients of both are asked for.
    pub trained: bool,
}

impl Head<'_> {
    /// `[n, V']` of `hidden` `[n, W]`, in f32, by `weight` `[V', W]`: the head's own, or what it was padded to; nothing says what is padded.
    fn logits(&self, hidden: &Tensor, weight: &Tensor) -> Tensor {
        let (vocab, all) = (self.weight.size()[0], weight.size()[0]);
        let logits = match self.bias {
            Some(bias) if vocab == all && hidden.kind() == Kind::Float => return bias.addmm(hidden, &weight.tr()),
            _ => product(hidden, &weight.tr()),
        };
        if let Some(bias) = self.bias {
            let _ = logits.narrow(1, 0, vocab).g_add_(bias);
        }
        if all > vocab {
            let _ = logits.narrow(1, vocab, all - vocab).fill_(f64::NEG_INFINITY);
        }
        logits
    }
}

/// What the head came to.
#[derive(Debug)]
pub(super) struct Scored {
    /// The mean loss: a scalar.
    pub loss: Tensor,
    /// Its gradient for the hidden states, `[P, W]`.
    pub hidden: Tensor,
    /// Its gradient for the head's weight `[V, W]`, where asked for: f32 whatever the weight.
    pub weight: Option<Tensor>,
    /// The same for the bias.
    pub bias: Option<Tensor>,
}

/// `a b` in f32, whatever they are in.
fn product(a: &Tensor, b: &Tensor) -> Tensor {
    match (a.kind(), a.device()) {
        (Kind::Float, _) => a.mm(b),
        (_, Device::Cuda(_)) => a.mm_dtype(b, Kind::Float),
        _ => a.mm(b).to_kind(Kind::Float),
    }
}

fn add(sum: Option<Tensor>, part: Tensor) -> Tensor {
    match sum {
        Some(mut sum) => sum.g_add_(&part),
        None => part,
    }
}

/// Mean cross entropy of the captions' targets with label smoothing, by `hidden` `[P, W]`.
///
/// d loss / d logits = softmax - (1 - s) onehot - s / V, times the target's weight, over `P`; its last term is the same for all
/// words, and with many of them it is added as one product at the end.
pub(super) fn score(hidden: &Tensor, head: Head<'_>, captions: &Captions, smoothing: f64) -> Scored {
    let _guard = tch::no_grad_guard();
    let (words, vocab) = (hidden.size()[0], head.weight.size()[0]);
    let spare = match hidden.kind() {
        Kind::Float => 0,
        _ => (VOCAB_MULTIPLE - vocab % VOCAB_MULTIPLE) % VOCAB_MULTIPLE,
    };
    let padded = (spare > 0).then(|| {
        let rows = Tensor::zeros([spare, head.weight.size()[1]], (head.weight.kind(), head.weight.device()));
        Tensor::cat(&[head.weight, &rows], 0)
    });
    let weight = padded.as_ref().unwrap_or(head.weight);
    let few = vocab <= SMALL_VOCAB && hidden.kind() == Kind::Float;
    let each = (smoothing > 0.0 && few).then_some(smoothing / vocab as f64);
    let at_once = if hidden.device() == Device::Cpu { AT_ONCE } else { AT_ONCE_ON_GPU };
    let (mut right, mut all, mut of_hidden) = (vec![], vec![], vec![]);
    let (mut of_weight, mut of_bias): (Option<Tensor>, Option<Tensor>) = (None, None);
    for start in (0..words).step_by(at_once as usize) {
        let count = at_once.min(words - start);
        let (part, target) = (hidden.narrow(0, start, count), captions.targets.narrow(0, start, count).unsqueeze(1));
        let mut said = head.logits(&part, weight).log_softmax(-1, Kind::Float); // [n, V]
        let chosen = said.gather(1, &target, false); // [n, 1]
        if smoothing > 0.0 {
            all.push(said.narrow(1, 0, vocab).mean_dim(1, true, Kind::Float));
        }
        let mut slopes = match hidden.kind() {
            Kind::Float => said.exp_(),
            kind => said.exp_out(&Tensor::empty(said.size(), (kind, said.device()))),
        };
        drop(said);
        if let Some(each) = each {
            let _ = slopes.g_sub_scalar_(each);
        }
        let taken = smoothing - 1.0;
        let _ = match hidden.kind() {
            Kind::Float => slopes.scatter_value_reduce_(1, &target, taken, "add"),
            // A difference of two numbers near one: rounded once it is taken.
            kind => slopes.scatter_(1, &target, &(chosen.exp() + taken).to_kind(kind)),
        };
        right.push(chosen);
        if let Some(weights) = &captions.weights {
            let _ = slopes.g_mul_(&weights.narrow(0, start, count).unsqueeze(1));
        }
        if head.trained {
            of_weight = Some(match of_weight.take() {
                Some(mut sum) if hidden.kind() == Kind::Float => Tensor::addmm_(&mut sum, &slopes.tr(), &part),
                sum => add(sum, product(&slopes.tr(), &part)),
            });
            if head.bias.is_some() {
                of_bias = Some(add(of_bias.take(), slopes.sum_dim_intlist(0, false, Kind::Float)));
            }
        }
        of_hidden.push(product(&slopes, weight));
    }
    let joined = |mut parts: Vec<Tensor>| if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 0) };
    let mut said = joined(right); // [P, 1]
    if smoothing > 0.0 {
        said = said.lerp(&joined(all), smoothing);
    }
    let weights = captions.weights.as_ref().map(|weights| weights.unsqueeze(1));
    let weighed = |rows: Tensor| weights.as_ref().map_or_else(|| rows.shallow_clone(), |weights| &rows * weights);
    let loss = -weighed(said).mean(Kind::Float);
    let mut of_hidden = joined(of_hidden);
    let [mut of_weight, mut of_bias] = [of_weight, of_bias].map(|sum| sum.map(|sum: Tensor| sum.narrow(0, 0, vocab)));
    if smoothing > 0.0 && each.is_none() {
        let share = smoothing / vocab as f64;
        of_hidden -= weighed(head.weight.sum_dim_intlist(0, true, Kind::Float) * share);
        if let Some(sum) = &mut of_weight {
            *sum -= weighed(hidden.to_kind(Kind::Float)).sum_dim_intlist(0, true, Kind::Float) * share;
        }
        if let Some(sum) = &mut of_bias {
            match &weights {
                None => drop(sum.g_sub_scalar_(words as f64 * share)),
                Some(weights) => *sum -= weights.sum(Kind::Float) * share,
            }
        }
    }
    let mean = |mut sum: Tensor| sum.g_mul_scalar_(1.0 / words as f64);
    Scored {
        loss,
        hidden: mean(of_hidden).to_kind(hidden.kind()),
        weight: of_weight.map(mean),
        bias: of_bias.map(mean),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::words::mean_loss, *};

    /// One long caption of `targets`.
    fn captions(targets: &Tensor, weights: Option<Tensor>) -> Captions {
        let nothing = || Tensor::from_slice::<i64>(&[]);
        let (words, inputs, owner, image) = (nothing(), nothing(), nothing(), nothing());
        Captions { words, inputs, targets: targets.shallow_clone(), owner, image, active: vec![], weights }
    }

    fn apart(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn agrees_with_torch_over_several_parts() {
        tch::manual_seed(3);
        // What is expected is computed in f64, of numbers that f32 has too.
        let draw = |shape: &[i64]| {
            Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(Kind::Double).set_requires_grad(true)
        };
        let words = AT_ONCE + 7;
        for vocab in [11, SMALL_VOCAB + 1] {
            let (hidden, weight, bias) = (draw(&[words, 6]), draw(&[vocab, 6]), draw(&[vocab]));
            let targets = Tensor::arange(words, (Kind::Int64, Device::Cpu)).remainder(11);
            let weights = Tensor::randn([words], (Kind::Float, Device::Cpu));
            for (smoothing, weights) in [(0.0, None), (0.1, None), (0.0, Some(weights.copy())), (0.1, Some(weights))] {
                let captions = captions(&targets, weights);
                let single = |tensor: &Tensor| tensor.detach().to_kind(Kind::Float);
                let [detached, inner] = [&hidden, &weight].map(single);
                for biased in [false, true] {
                    let bias = biased.then_some(&bias);
                    let loss = mean_loss(&hidden.linear(&weight, bias), &captions, smoothing);
                    let inputs = [Some(&hidden), Some(&weight), bias].into_iter().flatten().collect::<Vec<_>>();
                    let expected = Tensor::run_backward(&[&loss], &inputs, false, false);
                    let plain = bias.map(single);
                    let head = Head { weight: &inner, bias: plain.as_ref(), trained: true };
                    let found = score(&detached, head, &captions, smoothing);
                    assert!(apart(&loss, &found.loss) < 2e-6, "{loss:?} {found:?}");
                    let hidden = apart(&expected[0], &found.hidden);
                    // torch's own f32 is 2e-7 apart from its f64 over so many words.
                    let least = if vocab > SMALL_VOCAB { 1e-6 } else { 1e-7 };
                    assert!(hidden < least, "{vocab} {smoothing} {biased} {hidden:e}");
                    assert!(apart(&expected[1], &found.weight.unwrap()) < 1e-6);
                    assert!(expected.get(2).is_none_or(|expected| apart(expected, &found.bias.unwrap()) < 1e-6));
                    let frozen = score(&detached, Head { trained: false, ..head }, &captions, smoothing);
                    assert!(frozen.weight.is_none() && frozen.bias.is_none());
                }
            }
        }
    }

    #[test]
    fn in_bf16_a_vocabulary_of_any_size_is_what_it_is_in_f32() {
        tch::manual_seed(4);
        let draw = |shape: [i64; 2]| Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16);
        let words = AT_ONCE + 7;
        let targets = Tensor::arange(words, (Kind::Int64, Device::Cpu)).remainder(11);
        let advantages = Tensor::randn([words], (Kind::Float, Device::Cpu));
        for vocab in [VOCAB_MULTIPLE, 11, SMALL_VOCAB + 1] {
            let (hidden, weight, bias) = (draw([words, 6]), draw([vocab, 6]), draw([1, vocab]).view(-1));
            for (biased, smoothing, weights) in [(false, 0.1, false), (true, 0.0, true), (true, 0.1, true)] {
                let captions = captions(&targets, weights.then(|| advantages.shallow_clone()));
                let scored = |kind: Kind| {
                    let [hidden, weight, bias] = [&hidden, &weight, &bias].map(|tensor| tensor.to_kind(kind));
                    let head = Head { weight: &weight, bias: biased.then_some(&bias), trained: true };
                    score(&hidden, head, &captions, smoothing)
                };
                let (half, whole) = (scored(Kind::BFloat16), scored(Kind::Float));
                assert!(apart(&half.loss, &whole.loss) < 0.02, "{half:?} {whole:?}");
                assert_eq!((half.hidden.kind(), half.weight.as_ref().unwrap().kind()), (Kind::BFloat16, Kind::Float));
                let mut pairs = vec![(half.hidden, whole.hidden), (half.weight.unwrap(), whole.weight.unwrap())];
                pairs.extend(half.bias.zip(whole.bias));
                assert_eq!(pairs.len(), 2 + usize::from(biased));
                for (half, whole) in pairs {
                    assert_eq!(half.size(), whole.size());
                    let size = whole.abs().max().double_value(&[]);
                    let apart = apart(&half.to_kind(Kind::Float), &whole);
                    assert!(apart < 0.02 * size, "{vocab} {biased} {smoothing} {weights}: {apart} of {size}");
                }
            }
        }
    }
}
