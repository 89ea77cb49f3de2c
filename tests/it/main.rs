//! The integration tests: one binary, so that the slow link happens once.

mod commands;
mod compare;
mod detector;
mod fetching;
mod gpt2;
mod guards;
mod journey;
mod layers;
mod provenance;
mod regions;
mod rewards;
mod scores;
mod sources;
mod streams;
mod support;
mod sweep;
mod tail;
mod tools;
mod variants;
mod web;
