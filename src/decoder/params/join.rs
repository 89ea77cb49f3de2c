//! Two sets of parameters in one buffer: a decoder's, and those of what stands before it.
//!
//! Must not know what either is. What learns at another rate lies at both ends, so that what decays is still a prefix of the
//! whole, and what learns at one rate still one stretch or two: `[before, decayed | own | before, rest]`.

use tch::Tensor;

use super::{Handle, Params, ParamsBuilder, Part, leaves};

impl ParamsBuilder {
    /// The same for parameters that will be joined to `own` by [`Params::join`]: their handles are good afterwards.
    #[must_use]
    pub fn joining(own: &Params, seed: u64) -> Self {
        Self { base: [own.leaves.len(), own.kept.len()], ..Self::new(seed) }
    }
}

impl Params {
    /// Takes in `before`, parameters that the columns' vectors depend on, which learn at `scale` times the rate. Values and
    /// handles of both stay what they were; those of `before` came from [`ParamsBuilder::joining`].
    pub fn join(&mut self, before: Self, scale: f64) {
        let _guard = tch::no_grad_guard();
        let (front, own) = (before.decayed, self.flat.numel() as i64);
        let rest = before.flat.numel() as i64 - front;
        let ends = [before.flat.narrow(0, 0, front), before.flat.narrow(0, front, rest)];
        self.flat = Tensor::cat(&[&ends[0], &self.flat, &ends[1]], 0);
        self.offsets.iter_mut().for_each(|offset| *offset += front);
        self.offsets.extend(before.offsets.iter().map(|&offset| if offset < front { offset } else { offset + own }));
        self.upstream = before.entries.len();
        self.entries.extend(before.entries);
        self.frozen.extend(before.frozen);
        self.kept.extend(before.kept);
        let parts = [
            Part { start: 0, length: front, decayed: front, scale },
            Part { start: front, length: own, decayed: self.decayed, scale: 1.0 },
            Part { start: front + own, length: rest, decayed: 0, scale },
        ];
        self.parts = parts.into_iter().filter(|part| part.length > 0).collect();
        self.decayed += front;
        self.half = None;
        self.leaves = leaves(&self.flat, &self.entries, &self.offsets);
    }

    /// The trained parameters that the columns' vectors depend on; none without a tail.
    pub fn upstream(&self) -> impl Iterator<Item = Handle> {
        let all = self.leaves.len();
        (all - self.upstream..all).map(|place| Handle { place, frozen: false })
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::{super::Init, *};

    #[test]
    fn values_and_handles_survive_and_what_decays_stays_in_front() {
        let mut builder = ParamsBuilder::new(1);
        let (weight, bias) = builder.linear("own", 3, 5);
        builder.freeze(true);
        let held = builder.add("held", &[2], Init::Constant(7.0));
        let mut params = builder.build(Device::Cpu);
        let values = |params: &Params, handle| Vec::<f32>::try_from(params.get(handle).reshape(-1)).unwrap();
        let before = [weight, bias, held].map(|handle| values(&params, handle));
        let mut builder = ParamsBuilder::joining(&params, 2);
        let first = builder.add("first", &[20, 2], Init::Constant(2.0));
        let second = builder.add("second", &[4], Init::Constant(3.0));
        builder.freeze(true);
        let kept = builder.add("kept", &[1], Init::Constant(4.0));
        params.join(builder.build(Device::Cpu), 0.25);
        assert_eq!([weight, bias, held].map(|handle| values(&params, handle)), before);
        assert_eq!((values(&params, first), values(&params, second)), (vec![2.0; 40], vec![3.0; 4]));
        assert_eq!((values(&params, kept), params.count(), params.frozen_count()), (vec![4.0], 64, 3));
        // 48 of `first`, 16 and 16 of the linear map, 16 of `second`.
        assert_eq!((params.flat().size(), params.decayed()), (vec![96], 64));
        let parts: Vec<_> =
            params.parts().iter().map(|part| (part.start, part.length, part.decayed, part.scale)).collect();
        assert_eq!(parts, [(0, 48, 48, 0.25), (48, 32, 16, 1.0), (80, 16, 0, 0.25)]);
        assert_eq!(params.upstream().collect::<Vec<_>>(), [first, second]);
        // The leaves alias the new buffer.
        let _ = tch::no_grad(|| params.flat().shallow_clone().fill_(9.0));
        let sum: f64 = params.leaves().iter().map(|leaf| leaf.sum(Kind::Double).double_value(&[])).sum();
        assert_eq!(sum, 9.0 * 64.0);
    }
}
