//! The integration tests: one binary, so that the slow link happens once.

mod commands;
mod detector;
mod fetching;
mod gpt2;
mod journey;
mod layers;
mod regions;
mod scores;
mod sources;
mod support;
mod tools;
mod variants;
mod web;
