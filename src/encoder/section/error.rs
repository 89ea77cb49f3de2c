//! Why a part of a model can't be taken out of it, or put back.

use std::path::PathBuf;

/// A section that can't be cut, or weights that can't be put back.
#[derive(Debug, thiserror::Error)]
pub enum SectionError {
    /// One tensor does not lead to the other.
    #[error(
        "`{to}` is not computed from `{from}` in `{}`\nhint: name a later tensor of the same model; `icecap inspect` lists them in order",
        path.display()
    )]
    Apart {
        /// The model.
        path: PathBuf,
        /// The tensor that it should begin with.
        from: String,
        /// The tensor that it should end with.
        to: String,
    },
    /// A way from the picture goes past the first tensor.
    #[error(
        "`{to}` also needs `{tensor}`, which is not computed from `{from}`: something in `{}` goes past `{from}`\nhint: {}",
        path.display(), instead(nearest)
    )]
    Bypassed {
        /// The model.
        path: PathBuf,
        /// The tensor that it should begin with.
        from: String,
        /// The tensor that it should end with.
        to: String,
        /// The tensor that is missing then.
        tensor: String,
        /// The nearest tensors that all ways go through.
        nearest: Vec<String>,
    },
    /// A constant that is computed.
    #[error(
        "the node `{node}` of `{}` reads `{tensor}`, which is computed from constants\nhint: fold the model's constants first, for example \
         with onnxsim", path.display()
    )]
    Computed {
        /// The model.
        path: PathBuf,
        /// The node.
        node: String,
        /// What it reads.
        tensor: String,
    },
    /// A constant of an element type that is not trained.
    #[error(
        "the constant `{tensor}` of `{}` is of type {element}: a tail has weights of f32 and shapes of i64\nhint: use the model's f32 export",
        path.display()
    )]
    Element {
        /// The model.
        path: PathBuf,
        /// The constant.
        tensor: String,
        /// Its element type.
        element: String,
    },
    /// A second output of a node is used.
    #[error(
        "the node `{node}` ({operator}) of `{}` makes several tensors that are used, and a tail knows nodes of one\nhint: begin the tail after it",
        path.display()
    )]
    Outputs {
        /// The model.
        path: PathBuf,
        /// The node.
        node: String,
        /// Its operator.
        operator: String,
    },
    /// The model isn't the one that the weights are of.
    #[error(
        "`{}` is not the model that the tail was cut out of: it has no weight `{input}` of `{output}`\nhint: give the ONNX file that encoded \
         the run's cache by --model", path.display()
    )]
    Elsewhere {
        /// The model.
        path: PathBuf,
        /// The tensor made by the weight's node.
        output: String,
        /// The weight's place.
        input: usize,
    },
}

fn instead(nearest: &[String]) -> String {
    match nearest {
        [] => "no tensor between the picture and it would do".to_owned(),
        names => {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            format!("tap {} instead: everything goes through it there", names.join(" or "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_would_do() {
        let (path, from, to) = (PathBuf::from("m.onnx"), "relu".to_owned(), "out".to_owned());
        let apart = SectionError::Apart { path: path.clone(), from: from.clone(), to: to.clone() };
        insta::assert_snapshot!(apart, @"
        `out` is not computed from `relu` in `m.onnx`
        hint: name a later tensor of the same model; `icecap inspect` lists them in order
        ");
        let bypassed = |nearest: &[&str]| SectionError::Bypassed {
            path: path.clone(),
            from: from.clone(),
            to: to.clone(),
            tensor: "skip".into(),
            nearest: nearest.iter().map(|name| (*name).to_owned()).collect(),
        };
        insta::assert_snapshot!(bypassed(&["early", "late"]), @"
        `out` also needs `skip`, which is not computed from `relu`: something in `m.onnx` goes past `relu`
        hint: tap `early` or `late` instead: everything goes through it there
        ");
        insta::assert_snapshot!(bypassed(&[]), @"
        `out` also needs `skip`, which is not computed from `relu`: something in `m.onnx` goes past `relu`
        hint: no tensor between the picture and it would do
        ");
        let computed = SectionError::Computed { path: path.clone(), node: "n".into(), tensor: "t".into() };
        insta::assert_snapshot!(computed, @"
        the node `n` of `m.onnx` reads `t`, which is computed from constants
        hint: fold the model's constants first, for example with onnxsim
        ");
        let element = SectionError::Element { path: path.clone(), tensor: "w".into(), element: "Float16".into() };
        insta::assert_snapshot!(element, @"
        the constant `w` of `m.onnx` is of type Float16: a tail has weights of f32 and shapes of i64
        hint: use the model's f32 export
        ");
        let outputs = SectionError::Outputs { path: path.clone(), node: "n".into(), operator: "Split".into() };
        insta::assert_snapshot!(outputs, @"
        the node `n` (Split) of `m.onnx` makes several tensors that are used, and a tail knows nodes of one
        hint: begin the tail after it
        ");
        insta::assert_snapshot!(SectionError::Elsewhere { path, output: "y".into(), input: 1 }, @"
        `m.onnx` is not the model that the tail was cut out of: it has no weight `1` of `y`
        hint: give the ONNX file that encoded the run's cache by --model
        ");
    }
}
