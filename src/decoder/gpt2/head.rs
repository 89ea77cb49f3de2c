//! Logits, loss and their gradients together: each logit is computed once and kept in no graph.
//!
//! With 50,257 words the logits are the largest tensors of a step by far. torch's own differentiation keeps their
//! log-softmax, and makes two more of their size on the way back; here they live a few rows at a time.

use tch::{Device, Kind, Tensor};

use super::Captions;

/// Words whose logits live at once: enough for the products to be efficient.
const AT_ONCE: i64 = 256;
/// The same on a GPU, which is fed by larger ones.
const AT_ONCE_ON_GPU: i64 = 4096;

/// What the head came to.
#[derive(Debug)]
pub(super) struct Scored {
    /// The mean loss: a scalar.
    pub loss: Tensor,
    /// Its gradient for the hidden states, `[P, W]`.
    pub hidden: Tensor,
    /// Its gradient for the head's weight `[V, W]`, where asked for: f32 whatever the weight.
    pub weight: Option<Tensor>,
}

/// Mean cross entropy of the captions' targets with label smoothing, by `hidden` `[P, W]` and `weight` `[V, W]`.
///
/// d loss / d logits = softmax - (1 - s) onehot - s / V, times the target's weight, over `P`; its last term is the same for all
/// words, and is added as one product at the end.
pub(super) fn score(hidden: &Tensor, weight: &Tensor, captions: &Captions, smoothing: f64, trained: bool) -> Scored {
    let _guard = tch::no_grad_guard();
    let (words, vocab) = (hidden.size()[0], weight.size()[0]);
    let mut loss = Tensor::zeros([], (Kind::Float, hidden.device()));
    let mut of_weight = trained.then(|| Tensor::zeros(weight.size(), (Kind::Float, weight.device())));
    let at_once = if hidden.device() == Device::Cpu { AT_ONCE } else { AT_ONCE_ON_GPU };
    let mut of_hidden = Vec::with_capacity((words / at_once + 1) as usize);
    for start in (0..words).step_by(at_once as usize) {
        let count = at_once.min(words - start);
        let (part, target) = (hidden.narrow(0, start, count), captions.targets.narrow(0, start, count).unsqueeze(1));
        let share = captions.weights.as_ref().map(|weights| weights.narrow(0, start, count).unsqueeze(1)); // [n, 1]
        let weighed = |loss: Tensor| match &share {
            Some(share) => (loss * share).sum(Kind::Float),
            None => loss.sum(Kind::Float),
        };
        let mut logits = part.mm(&weight.tr()).log_softmax(-1, Kind::Float); // [n, V]
        loss -= weighed(logits.gather(1, &target, false)) * (1.0 - smoothing);
        if smoothing > 0.0 {
            loss -= weighed(logits.sum_dim_intlist(1, true, Kind::Float)) * (smoothing / vocab as f64);
        }
        let _ = logits.exp_();
        let right = target.ones_like().to_kind(Kind::Float) * (smoothing - 1.0);
        let _ = logits.scatter_add_(1, &target, &right);
        if let Some(share) = &share {
            let _ = logits.g_mul_(share);
        }
        let slopes = logits.to_kind(hidden.kind());
        of_hidden.push(slopes.mm(weight).to_kind(Kind::Float) / words as f64);
        match &mut of_weight {
            Some(sum) if hidden.kind() == Kind::Float => drop(sum.addmm_(&slopes.tr(), &(part / words as f64))),
            Some(sum) => *sum += slopes.tr().mm(&part).to_kind(Kind::Float) / words as f64,
            None => {}
        }
    }
    let mut of_hidden = Tensor::cat(&of_hidden, 0);
    if smoothing > 0.0 {
        let share = smoothing / vocab as f64 / words as f64;
        let weighed = |rows: Tensor| match &captions.weights {
            Some(weights) => rows * weights.unsqueeze(1),
            None => rows,
        };
        of_hidden -= weighed(weight.sum_dim_intlist(0, true, Kind::Float) * share);
        if let Some(sum) = &mut of_weight {
            *sum -= weighed(hidden.shallow_clone()).sum_dim_intlist(0, true, Kind::Float) * share;
        }
    }
    Scored { loss: loss / words as f64, hidden: of_hidden.to_kind(hidden.kind()), weight: of_weight }
}

#[cfg(test)]
mod tests {

    use super::{super::mean_loss, *};

    /// One long caption of `targets`.
    fn captions(targets: &Tensor, weights: Option<Tensor>) -> Captions {
        let nothing = || Tensor::from_slice::<i64>(&[]);
        let (words, inputs, owner, image) = (nothing(), nothing(), nothing(), nothing());
        Captions { words, inputs, targets: targets.shallow_clone(), owner, image, active: vec![], weights }
    }

    #[test]
    fn agrees_with_torch_over_several_parts() {
        tch::manual_seed(3);
        let draw = |shape: [i64; 2]| Tensor::randn(shape, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let words = AT_ONCE + 7;
        let (hidden, weight) = (draw([words, 6]), draw([11, 6]));
        let targets = Tensor::arange(words, (Kind::Int64, Device::Cpu)).remainder(11);
        let weights = Tensor::randn([words], (Kind::Float, Device::Cpu));
        for (smoothing, weights) in [(0.0, None), (0.1, None), (0.0, Some(weights.copy())), (0.1, Some(weights))] {
            let captions = captions(&targets, weights);
            let loss = mean_loss(&hidden.mm(&weight.tr()), &captions, smoothing);
            let expected = Tensor::run_backward(&[&loss], &[&hidden, &weight], false, false);
            let found = score(&hidden, &weight, &captions, smoothing, true);
            let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
            assert!(apart(&loss, &found.loss) < 1e-6);
            assert!(apart(&expected[0], &found.hidden) < 1e-7);
            assert!(apart(&expected[1], &found.weight.unwrap()) < 1e-6);
            assert!(score(&hidden, &weight, &captions, smoothing, false).weight.is_none());
        }
    }
}
