use tch::Kind;

use super::*;

fn params(seed: u64) -> (Params, [Handle; 3]) {
    let mut builder = ParamsBuilder::new(seed);
    let (weight, bias) = builder.linear("first", 3, 5);
    let last = builder.add("last.weight", &[2, 2], Init::Constant(0.5));
    (builder.build(Device::Cpu), [weight, bias, last])
}

#[test]
fn leaves_alias_the_buffer_and_matrices_come_first() {
    let (params, [weight, bias, last]) = params(1);
    assert_eq!((params.decayed(), params.flat().size(), params.count()), (32, vec![48], 24));
    let _ = tch::no_grad(|| params.flat().narrow(0, 0, 32).fill_(2.0));
    assert_eq!(params.get(weight).sum(Kind::Double).double_value(&[]), 30.0);
    assert_eq!(params.get(last).sum(Kind::Double).double_value(&[]), 8.0);
    assert!(params.get(bias).abs().max().double_value(&[]) < 0.6);
    assert!(params.get(bias).requires_grad());
}

#[test]
fn first_values_depend_on_seed_and_name_only() {
    let ((one, [weight, ..]), (two, _), (other, _)) = (params(1), params(1), params(2));
    assert!(one.flat().equal(two.flat()));
    assert!(!one.flat().equal(other.flat()));
    let mut builder = ParamsBuilder::new(1);
    builder.add("another.weight", &[7, 7], Init::Uniform(1.0));
    let (same, _) = builder.linear("first", 3, 5);
    let alone = builder.build(Device::Cpu);
    assert!(alone.get(same).equal(one.get(weight)));
}

#[test]
fn frozen_parameters_lie_outside_of_the_buffer_and_are_saved() {
    let frozen = |seed| {
        let mut builder = ParamsBuilder::new(seed);
        builder.freeze(true);
        let held = builder.add("held.weight", &[40, 50], Init::Normal(0.5));
        builder.freeze(false);
        let trained = builder.add("trained.weight", &[4, 4], Init::Uniform(1.0));
        (builder.build(Device::Cpu), held, trained)
    };
    let ((params, held, trained), (mut other, ..)) = (frozen(1), frozen(2));
    assert_eq!((params.count(), params.frozen_count(), params.flat().size()), (16, 2000, vec![16]));
    assert_eq!((held.index(), trained.index(), params.leaves().len()), (None, Some(0), 1));
    assert!(!params.get(held).requires_grad() && params.get(trained).requires_grad());
    let (mean, deviation) = (params.get(held).mean(Kind::Float), params.get(held).std(true));
    assert!(mean.double_value(&[]).abs() < 0.04 && (deviation.double_value(&[]) - 0.5).abs() < 0.03);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    params.save(&path).unwrap();
    other.load(&path).unwrap();
    assert!(other.get(held).equal(params.get(held)) && other.flat().equal(params.flat()));
}

#[test]
fn gradients_add_up_in_the_buffers_layout() {
    let (params, [weight, ..]) = params(1);
    let loss = params.get(weight).sum(Kind::Float) + params.leaves().iter().map(|t| t.sum(Kind::Float)).sum::<Tensor>();
    let gradients = Tensor::run_backward(&[loss], params.leaves(), false, false);
    let sum = params.flat().zeros_like();
    params.accumulate(&gradients, 0.5, true, &sum);
    params.accumulate(&gradients, 0.25, false, &sum);
    let named = params.named(&sum);
    assert_eq!(named[0].1.double_value(&[4, 2]), 1.5);
    assert_eq!(named[2].1.double_value(&[1, 1]), 0.75);
    assert_eq!(sum.sum(Kind::Double).double_value(&[]), 15.0 * 1.5 + 9.0 * 0.75);
}

#[test]
fn the_bf16_copy_follows_the_numbers_and_its_gradients_add_up_in_f32() {
    let (mut params, [weight, bias, last]) = params(1);
    let exact = params.get(weight).copy();
    for factor in [1.0, 3.0] {
        let _ = tch::no_grad(|| params.flat().shallow_clone().g_mul_scalar_(factor));
        params.compute_in_half(true);
        let expected = (&exact * factor).to_kind(Kind::BFloat16);
        assert!(params.get(weight).equal(&expected) && params.get(bias).kind() == Kind::BFloat16);
        assert!(params.leaves()[0].requires_grad() && params.leaves()[0].is_leaf());
        let loss = params.get(last).sum(Kind::Float) * 1.0;
        let gradients = Tensor::run_backward(&[loss], &[params.get(last)], false, false);
        assert_eq!(gradients[0].kind(), Kind::BFloat16);
        params.compute_in_half(false);
        assert_eq!(params.get(weight).kind(), Kind::Float);
    }
    let sum = params.flat().zeros_like();
    let one = |value: f64| {
        params.leaves().iter().map(|leaf| (leaf.ones_like() * value).to_kind(Kind::BFloat16)).collect::<Vec<_>>()
    };
    params.accumulate(&one(1.0), 1.0, true, &sum);
    params.accumulate(&one(1.0), 1.0 / 1024.0, false, &sum); // lost in bf16
    assert_eq!(params.named(&sum)[0].1.double_value(&[0, 0]), 1.0 + 1.0 / 1024.0);
}
