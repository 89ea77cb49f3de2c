//! The integration tests: one binary, so that the slow link happens once.

mod commands;
mod gpt2;
mod journey;
mod layers;
mod support;
