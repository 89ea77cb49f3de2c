//! Several taps in one column, and rows for i8.

use super::*;

/// Height and width of the pictures: `c1` is a map of 4x4 and `c2`, of stride 2, one of 2x2.
const SIZE: [usize; 2] = [4, 4];

fn joined(tensors: &[&str], pool: Pool) -> Tap {
    let tensors = tensors.iter().map(|&tensor| tensor.to_owned()).collect();
    Tap { tensors, ..tap("x", "", pool, Dtype::F32) }
}

fn rows_of(tap: Tap) -> (Vec<usize>, Vec<f32>) {
    init_runtime(None).unwrap();
    let plan = plan(2, SIZE, vec![tap]);
    let encoder = compile(&fixture("tiny.onnx"), &plan).unwrap();
    let rows = f32s(&run(&encoder, &pictures(&plan, 9), 1)[0]);
    (encoder.outputs()[0].row_shape.clone(), rows)
}

#[test]
fn vectors_lie_side_by_side_in_the_order_of_the_taps() {
    for pool in [Pool::Global, Pool::Grid(2), Pool::Grid(3), Pool::Grid(4)] {
        let parts = ["c2", "seen", "c1"].map(|tensor| rows_of(joined(&[tensor], pool)));
        let (shape, rows) = rows_of(joined(&["c2", "seen", "c1"], pool));
        assert_eq!(shape[..shape.len() - 1], parts[0].0[..parts[0].0.len() - 1], "{pool}");
        assert_eq!(shape.last(), Some(&(8 + 3 + 8)), "{pool}");
        let vectors = rows.len() / 19;
        let expected = (0..vectors).flat_map(|vector| {
            parts.iter().flat_map(move |(shape, rows)| {
                let width = shape[shape.len() - 1];
                rows[vector * width..][..width].to_vec()
            })
        });
        assert_eq!(rows, expected.collect::<Vec<f32>>(), "{pool}");
    }
}

#[test]
fn vectors_of_any_kind_are_joined_where_they_fit() {
    assert_eq!(rows_of(joined(&["vector", "score"], Pool::None)).0, [9]);
    assert_eq!(rows_of(joined(&["c1", "c1.conv"], Pool::None)).0, [16, 16]);
}

#[test]
fn the_joined_vector_has_the_length_one() {
    let plain = rows_of(joined(&["c1", "c2"], Pool::Grid(2))).1;
    let unit = rows_of(Tap { l2: true, ..joined(&["c1", "c2"], Pool::Grid(2)) }).1;
    for (plain, unit) in plain.chunks(16).zip(unit.chunks(16)) {
        let length = plain.iter().map(|x| x * x).sum::<f32>().sqrt();
        for (x, y) in plain.iter().zip(unit) {
            assert!((x / length - y).abs() < 1e-6, "{x} {length} {y}");
        }
    }
}

#[test]
fn layers_of_different_numbers_of_vectors_are_refused() {
    init_runtime(None).unwrap();
    let refused = |tensors: &[&str], pool| {
        compile(&fixture("tiny.onnx"), &plan(2, SIZE, vec![joined(tensors, pool)])).err().unwrap().to_string()
    };
    insta::assert_snapshot!(refused(&["c1", "c2"], Pool::None), @r#"
    column `x` can't join `c1` [16, 8] and `c2` [4, 8]: they have different numbers of vectors
    hint: pool them alike, by pool = "global" or a grid such as pool = "7x7"
    "#);
    insta::assert_snapshot!(refused(&["c1", "c22"], Pool::Global).lines().next().unwrap_or_default().replace(env!("CARGO_MANIFEST_DIR"), "."), @"`./tests/fixtures/encoder/tiny.onnx` has no tensor `c22`; nearest: `c2`, `c1`");
    insta::assert_snapshot!(refused(&[], Pool::Global), @r"
    encoder: the list of taps of a column is `x`
    hint: tap one tensor at least
    ");
}

#[test]
fn the_key_names_all_taps_and_one_alone_as_it_always_did() {
    let tensor = |tap: Tap| key_fields("digest", &plan(2, SIZE, vec![]), &tap)[1].1.to_string();
    assert_eq!(tensor(joined(&["c1"], Pool::Global)), r#""c1""#);
    assert_eq!(tensor(joined(&["c1", "c2"], Pool::Global)), r#"["c1","c2"]"#);
}

#[test]
fn rows_for_i8_are_given_out_as_f32() {
    init_runtime(None).unwrap();
    let taps = vec![tap("f32", "c2", Pool::Grid(2), Dtype::F32), tap("i8", "c2", Pool::Grid(2), Dtype::I8)];
    let plan = plan(2, SIZE, taps);
    let encoder = compile(&fixture("tiny.onnx"), &plan).unwrap();
    assert_eq!(encoder.outputs()[1].dtype, Dtype::F32);
    let rows = run(&encoder, &pictures(&plan, 3), 1);
    assert_eq!(rows[0], rows[1]);
    assert_ne!(key_fields("digest", &plan, &plan.taps[0]), key_fields("digest", &plan, &plan.taps[1]));
}
