//! Everything that needs a whole cache on a disk, in one binary.

mod common;
mod crash;
mod disk_full;
mod golden;
mod gone;
mod index;
mod model;
mod parts;
mod python;
mod reader;
mod replace;
mod verify;
mod writer;
mod writers;
