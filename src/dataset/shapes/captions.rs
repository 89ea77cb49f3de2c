//! Five captions of a scene, from a small grammar. Each names every object's colour and shape, and all are true.

use super::scene::{Arrangement, Object, Scene, Shape};

/// How many captions a scene has.
const COUNT: usize = 5;

impl Scene {
    /// Five different captions, lower case.
    pub fn captions(&self) -> Vec<String> {
        let (arrangement, objects) = self.objects();
        let sentences = match objects.as_slice() {
            [one] => single(one),
            [first, rest @ ..] if rest.iter().all(|other| is_alike(first, other)) => {
                group(first, objects.len(), arrangement)
            }
            [first, second] => pair(first, second, arrangement),
            [first, second, third, ..] => triple(first, second, third, arrangement),
            [] => Vec::new(),
        };
        let mut sentences = self.dice(1).shuffled(&sentences);
        sentences.truncate(COUNT);
        sentences
    }
}

fn is_alike(a: &Object, b: &Object) -> bool {
    (a.shape, a.colour, a.size) == (b.shape, b.colour, b.size)
}

/// "a large red circle".
fn full(object: &Object) -> String {
    format!("a {} {} {}", object.size.word(), object.colour.word(), object.shape.word())
}

/// "a red circle", "an orange circle".
fn plain(object: &Object) -> String {
    let colour = object.colour.word();
    let article = if colour.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {colour} {}", object.shape.word())
}

/// "circles", "crosses".
fn plural(shape: Shape) -> String {
    let ending = if shape == Shape::Cross { "es" } else { "s" };
    format!("{}{ending}", shape.word())
}

/// Where a single object is: "at the top left", "in the middle".
fn place(object: &Object) -> &'static str {
    let third = |at: f32| usize::from(at > 0.385) + usize::from(at > 0.615);
    [
        ["at the top left", "at the top", "at the top right"],
        ["on the left", "in the middle", "on the right"],
        ["at the bottom left", "at the bottom", "at the bottom right"],
    ][third(object.y)][third(object.x)]
}

fn single(one: &Object) -> Vec<String> {
    let (full, plain, place) = (full(one), plain(one), place(one));
    vec![
        full.clone(),
        format!("{full} {place}"),
        format!("{plain} {place}"),
        format!("there is {full} {place}"),
        format!("a picture of {full}"),
        format!("{full} on a light background"),
        format!("the only shape is {plain}"),
    ]
}

fn pair(first: &Object, second: &Object, arrangement: Arrangement) -> Vec<String> {
    let (a, b) = (full(first), full(second));
    let (plain_a, plain_b) = (plain(first), plain(second));
    let mut sentences = vec![format!("{plain_a} and {plain_b}"), format!("a picture of {a} and {b}")];
    sentences.extend(match arrangement {
        Arrangement::Down => [
            format!("{a} above {b}"),
            format!("{b} below {a}"),
            format!("{plain_a} above {plain_b}"),
            format!("there is {plain_a} at the top and {plain_b} at the bottom"),
        ],
        Arrangement::Across | Arrangement::Alone => [
            format!("{a} to the left of {b}"),
            format!("{b} to the right of {a}"),
            format!("{plain_a} next to {plain_b}"),
            format!("there is {plain_a} on the left and {plain_b} on the right"),
        ],
    });
    sentences
}

fn group(one: &Object, count: usize, arrangement: Arrangement) -> Vec<String> {
    let number = if count == 2 { "two" } else { "three" };
    let (size, colour, shapes) = (one.size.word(), one.colour.word(), plural(one.shape));
    let how = match (arrangement, count) {
        (Arrangement::Down, 2) => "one above the other",
        (Arrangement::Down, _) => "in a column",
        (_, 2) => "side by side",
        _ => "in a row",
    };
    vec![
        format!("{number} {colour} {shapes}"),
        format!("{number} {size} {colour} {shapes}"),
        format!("{number} {colour} {shapes} {how}"),
        format!("{number} {size} {colour} {shapes} {how}"),
        format!("there are {number} {size} {colour} {shapes}"),
        format!("a picture of {number} {colour} {shapes}"),
    ]
}

fn triple(first: &Object, second: &Object, third: &Object, arrangement: Arrangement) -> Vec<String> {
    let (a, b, c) = (plain(first), plain(second), plain(third));
    let (from, to, here, there) = match arrangement {
        Arrangement::Down => ("top", "bottom", "at the top", "at the bottom"),
        Arrangement::Across | Arrangement::Alone => ("left", "right", "on the left", "on the right"),
    };
    vec![
        format!("{a}, {b} and {c}"),
        format!("{b} between {a} and {c}"),
        format!("from {from} to {to} {a}, {b} and {c}"),
        format!("there are three shapes: {a}, {b} and {c}"),
        format!("a picture of {a}, {b} and {c}"),
        format!("{a} {here}, {b} in the middle and {c} {there}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::scene::{Colour, Size};
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn object(shape: Shape, colour: Colour, size: Size) -> Object {
        Object { shape, colour, size, x: 0.2, y: 0.8, radius: 0.1, angle: 0.0, shade: 1.0 }
    }

    #[test]
    fn the_grammar_by_example() {
        let circle = object(Shape::Circle, Colour::Orange, Size::Large);
        let cross = object(Shape::Cross, Colour::Blue, Size::Small);
        assert_eq!(single(&circle)[2], "an orange circle at the bottom left");
        assert_eq!(
            pair(&circle, &cross, Arrangement::Across)[2],
            "a large orange circle to the left of a small blue cross"
        );
        assert_eq!(pair(&circle, &cross, Arrangement::Down)[3], "a small blue cross below a large orange circle");
        assert_eq!(group(&cross, 3, Arrangement::Down)[3], "three small blue crosses in a column");
        assert_eq!(
            triple(&cross, &circle, &cross, Arrangement::Across)[1],
            "an orange circle between a blue cross and a blue cross"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn five_different_captions_name_every_object(seed: u64, index: u64) {
            let scene = Scene { seed, index, side: 128 };
            let captions = scene.captions();
            prop_assert_eq!(captions.len(), COUNT);
            prop_assert_eq!(captions.iter().collect::<HashSet<_>>().len(), COUNT);
            for caption in &captions {
                for object in scene.objects().1 {
                    let phrase = format!("{} {}", object.colour.word(), object.shape.word());
                    prop_assert!(caption.contains(&phrase), "{} lacks {}", caption, phrase);
                }
            }
        }
    }
}
