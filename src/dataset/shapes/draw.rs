//! Draws a scene: signed distances give each pixel its share of the outline, so that edges are smooth.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::scene::{Colour, Object, Scene, Shape};

impl Scene {
    /// The picture, `[side, side, 3]`, red first.
    pub fn pixels(&self) -> Vec<u8> {
        let mut pixels = background(self);
        for object in self.objects().1 {
            paint(&mut pixels, self.side, &object);
        }
        pixels
    }

    /// The picture as a PNG file.
    pub fn png(&self) -> Vec<u8> {
        let mut file = Vec::with_capacity(16 << 10);
        let encoder = PngEncoder::new_with_quality(&mut file, CompressionType::Fast, FilterType::Sub);
        encoder
            .write_image(&self.pixels(), self.side, self.side, ExtendedColorType::Rgb8)
            .expect("writing to memory does not fail, and the buffer has the size it is said to have");
        file
    }
}

/// Light, slightly tinted, a little darker towards one side.
fn background(scene: &Scene) -> Vec<u8> {
    let mut dice = scene.dice(2);
    let base: [f32; 3] = [0; 3].map(|_| dice.range(222.0, 246.0));
    let slope = (dice.range(-14.0, 14.0), dice.range(-14.0, 14.0));
    let side = scene.side as usize;
    let mut pixels = Vec::with_capacity(side * side * 3);
    for row in 0..side {
        for column in 0..side {
            let at = |index: usize| (index as f32 + 0.5) / side as f32 - 0.5;
            let light = slope.0 * at(column) + slope.1 * at(row);
            pixels.extend(base.map(|value| (value + light).round() as u8));
        }
    }
    pixels
}

fn rgb(colour: Colour) -> [f32; 3] {
    match colour {
        Colour::Red => [215.0, 38.0, 38.0],
        Colour::Green => [40.0, 158.0, 62.0],
        Colour::Blue => [42.0, 84.0, 214.0],
        Colour::Yellow => [240.0, 214.0, 40.0],
        Colour::Purple => [138.0, 52.0, 176.0],
        Colour::Orange => [242.0, 134.0, 24.0],
    }
}

fn paint(pixels: &mut [u8], side: u32, object: &Object) {
    let side_pixels = side as f32;
    let (x, y, radius) = (object.x * side_pixels, object.y * side_pixels, object.radius * side_pixels);
    let reach = radius * 1.2 + 1.0;
    let span = |at: f32| ((at - reach).max(0.0) as usize)..((at + reach).ceil().clamp(0.0, side_pixels) as usize);
    let outline = outline(object.shape);
    let fill = rgb(object.colour).map(|value| (value * object.shade).min(255.0));
    let (sin, cos) = object.angle.sin_cos();
    for row in span(y) {
        for column in span(x) {
            let (dx, dy) = ((column as f32 + 0.5 - x) / radius, (row as f32 + 0.5 - y) / radius);
            let point = (dx * cos + dy * sin, dy * cos - dx * sin);
            let distance = radius
                * outline.as_deref().map_or_else(|| point.0.hypot(point.1) - 1.0, |polygon| to_polygon(polygon, point));
            let cover = (0.5 - distance).clamp(0.0, 1.0);
            let at = (row * side as usize + column) * 3;
            for (pixel, colour) in pixels[at..at + 3].iter_mut().zip(fill) {
                *pixel = (f32::from(*pixel) * (1.0 - cover) + colour * cover).round() as u8;
            }
        }
    }
}

type Point = (f32, f32);

/// The corners for a radius of 1, `None` for the circle. Areas are alike, so that a shape does not tell a size.
fn outline(shape: Shape) -> Option<Vec<Point>> {
    let ring = |corners: usize, radii: [f32; 2]| {
        let corner = move |index: usize| {
            let angle = std::f32::consts::TAU * index as f32 / corners as f32 - std::f32::consts::FRAC_PI_2;
            let radius = radii[index % 2];
            (radius * angle.cos(), radius * angle.sin())
        };
        Some((0..corners).map(corner).collect::<Vec<_>>())
    };
    let (arm, half) = (0.95, 0.33);
    match shape {
        Shape::Circle => None,
        Shape::Square => Some(vec![(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]),
        Shape::Triangle => ring(3, [1.1; 2]),
        Shape::Star => ring(10, [1.1, 0.48]),
        Shape::Cross => Some(vec![
            (-half, -arm),
            (half, -arm),
            (half, -half),
            (arm, -half),
            (arm, half),
            (half, half),
            (half, arm),
            (-half, arm),
            (-half, half),
            (-arm, half),
            (-arm, -half),
            (-half, -half),
        ]),
    }
}

/// Distance of a point to a polygon's outline, negative inside.
fn to_polygon(corners: &[Point], (x, y): Point) -> f32 {
    let mut nearest = f32::INFINITY;
    let mut inside = false;
    let mut previous = corners[corners.len() - 1];
    for &corner in corners {
        let (edge_x, edge_y) = (previous.0 - corner.0, previous.1 - corner.1);
        let (to_x, to_y) = (x - corner.0, y - corner.1);
        let along = ((to_x * edge_x + to_y * edge_y) / (edge_x * edge_x + edge_y * edge_y)).clamp(0.0, 1.0);
        nearest = nearest.min((to_x - edge_x * along).hypot(to_y - edge_y * along));
        if (corner.1 > y) != (previous.1 > y) && x < edge_x * (y - corner.1) / edge_y + corner.0 {
            inside = !inside;
        }
        previous = corner;
    }
    if inside { -nearest } else { nearest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_have_their_signs() {
        let square = outline(Shape::Square).unwrap();
        assert!((to_polygon(&square, (0.0, 0.0)) + 0.85).abs() < 1e-6);
        assert!((to_polygon(&square, (1.85, 0.0)) - 1.0).abs() < 1e-6);
        let star = outline(Shape::Star).unwrap();
        assert!(to_polygon(&star, (0.0, -1.0)) < 0.0, "in the upper tip");
        assert!(to_polygon(&star, (0.0, 1.0)) > 0.0, "between the lower tips");
    }

    #[test]
    fn each_object_is_seen_in_its_colour() {
        for index in 0..300 {
            let scene = Scene { seed: 5, index, side: 96 };
            let pixels = scene.pixels();
            for object in scene.objects().1 {
                let at = ((object.y * 96.0) as usize * 96 + (object.x * 96.0) as usize) * 3;
                let wanted = rgb(object.colour).map(|value| (value * object.shade).min(255.0).round() as u8);
                assert_eq!(pixels[at..at + 3], wanted, "{object:?}");
            }
        }
    }

    #[test]
    fn edges_are_smooth_and_the_corner_is_light() {
        let scene = (0..).map(|index| Scene { seed: 0, index, side: 64 });
        let scene = scene.into_iter().find(|scene| scene.objects().1.len() == 1).unwrap();
        let pixels = scene.pixels();
        assert!(pixels[..3].iter().all(|&value| value > 200));
        let shades: std::collections::HashSet<_> = pixels.chunks_exact(3).map(|pixel| pixel[0] / 8).collect();
        assert!(shades.len() > 6, "only {shades:?}");
    }

    #[test]
    fn the_png_holds_the_pixels() {
        let scene = Scene { seed: 2, index: 9, side: 33 };
        let decoded = image::load_from_memory(&scene.png()).unwrap().into_rgb8();
        assert_eq!(decoded.dimensions(), (33, 33));
        assert_eq!(decoded.into_raw(), scene.pixels());
    }
}
