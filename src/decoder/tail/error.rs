//! Why a section of a network can't be trained as a tail.

/// A section with something that no tail knows, or that does not fit its column.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// An operator that is not known here.
    #[error(
        "the tail's node `{node}` is of the operator `{operator}`, which can't be trained yet\nhint: begin the tail after it, or end it before"
    )]
    Operator {
        /// The node.
        node: String,
        /// ONNX's operator.
        operator: String,
    },
    /// A known operator used in a way that is not known here.
    #[error(
        "the tail's node `{node}` ({operator}) has {what}, which can't be trained yet\nhint: begin the tail after it, or end it before"
    )]
    Use {
        /// The node.
        node: String,
        /// ONNX's operator.
        operator: String,
        /// What is not known.
        what: String,
    },
    /// The node can't be computed.
    #[error("the tail's node `{node}` ({operator}) can't be computed")]
    Compute {
        /// The node.
        node: String,
        /// ONNX's operator.
        operator: String,
        /// What torch said.
        #[source]
        source: tch::TchError,
    },
    /// Something comes out that the model doesn't give.
    #[error(
        "the tail gives `{to}` of the shape {found:?} for three pictures, and the model {expected:?}\nhint: the model fixes its batch: \
         export it with an open one"
    )]
    Shape {
        /// The tensor.
        to: String,
        /// The tail's shape.
        found: Vec<i64>,
        /// The model's.
        expected: Vec<i64>,
    },
    /// The column's rows are not the tensor.
    #[error(
        "the rows of column `{column}` are {vectors} x {width}, and the tensor `{from}` that the tail begins with is {input:?}\nhint: keep \
         the tensor as it is: pool = \"none\""
    )]
    Column {
        /// The column.
        column: String,
        /// Its vectors.
        vectors: i64,
        /// Their width.
        width: i64,
        /// The tensor.
        from: String,
        /// Its shape.
        input: Vec<i64>,
    },
    /// The end can't be pooled so.
    #[error(
        "`tail.pool` = `{pool}` needs a map, and `{to}` is {output:?}\nhint: leave `pool` out, or end the tail at an earlier tensor"
    )]
    Pool {
        /// As in the recipe.
        pool: String,
        /// The tensor.
        to: String,
        /// Its shape.
        output: Vec<i64>,
    },
    /// No batch norm to train.
    #[error(
        "`tail.batch_norm` = `train`, and there is no BatchNormalization between `{from}` and `{to}`: its exporter folded them into the \
         convolutions\nhint: leave `batch_norm` out"
    )]
    NoBatchNorm {
        /// The first tensor.
        from: String,
        /// The last one.
        to: String,
    },
    /// Nothing to train.
    #[error("there is nothing to train between `{from}` and `{to}`\nhint: begin the tail at an earlier tensor")]
    Nothing {
        /// The first tensor.
        from: String,
        /// The last one.
        to: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_node_and_the_way_out() {
        let (node, from, to) = ("/n".to_owned(), "a".to_owned(), "b".to_owned());
        insta::assert_snapshot!(TailError::Operator { node: node.clone(), operator: "Loop".into() }, @"
        the tail's node `/n` is of the operator `Loop`, which can't be trained yet
        hint: begin the tail after it, or end it before
        ");
        let operator = "Conv".to_owned();
        insta::assert_snapshot!(TailError::Use { node: node.clone(), operator: operator.clone(), what: "a computed weight".into() }, @"
        the tail's node `/n` (Conv) has a computed weight, which can't be trained yet
        hint: begin the tail after it, or end it before
        ");
        let source = tch::TchError::Kind("no".into());
        insta::assert_snapshot!(TailError::Compute { node, operator, source }, @"the tail's node `/n` (Conv) can't be computed");
        insta::assert_snapshot!(TailError::Shape { to: to.clone(), found: vec![1, 6], expected: vec![3, 2] }, @"
        the tail gives `b` of the shape [1, 6] for three pictures, and the model [3, 2]
        hint: the model fixes its batch: export it with an open one
        ");
        let column =
            TailError::Column { column: "c".into(), vectors: 4, width: 8, from: from.clone(), input: vec![8, 7, 7] };
        insta::assert_snapshot!(column, @r#"
        the rows of column `c` are 4 x 8, and the tensor `a` that the tail begins with is [8, 7, 7]
        hint: keep the tensor as it is: pool = "none"
        "#);
        insta::assert_snapshot!(TailError::Pool { pool: "7x7".into(), to: to.clone(), output: vec![10] }, @"
        `tail.pool` = `7x7` needs a map, and `b` is [10]
        hint: leave `pool` out, or end the tail at an earlier tensor
        ");
        insta::assert_snapshot!(TailError::NoBatchNorm { from: from.clone(), to: to.clone() }, @"
        `tail.batch_norm` = `train`, and there is no BatchNormalization between `a` and `b`: its exporter folded them into the convolutions
        hint: leave `batch_norm` out
        ");
        insta::assert_snapshot!(TailError::Nothing { from, to }, @"
        there is nothing to train between `a` and `b`
        hint: begin the tail at an earlier tensor
        ");
    }
}
