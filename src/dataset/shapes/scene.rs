//! What is in a scene: one to three objects, each with a shape, a colour, a size and a place.

use std::fmt;

/// One picture: three numbers that decide everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scene {
    /// The data set's seed.
    pub seed: u64,
    /// Which of its scenes.
    pub index: u64,
    /// Side of the square picture, in pixels.
    pub side: u32,
}

/// How a scene's objects stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// One object.
    Alone,
    /// From left to right.
    Across,
    /// From top to bottom.
    Down,
}

/// One object. Lengths are shares of the picture's side, `y` grows downwards.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Object {
    /// Its outline.
    pub shape: Shape,
    /// Its fill.
    pub colour: Colour,
    /// Large or small.
    pub size: Size,
    /// Centre, from the left.
    pub x: f32,
    /// Centre, from the top.
    pub y: f32,
    /// Radius of the circle of the same size.
    pub radius: f32,
    /// Turned by so much, in radians.
    pub angle: f32,
    /// Brightness of the fill, about 1.
    pub shade: f32,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $(
                #[doc = $word]
                $variant,
            )+
        }

        impl $name {
            /// Every one there is.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word captions use.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

words! {
    /// The outline of an object.
    Shape { Circle = "circle", Square = "square", Triangle = "triangle", Star = "star", Cross = "cross" }
}
words! {
    /// The fill of an object.
    Colour { Red = "red", Green = "green", Blue = "blue", Yellow = "yellow", Purple = "purple", Orange = "orange" }
}
words! {
    /// How large an object is.
    Size { Small = "small", Large = "large" }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shapes:seed={},index={},side={}", self.seed, self.index, self.side)
    }
}

impl Scene {
    /// The objects, from left to right or from top to bottom, and how they stand.
    ///
    /// One in three scenes is a single object, one in five a group of two or three alike, the rest have two objects
    /// or, seldom, three of different colours.
    pub fn objects(&self) -> (Arrangement, Vec<Object>) {
        let mut dice = self.dice(0);
        let (count, alike) = match dice.below(100) {
            0..35 => (1, false),
            35..75 => (2, false),
            75..88 => (2, true),
            88..94 => (3, true),
            _ => (3, false),
        };
        let arrangement = match (count, dice.below(2)) {
            (1, _) => Arrangement::Alone,
            (_, 0) => Arrangement::Across,
            _ => Arrangement::Down,
        };
        let colours = dice.shuffled(Colour::ALL);
        let first = (dice.pick(Shape::ALL), dice.pick(Size::ALL));
        let objects = (0..count).map(|place| {
            let own = (dice.pick(Shape::ALL), dice.pick(Size::ALL));
            let ((shape, size), colour) = if alike { (first, colours[0]) } else { (own, colours[place]) };
            let size = if count == 3 { Size::Small } else { size };
            let (x, y) = position(arrangement, place, count, &mut dice);
            let radius = match size {
                Size::Large => dice.range(0.185, 0.2),
                Size::Small => dice.range(0.105, 0.12),
            };
            let (angle, shade) = (dice.range(-0.1, 0.1), dice.range(0.92, 1.05));
            Object { shape, colour, size, x, y, radius, angle, shade }
        });
        (arrangement, objects.collect())
    }

    /// Random numbers for one purpose of this scene.
    pub(super) fn dice(&self, purpose: u64) -> Dice {
        Dice(mix(mix(mix(self.seed) ^ self.index) ^ purpose))
    }
}

fn position(arrangement: Arrangement, place: usize, count: usize, dice: &mut Dice) -> (f32, f32) {
    let thirds = |place: usize| 0.27 + 0.23 * place as f32;
    match arrangement {
        Arrangement::Alone => {
            let (column, row) = (dice.below(3) as usize, dice.below(3) as usize);
            (thirds(column) + dice.range(-0.04, 0.04), thirds(row) + dice.range(-0.04, 0.04))
        }
        Arrangement::Across | Arrangement::Down => {
            // Three large ones would not fit: of three, all are small.
            let (step, jitter) = if count == 2 { (0.46, 0.025) } else { (0.325, 0.004) };
            let along = 0.5 + step * (place as f32 - (count - 1) as f32 / 2.0) + dice.range(-jitter, jitter);
            let beside = 0.5 + dice.range(-0.08, 0.08);
            if arrangement == Arrangement::Across { (along, beside) } else { (beside, along) }
        }
    }
}

/// splitmix64, written out because scenes must stay the same for ever.
pub(super) struct Dice(u64);

/// The finisher of splitmix64: every bit of the input reaches every bit of the output.
pub(crate) fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Dice {
    fn next(&mut self) -> u64 {
        let value = mix(self.0);
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        value
    }

    pub fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }

    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    pub fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }

    pub fn shuffled<T: Clone>(&mut self, values: &[T]) -> Vec<T> {
        let mut values = values.to_vec();
        for last in (1..values.len()).rev() {
            values.swap(last, self.below(last as u64 + 1) as usize);
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn objects_are_in_the_picture_in_order_and_apart(seed: u64, index: u64) {
            let (arrangement, objects) = Scene { seed, index, side: 128 }.objects();
            prop_assert!((1..=3).contains(&objects.len()));
            prop_assert_eq!(arrangement == Arrangement::Alone, objects.len() == 1);
            for object in &objects {
                let reach = object.radius * 1.12;
                for at in [object.x, object.y] {
                    prop_assert!(at - reach >= 0.0 && at + reach <= 1.0, "{:?}", object);
                }
            }
            for pair in objects.windows(2) {
                let gap = match arrangement {
                    Arrangement::Across => pair[1].x - pair[0].x,
                    _ => pair[1].y - pair[0].y,
                };
                prop_assert!(gap >= pair[0].radius + pair[1].radius, "{} {:?}", gap, objects);
            }
        }
    }

    #[test]
    fn every_kind_of_scene_occurs() {
        let scenes: Vec<_> = (0..2000).map(|index| Scene { seed: 1, index, side: 64 }.objects()).collect();
        for count in 1..=3 {
            assert!(scenes.iter().any(|(_, objects)| objects.len() == count));
        }
        for &shape in Shape::ALL {
            for &colour in Colour::ALL {
                let found = |object: &Object| object.shape == shape && object.colour == colour;
                assert!(scenes.iter().any(|(_, objects)| objects.iter().any(found)), "{shape:?} {colour:?}");
            }
        }
    }

    #[test]
    fn a_scene_never_changes() {
        let (_, objects) = Scene { seed: 7, index: 3, side: 128 }.objects();
        insta::assert_snapshot!(
            format!("{objects:?}"),
            @"[Object { shape: Star, colour: Red, size: Large, x: 0.7142642, y: 0.23249239, radius: 0.19363037, angle: 0.059427746, shade: 0.9602458 }]"
        );
    }
}
