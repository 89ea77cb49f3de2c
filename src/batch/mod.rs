//! What one training step eats: captions packed by time, the image vectors they speak of, and the thread that fetches both.
//!
//! Knows nothing of decoders, losses or files: a [`Column`] is anything that can copy rows out, and a caption is a list of
//! token numbers. Captions are packed longest first and time-major instead of padded: at each step the captions still
//! being spoken are a prefix of the batch, so that no kernel touches padding (but of GPT-2 on a GPU, which pads them itself).
//!
//! Shapes: `N` images, `K` vectors an image, `D` their width, `B` captions, `T` steps, `P` tokens of the batch (the sum of
//! the captions' lengths), `U` distinct ones.

mod ahead;
mod cached;
mod captions;
mod column;
mod held;
mod loader;
mod order;
pub mod random;

pub use cached::{HeldColumn, cached};
pub use captions::{Captions, Special};
#[cfg(test)]
pub(crate) use column::fake;
pub use column::{Access, Column, Prefix, Vectors, gather, rows_of, sent};
pub use held::Held;
pub(crate) use loader::fetch;
pub use loader::{Batch, Loader, LoaderError};
pub use order::{Caption, Order, order};
