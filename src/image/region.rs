//! Where a part of a picture lies in the encoder's input.
//!
//! Must not know what the part is. Coordinates are continuous, from edge to edge: a picture of width W reaches from 0 to W, and so does a
//! box; resizing scales them, the crop moves and cuts them.

use super::preprocess::{Anchor, Axis, Preprocess};

impl Preprocess {
    /// The box `[x1, y1, x2, y2]` of a picture of `(height, width)` in pixels of the encoder's input, as far as the crop shows it; nothing
    /// where the crop shows nothing of it.
    #[must_use]
    pub fn shown(&self, size: (u32, u32), b: [f32; 4]) -> Option<[f32; 4]> {
        let (rows, columns) = self.plan(size, Anchor::Centre, Anchor::Centre);
        let ([x1, x2], [y1, y2]) = (shown_on(&columns, [b[0], b[2]]), shown_on(&rows, [b[1], b[3]]));
        (x2 > x1 && y2 > y1).then_some([x1, y1, x2, y2])
    }

    /// Where the encoder's input lies in a picture of `(height, width)`: `[x1, y1, x2, y2]`, in shares of the picture's width and height. Below 0 or
    /// above 1 where the crop is larger than the picture.
    #[must_use]
    pub fn frame(&self, size: (u32, u32)) -> [f32; 4] {
        let (rows, columns) = self.plan(size, Anchor::Centre, Anchor::Centre);
        let (height, width) = self.output_size();
        let ([x1, x2], [y1, y2]) = (frame_on(&columns, width), frame_on(&rows, height));
        [x1, y1, x2, y2]
    }
}

fn frame_on(axis: &Axis, out: u32) -> [f32; 2] {
    let first = axis.from as f64 - f64::from(axis.at);
    [first, first + f64::from(out)].map(|place| (place / axis.resized as f64) as f32)
}

fn shown_on(axis: &Axis, stretch: [f32; 2]) -> [f32; 2] {
    let scale = axis.resized as f64 / f64::from(axis.source);
    let (first, last) = (f64::from(axis.at), f64::from(axis.at) + f64::from(axis.shown));
    stretch.map(|value| {
        let value = (f64::from(value) - f64::from(axis.offset)) * scale - axis.from as f64 + first;
        value.clamp(first, last) as f32
    })
}

#[cfg(test)]
mod tests {
    use super::super::Resize;
    use super::*;

    #[test]
    fn the_input_lies_where_the_crop_took_it() {
        let pre = Preprocess { resize: Resize::Shorter(50), crop: Some([50, 50]), ..Preprocess::default() };
        assert_eq!(pre.frame((100, 200)), [0.25, 0.0, 0.75, 1.0]);
        let squeezed = Preprocess { resize: Resize::Exact([50, 50]), crop: None, ..Preprocess::default() };
        assert_eq!(squeezed.frame((100, 200)), [0.0, 0.0, 1.0, 1.0]);
        let padded = Preprocess { resize: Resize::Exact([50, 50]), crop: Some([60, 50]), ..Preprocess::default() };
        assert_eq!(padded.frame((50, 50)), [0.0, -0.1, 1.0, 1.1]);
    }

    #[test]
    fn boxes_follow_the_resize_and_the_crop() {
        // 100x200 to 50x100, of which the crop shows the middle 50x50.
        let pre = Preprocess { resize: Resize::Shorter(50), crop: Some([50, 50]), ..Preprocess::default() };
        assert_eq!(pre.shown((100, 200), [80.0, 20.0, 120.0, 60.0]), Some([15.0, 10.0, 35.0, 30.0]));
        assert_eq!(pre.shown((100, 200), [0.0, 0.0, 200.0, 100.0]), Some([0.0, 0.0, 50.0, 50.0]), "cut to the crop");
        assert_eq!(pre.shown((100, 200), [0.0, 0.0, 40.0, 100.0]), None, "outside of it");
        let exact = Preprocess { resize: Resize::Exact([50, 50]), crop: None, ..Preprocess::default() };
        assert_eq!(exact.shown((100, 200), [80.0, 20.0, 120.0, 60.0]), Some([20.0, 10.0, 30.0, 30.0]));
        let padded = Preprocess { resize: Resize::Exact([50, 50]), crop: Some([60, 70]), ..Preprocess::default() };
        assert_eq!(
            padded.shown((50, 50), [0.0, 0.0, 50.0, 50.0]),
            Some([10.0, 5.0, 60.0, 55.0]),
            "in the middle of black"
        );
    }
}
