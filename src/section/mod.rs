//! A part of a network, between two of its tensors, as plain data: nodes, attributes, first values.
//!
//! The encoder cuts it out of an ONNX file, a decoder trains it, and what was trained goes back the same way. It must not know
//! either: nothing here reads a file or computes. One decision defended: a weight is known by the node that reads it and the
//! place among the node's inputs, not by its name. Exporters merge weights that happen to be equal (all biases of an untrained
//! net); after a step they are no longer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is computed between two tensors of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// Digest of the model, as a column's key has it.
    pub model: String,
    /// The tensor that it begins with.
    pub from: String,
    /// The tensor that it ends with.
    pub to: String,
    /// Shape of `from` for one picture: `[C, H, W]`, `[T, D]` or `[D]`.
    pub input: Vec<i64>,
    /// Shape of `to` for one picture.
    pub output: Vec<i64>,
    /// In an order in which they can be computed.
    pub nodes: Vec<Node>,
    /// Every constant that a node reads, once.
    pub constants: Vec<Constant>,
}

/// One node of a section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name in the model, or that of its output where it has none.
    pub name: String,
    /// ONNX's operator, with its domain before it where that isn't ONNX's own.
    pub operator: String,
    /// Tensors and constants by name; empty where an optional one is left out.
    pub inputs: Vec<String>,
    /// The tensor that it makes.
    pub output: String,
    /// Its attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Attribute>,
}

/// An attribute's value; a single number is a list of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribute {
    /// Integers.
    Integers(Vec<i64>),
    /// Floats.
    Floats(Vec<f32>),
    /// A word.
    Text(String),
    /// Something else: a tensor, a graph.
    Other,
}

/// A constant that nodes read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {
    /// Its name in the model.
    pub name: String,
    /// Its shape; empty for a single number.
    pub shape: Vec<i64>,
    /// Its values.
    pub values: Values,
}

/// Values of a constant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Values {
    /// Integers: axes and shapes.
    Integers(Vec<i64>),
    /// Floats: weights. They are kept beside the description, not in it.
    Floats(#[serde(skip)] Vec<f32>),
}

/// New values of one weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    /// The tensor that its node makes.
    pub output: String,
    /// Its place among the node's inputs.
    pub input: usize,
    /// The values, in the shape that it had.
    pub values: Vec<f32>,
}

impl Section {
    /// The constant of this name.
    #[must_use]
    pub fn constant(&self, name: &str) -> Option<&Constant> {
        self.constants.iter().find(|constant| constant.name == name)
    }
}

impl Node {
    /// A list of integers.
    #[must_use]
    pub fn integers(&self, attribute: &str) -> Option<&[i64]> {
        match self.attributes.get(attribute)? {
            Attribute::Integers(values) => Some(values),
            _ => None,
        }
    }

    /// One integer, or what it is where it isn't given.
    #[must_use]
    pub fn integer(&self, attribute: &str, default: i64) -> i64 {
        self.integers(attribute).and_then(|values| values.first().copied()).unwrap_or(default)
    }

    /// One float, or what it is where it isn't given.
    #[must_use]
    pub fn float(&self, attribute: &str, default: f32) -> f64 {
        let found = match self.attributes.get(attribute) {
            Some(Attribute::Floats(values)) => values.first().copied(),
            _ => None,
        };
        f64::from(found.unwrap_or(default))
    }

    /// A word; empty where it isn't given.
    #[must_use]
    pub fn text(&self, attribute: &str) -> &str {
        match self.attributes.get(attribute) {
            Some(Attribute::Text(text)) => text,
            _ => "",
        }
    }

    /// The name of the input at `place`; none where it is left out.
    #[must_use]
    pub fn input(&self, place: usize) -> Option<&str> {
        self.inputs.get(place).map(String::as_str).filter(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_survives_writing_and_leaves_the_weights_out() {
        let constant = |name: &str, values| Constant { name: name.into(), shape: vec![2], values };
        let attributes = [
            ("axes".to_owned(), Attribute::Integers(vec![2, 3])),
            ("alpha".to_owned(), Attribute::Floats(vec![1.0])),
            ("auto_pad".to_owned(), Attribute::Text("VALID".into())),
        ];
        let section = Section {
            model: "ab".into(),
            from: "a".into(),
            to: "b".into(),
            input: vec![1, 2, 2],
            output: vec![1],
            nodes: vec![Node {
                name: "n".into(),
                operator: "Conv".into(),
                inputs: vec!["a".into(), String::new(), "w".into()],
                output: "b".into(),
                attributes: attributes.into(),
            }],
            constants: vec![
                constant("w", Values::Floats(vec![0.5, 1.0])),
                constant("s", Values::Integers(vec![0, -1])),
            ],
        };
        let text = serde_json::to_string(&section).unwrap();
        let mut read: Section = serde_json::from_str(&text).unwrap();
        assert_eq!(read.constants[0].values, Values::Floats(vec![]));
        read.constants[0].values = Values::Floats(vec![0.5, 1.0]);
        assert_eq!(read, section);
        let node = &read.nodes[0];
        assert_eq!((node.integers("axes"), node.float("alpha", 0.0)), (Some(&[2, 3][..]), 1.0));
        assert_eq!((node.text("auto_pad"), node.input(1), node.input(2)), ("VALID", None, Some("w")));
        assert_eq!((node.integer("axes", 9), node.integer("group", 1), node.float("beta", 0.5)), (2, 1, 0.5));
    }
}
