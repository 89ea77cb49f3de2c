//! icecap captions images from frozen encoders: encode a data set once, train as many decoders as you like.
//!
//! The folders in the order the data visits them, and the rule that keeps them apart, are in ARCHITECTURE.md. The
//! on-disk format is the crate `icecap_cache`.

pub mod batch;
pub mod cli;
pub mod dataset;
pub mod decoder;
pub mod detector;
pub mod encoder;
pub mod fetch;
pub mod foreign;
pub mod image;
pub mod metrics;
pub mod progress;
pub mod recipe;
pub mod report;
pub mod section;
pub mod stage;
pub mod text;
pub mod trainer;
