//! How much of a generated caption is true, by its words alone.

use std::collections::HashSet;
use std::ops::AddAssign;

use super::scene::{Colour, Shape};

/// What captions named and what was there to name. Tallies of many pictures add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Named, and there.
    pub right: usize,
    /// Named in the generated caption.
    pub named: usize,
    /// There, by the true captions.
    pub there: usize,
}

impl Tally {
    /// Share named correctly, 0 to 1: both what is missed and what is made up count against it.
    pub fn share(&self) -> f64 {
        match self.named + self.there - self.right {
            0 => 1.0,
            all => self.right as f64 / all as f64,
        }
    }

    fn of<T: Eq + std::hash::Hash>(named: &HashSet<T>, there: &HashSet<T>) -> Self {
        Self { right: named.intersection(there).count(), named: named.len(), there: there.len() }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.right += other.right;
        self.named += other.named;
        self.there += other.there;
    }
}

/// One caption, or the sum over many, against the truth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Words like "red".
    pub colours: Tally,
    /// Words like "circle" and "circles".
    pub shapes: Tally,
    /// The two together: "red circle".
    pub objects: Tally,
}

impl AddAssign for Judgement {
    fn add_assign(&mut self, other: Self) {
        self.colours += other.colours;
        self.shapes += other.shapes;
        self.objects += other.objects;
    }
}

/// Compares a generated caption with a scene's true ones.
pub fn judge(truth: &[impl AsRef<str>], generated: &str) -> Judgement {
    let mut there = Named::default();
    for caption in truth {
        there.read(caption.as_ref());
    }
    let mut named = Named::default();
    named.read(generated);
    Judgement {
        colours: Tally::of(&named.colours, &there.colours),
        shapes: Tally::of(&named.shapes, &there.shapes),
        objects: Tally::of(&named.objects, &there.objects),
    }
}

/// What captions name.
#[derive(Default)]
struct Named {
    colours: HashSet<Colour>,
    shapes: HashSet<Shape>,
    objects: HashSet<(Colour, Shape)>,
}

impl Named {
    fn read(&mut self, caption: &str) {
        let mut before = None;
        for word in caption.split(|letter: char| !letter.is_alphabetic()).filter(|word| !word.is_empty()) {
            let word = word.to_lowercase();
            let colour = Colour::ALL.iter().copied().find(|colour| colour.word() == word);
            let shape = Shape::ALL.iter().copied().find(|shape| is_named(*shape, &word));
            self.colours.extend(colour);
            self.shapes.extend(shape);
            self.objects.extend(before.zip(shape));
            before = colour;
        }
    }
}

fn is_named(shape: Shape, word: &str) -> bool {
    word.strip_prefix(shape.word()).is_some_and(|ending| matches!(ending, "" | "s" | "es"))
}

#[cfg(test)]
mod tests {
    use super::super::Scene;
    use super::*;

    #[test]
    fn truth_judges_itself_as_right() {
        for index in 0..200 {
            let captions = Scene { seed: 3, index, side: 64 }.captions();
            for caption in &captions {
                let judgement = judge(&captions, caption);
                for tally in [judgement.colours, judgement.shapes, judgement.objects] {
                    assert_eq!(tally.share(), 1.0, "{caption}");
                    assert!(tally.there > 0);
                }
            }
        }
    }

    #[test]
    fn wrong_and_made_up_words_count_against() {
        let truth = ["a large red circle to the left of a small blue square"];
        let judgement = judge(&truth, "Two red squares, and a green star.");
        assert_eq!(judgement.colours, Tally { right: 1, named: 2, there: 2 });
        assert_eq!(judgement.shapes, Tally { right: 1, named: 2, there: 2 });
        assert_eq!(judgement.objects, Tally { right: 0, named: 2, there: 2 });
        assert!((judgement.colours.share() - 1.0 / 3.0).abs() < 1e-9);
        let mut sum = judge(&truth, truth[0]);
        sum += judgement;
        assert_eq!(sum.objects, Tally { right: 2, named: 4, there: 4 });
    }

    #[test]
    fn an_empty_caption_names_nothing() {
        assert_eq!(judge(&["a red cross"], "").shapes, Tally { right: 0, named: 0, there: 1 });
    }
}
