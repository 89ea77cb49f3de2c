//! The joiners: each command's work, from a resolved recipe to its result.
//!
//! Stage one (`encode`) and stage two (`train`, `evaluate`) meet here and at the cache, and nowhere else. `caption` is the
//! one place where both run in one process. Nothing here draws or prints: results are values, progress goes to a listener.

mod begin;
pub mod caption;
pub mod compare;
pub mod demo;
pub mod drift;
mod embed;
pub mod encode;
pub mod evaluate;
pub mod export;
pub mod export_run;
mod find;
pub mod import;
mod jars;
pub mod missing;
pub mod model;
mod numbers;
mod pipeline;
pub mod plan;
pub mod prepare;
pub mod probe;
pub mod provider;
mod read;
pub mod recompute;
pub mod regions;
mod register;
mod rewards;
pub mod run;
mod space;
mod spread;
pub mod sweep;
pub mod tail;
pub mod train;
pub mod transfer;
mod web;
mod work;
