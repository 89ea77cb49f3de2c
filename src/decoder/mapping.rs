//! From the columns' vectors to vectors of one width: a linear map a column, and a learned type where there are several.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::{Activation, Handle, Init, Params, ParamsBuilder, dropout::Dropout};
use crate::batch::Prefix;

/// A column that a decoder looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnInput {
    /// The column's name; part of its parameters' names.
    pub name: String,
    /// Vectors an image, `K`.
    pub vectors: i64,
    /// Their width, `D`.
    pub width: i64,
}

impl ColumnInput {
    /// As [`crate::batch::gather`] sees a row of this shape: the last axis is the width, the others count vectors.
    #[must_use]
    pub fn of_shape(name: &str, row_shape: &[usize]) -> Self {
        let vectors: usize = row_shape.iter().rev().skip(1).product();
        let width = row_shape.last().copied().unwrap_or(1);
        Self { name: name.to_owned(), vectors: vectors as i64, width: width as i64 }
    }
}

/// The mapped vectors of a batch's images.
#[derive(Debug)]
pub(super) struct Mapped {
    /// `[N, K, W]`, all columns one after another; zero where there is no vector.
    pub values: Tensor,
    /// `[N, K]` bool, true where there is a vector; `None` where all are there.
    pub present: Option<Tensor>,
}

impl Mapped {
    /// The mean of an image's vectors, `[N, W]`; zero where it has none.
    pub fn mean(&self) -> Tensor {
        let Some(present) = &self.present else {
            return self.values.mean_dim(1, false, Kind::Float);
        };
        let count = present.sum_dim_intlist(1, true, Kind::Float).clamp_min(1.0); // [N, 1]
        self.values.sum_dim_intlist(1, false, Kind::Float) / count
    }
}

/// The maps of all columns.
#[derive(Debug)]
pub(super) struct Mapping {
    pub inputs: Vec<ColumnInput>,
    columns: Vec<(Handle, Handle, Option<Handle>)>,
    activation: Activation,
    dropout: f64,
}

impl Mapping {
    pub fn declare(
        builder: &mut ParamsBuilder,
        inputs: &[ColumnInput],
        width: i64,
        activation: Activation,
        dropout: f64,
    ) -> Self {
        let several = inputs.len() > 1;
        let columns = inputs.iter().map(|input| {
            let name = format!("mapping.{}", input.name);
            let (weight, bias) = builder.linear(&name, input.width, width);
            let kind = several.then(|| builder.add(format!("{name}.type"), &[width], Init::Uniform(0.02)));
            (weight, bias, kind)
        });
        Self { inputs: inputs.to_vec(), columns: columns.collect(), activation, dropout }
    }

    /// The mean of an image's mapped vectors, `[N, W]`, then dropout; zero where it has none.
    ///
    /// A linear map is applied to the sum of the vectors: once an image instead of once a vector.
    pub fn mean(&self, params: &Params, prefix: &Prefix, dropout: &Dropout) -> Tensor {
        let mean = match self.activation {
            Activation::None => self.linear_mean(params, prefix),
            _ => self.apply(params, prefix, &Dropout::none()).mean(),
        };
        dropout.apply(mean, self.dropout)
    }

    /// sum(W x + b + type) over the vectors that are there, by their number.
    fn linear_mean(&self, params: &Params, prefix: &Prefix) -> Tensor {
        if let ([vectors], [(weight, bias, None)]) = (&prefix.columns[..], &self.columns[..])
            && vectors.present.is_none()
        {
            let mean = vectors.data.mean_dim(1, false, Kind::Float); // [N, D]
            return mean.linear(params.get(*weight), Some(params.get(*bias)));
        }
        let mut sums: Vec<Tensor> = vec![];
        let mut counts: Vec<Tensor> = vec![];
        for (vectors, &(weight, bias, kind)) in prefix.columns.iter().zip(&self.columns) {
            let size = vectors.data.size();
            let present = match &vectors.present {
                Some(present) => present.to_kind(Kind::Float), // [N, K]
                None => Tensor::ones(&size[..2], (Kind::Float, vectors.data.device())),
            };
            let count = present.sum_dim_intlist(1, true, Kind::Float); // [N, 1]
            let sum = present.unsqueeze(1).bmm(&vectors.data).squeeze_dim(1); // [N, D]
            let bias = params.get(bias).shallow_clone();
            let bias = kind.map_or(bias.shallow_clone(), |kind| bias + params.get(kind));
            sums.push(sum.linear::<Tensor>(params.get(weight), None) + &count * bias);
            counts.push(count);
        }
        let count: Tensor = counts.into_iter().sum();
        sums.into_iter().sum::<Tensor>() / count.clamp_min(1.0)
    }

    /// Its parameters, and those that the vectors themselves depend on.
    pub fn handles(&self, params: &Params) -> impl Iterator<Item = Handle> {
        let own = self.columns.iter().flat_map(|&(weight, bias, kind)| [Some(weight), Some(bias), kind]).flatten();
        own.chain(params.upstream())
    }

    /// Maps every column: dropout(activation(W x + b) + type).
    pub fn apply(&self, params: &Params, prefix: &Prefix, dropout: &Dropout) -> Mapped {
        let one = |(vectors, &(weight, bias, kind)): (&crate::batch::Vectors, &(Handle, Handle, Option<Handle>))| {
            let mapped = vectors.data.linear(params.get(weight), Some(params.get(bias)));
            let mapped = self.activation.apply(mapped);
            match kind {
                Some(kind) => mapped + params.get(kind),
                None => mapped,
            }
        };
        let mut values: Vec<Tensor> = prefix.columns.iter().zip(&self.columns).map(one).collect();
        let values = if values.len() == 1 { values.remove(0) } else { Tensor::cat(&values, 1) };
        let values = dropout.apply(values, self.dropout);
        let present = present(prefix);
        let values = match &present {
            Some(present) => values * present.unsqueeze(-1),
            None => values,
        };
        Mapped { values, present }
    }
}

/// The columns' masks one after another, where any has one.
fn present(prefix: &Prefix) -> Option<Tensor> {
    prefix.columns.iter().any(|vectors| vectors.present.is_some()).then(|| {
        let all = |data: &Tensor| Tensor::ones([data.size()[0], data.size()[1]], (Kind::Bool, data.device()));
        let masks = prefix.columns.iter().map(|vectors| match &vectors.present {
            Some(mask) => mask.shallow_clone(),
            None => all(&vectors.data),
        });
        Tensor::cat(&masks.collect::<Vec<_>>(), 1)
    })
}
