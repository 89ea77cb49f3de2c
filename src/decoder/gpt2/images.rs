//! From the columns' vectors to what the language model sees of an image: `<img>`, then vectors of its width.
//!
//! `<img>` is there whatever else is absent, so that no place of a softmax has nothing to look at. A column of one vector may
//! become `k` of them, a column of many keeps its number.

use tch::{Kind, Tensor};

use super::{
    super::{ColumnInput, Handle, Init, Params, ParamsBuilder},
    mapper::Mapper,
    spec::{Gpt2Mapping, Gpt2Spec},
    weights::OWN,
};
use crate::batch::{Prefix, Vectors};

/// The images as the language model sees them.
#[derive(Debug)]
pub(super) struct Seen {
    /// `[N, K, W]`, `<img>` first.
    pub values: Tensor,
    /// `[N, K]` bool, true where there is a vector; `None` where all are there.
    pub present: Option<Tensor>,
}

/// One column's map.
#[derive(Debug)]
struct ColumnMap {
    /// The only layer, or the one before tanh.
    first: (Handle, Handle),
    /// The MLP's second layer.
    second: Option<(Handle, Handle)>,
    /// Tells columns apart where there are several.
    kind: Option<Handle>,
    /// Vectors that each of the column's vectors becomes.
    each: i64,
}

/// The mapping of all columns.
#[derive(Debug)]
pub(super) struct Images {
    pub inputs: Vec<ColumnInput>,
    columns: Vec<ColumnMap>,
    mapper: Option<Mapper>,
    /// The vector of `<img>`, `[W]`.
    pub mark: Handle,
    width: i64,
}

impl Images {
    pub fn declare(builder: &mut ParamsBuilder, inputs: &[ColumnInput], spec: &Gpt2Spec, width: i64) -> Self {
        let mark = builder.add(format!("{OWN}img"), &[width], Init::Normal(0.02));
        let columns = inputs.iter().map(|input| ColumnMap::declare(builder, input, inputs.len() > 1, spec, width));
        let columns = columns.collect();
        let mapper =
            (spec.mapping == Gpt2Mapping::Transformer).then(|| Mapper::declare(builder, spec.vectors(), width));
        Self { inputs: inputs.to_vec(), columns, mapper, mark, width }
    }

    /// `K`, `<img>` counted.
    pub fn count(&self) -> i64 {
        let mapped = || self.inputs.iter().zip(&self.columns).map(|(input, map)| input.vectors * map.each).sum();
        1 + self.mapper.as_ref().map_or_else(mapped, Mapper::count)
    }

    /// Shares `[n, 1 + K each]` of `<img>` and the columns' places as shares of the columns' vectors, `[n, K]`.
    pub fn of_columns(&self, shares: &Tensor) -> Tensor {
        let mut begun = 1;
        let parts = self.inputs.iter().zip(&self.columns).map(|(input, map)| {
            let of_column = shares.narrow(1, begun, input.vectors * map.each).view([-1, input.vectors, map.each]);
            begun += input.vectors * map.each;
            of_column.sum_dim_intlist(2, false, Kind::Float)
        });
        Tensor::cat(&parts.collect::<Vec<_>>(), 1)
    }

    /// Maps every column, one after another.
    pub fn apply(&self, params: &Params, prefix: &Prefix) -> Seen {
        let pairs = || prefix.columns.iter().zip(&self.columns);
        let mapped: Vec<Tensor> = pairs().map(|(vectors, map)| map.apply(params, &vectors.data, self.width)).collect();
        let absent = prefix.columns.iter().any(|vectors| vectors.present.is_some());
        let present = absent.then(|| Tensor::cat(&pairs().map(|(v, map)| map.present(v)).collect::<Vec<_>>(), 1));
        let mapped = Tensor::cat(&mapped, 1); // [N, K, W]
        let (mapped, present) = match &self.mapper {
            Some(mapper) => (mapper.apply(params, &mapped, present.as_ref()), None),
            None => (mapped, present),
        };
        let mark = params.get(self.mark).expand([mapped.size()[0], 1, self.width], false);
        let there = |present: Tensor| Tensor::cat(&[present.narrow(1, 0, 1).ones_like(), present], 1);
        Seen { values: Tensor::cat(&[mark, mapped], 1), present: present.map(there) }
    }
}

impl ColumnMap {
    fn declare(builder: &mut ParamsBuilder, input: &ColumnInput, several: bool, spec: &Gpt2Spec, width: i64) -> Self {
        let name = format!("{OWN}mapping.{}", input.name);
        let each = if input.vectors == 1 { spec.vectors() } else { 1 };
        let wide = each * width;
        let (first, second) = if spec.mapping == Gpt2Mapping::Mlp {
            let inner = (wide / 2).max(1);
            let first = builder.linear(&format!("{name}.0"), input.width, inner);
            (first, Some(builder.linear(&format!("{name}.2"), inner, wide)))
        } else {
            (builder.linear(&name, input.width, wide), None)
        };
        let kind = several.then(|| builder.add(format!("{name}.type"), &[width], Init::Uniform(0.02)));
        Self { first, second, kind, each }
    }

    /// `[N, K each, W]` of `[N, K, D]`.
    fn apply(&self, params: &Params, vectors: &Tensor, width: i64) -> Tensor {
        let linear = |input: &Tensor, (weight, bias)| input.linear(params.get(weight), Some(params.get(bias)));
        let mut mapped = linear(vectors, self.first);
        if let Some(second) = self.second {
            mapped = linear(&mapped.tanh(), second);
        }
        let mapped = mapped.view([vectors.size()[0], -1, width]);
        match self.kind {
            Some(kind) => mapped + params.get(kind),
            None => mapped,
        }
    }

    /// `[N, K each]`
    fn present(&self, vectors: &Vectors) -> Tensor {
        let size = vectors.data.size();
        let one = match &vectors.present {
            Some(present) => present.shallow_clone(),
            None => Tensor::ones(&size[..2], (Kind::Bool, vectors.data.device())),
        };
        one.unsqueeze(2).expand([size[0], size[1], self.each], false).reshape([size[0], -1])
    }
}
