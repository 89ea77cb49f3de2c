//! The joiners: each command's work, from a resolved recipe to its result.
//!
//! Stage one (`encode`) and stage two (`train`, `evaluate`) meet here and at the cache, and nowhere else. `caption` is the
//! one place where both run in one process. Nothing here draws or prints: results are values, progress goes to a listener.

pub mod caption;
pub mod demo;
pub mod encode;
pub mod evaluate;
pub mod export;
pub mod model;
mod pipeline;
mod register;
pub mod run;
pub mod train;
