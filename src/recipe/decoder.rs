//! The section `[decoder]`: which columns it reads, and the decoder itself.
//!
//! `columns` and `standardize` are taken out before the rest is read as a [`DecoderSpec`]: a decoder knows shapes, neither names nor scales.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};

use crate::decoder::DecoderSpec;

/// The section `[decoder]`.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderSection {
    /// The columns the decoder reads, in this order.
    pub columns: Vec<String>,
    /// Whether each dimension of a column is brought to mean 0 and deviation 1 over the training rows first.
    pub standardize: bool,
    /// The decoder: its kind and sizes.
    pub spec: DecoderSpec,
}

impl<'de> Deserialize<'de> for DecoderSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = toml::Table::deserialize(deserializer)?;
        let columns = table.remove("columns").ok_or_else(|| D::Error::missing_field("columns"))?;
        let columns: Vec<String> = columns.try_into().map_err(|_| D::Error::custom("`columns` is a list of names"))?;
        if columns.is_empty() {
            return Err(D::Error::custom("`columns` is empty: a decoder reads at least one column"));
        }
        let standardize = table.remove("standardize").map(toml::Value::try_into).transpose();
        let standardize = standardize.map_err(|_| D::Error::custom("`standardize` is true or false"))?.unwrap_or(false);
        let spec = DecoderSpec::deserialize(table).map_err(|error| D::Error::custom(error.message()))?;
        Ok(Self { columns, standardize, spec })
    }
}

impl Serialize for DecoderSection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut table = toml::Table::try_from(&self.spec).map_err(S::Error::custom)?;
        table.insert("columns".to_owned(), self.columns.clone().into());
        table.insert("standardize".to_owned(), self.standardize.into());
        table.serialize(serializer)
    }
}
