//! How the libraries say how far they are, without knowing who listens.
//!
//! Only `cli` draws bars; a test listens with [`Silent`]. A trait rather than a channel: a call costs nothing when
//! nobody looks.

/// Listens to a long task. Every method has an empty default, so that a listener picks what it shows.
pub trait Progress: Send + Sync {
    /// A phase begins: `label` says which, `total` how many units it has where that is known.
    fn start(&self, label: &str, total: Option<u64>) {
        let _ = (label, total);
    }
    /// `units` more are done.
    fn advance(&self, units: u64) {
        let _ = units;
    }
    /// A short text beside the bar: rates, losses, what the bottleneck is.
    fn status(&self, text: &str) {
        let _ = text;
    }
    /// A line that stays: a warning, a caption, an epoch's result.
    fn line(&self, text: &str) {
        let _ = text;
    }
    /// The phase has ended.
    fn finish(&self) {}
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {}
