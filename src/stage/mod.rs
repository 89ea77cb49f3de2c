//! The joiners: each command's work, from a resolved recipe to its result.
//!
//! Stage one (`encode`) and stage two (`train`, `evaluate`) meet here and at the cache, and nowhere else. `caption` is the
//! one place where both run in one process. Nothing here draws or prints: results are values, progress goes to a listener.

pub mod caption;
pub mod demo;
mod embed;
pub mod encode;
pub mod evaluate;
mod find;
pub mod model;
mod pipeline;
pub mod prepare;
pub mod regions;
mod register;
pub mod run;
pub mod train;
mod work;
