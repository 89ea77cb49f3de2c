//! What a decoder remembers between two tokens.

use tch::Tensor;

/// The state of a search: tensors of the images, and tensors of the rows (an image may have several, one after another).
#[derive(Debug)]
pub struct State {
    /// What belongs to an image and never changes: each `[N, ..]`.
    pub images: Vec<Tensor>,
    /// What belongs to a row: each `[R, ..]`, `R` a multiple of `N`.
    pub rows: Vec<Tensor>,
}

impl State {
    /// The same rows as `self` has, but row `i` is what row `rows[i]` was (`[R]` i64). The number of rows may change, but
    /// not the images they belong to.
    #[must_use]
    pub fn select(&self, rows: &Tensor) -> Self {
        Self {
            images: self.images.iter().map(Tensor::shallow_clone).collect(),
            rows: self.rows.iter().map(|tensor| tensor.index_select(0, rows)).collect(),
        }
    }

    /// Only the images in `images` (`[n]` i64), whose rows are `rows`.
    #[must_use]
    pub fn keep(&self, images: &Tensor, rows: &Tensor) -> Self {
        Self {
            images: self.images.iter().map(|tensor| tensor.index_select(0, images)).collect(),
            rows: self.rows.iter().map(|tensor| tensor.index_select(0, rows)).collect(),
        }
    }
    /// Only the first `count` images, of one row each; no number is copied.
    #[must_use]
    pub fn first(&self, count: i64) -> Self {
        let first = |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.narrow(0, 0, count)).collect();
        Self { images: first(&self.images), rows: first(&self.rows) }
    }

    /// Rows `places` (`[R]` i64) of a state with one row an image, as images of their own.
    #[must_use]
    pub fn repeat(&self, places: &Tensor) -> Self {
        self.keep(places, places)
    }
}
