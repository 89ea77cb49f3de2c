//! The integration tests: one binary, so that the slow link happens once.

mod commands;
mod detector;
mod journey;
mod layers;
mod regions;
mod support;
mod variants;
