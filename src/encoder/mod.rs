//! The compiled encoder: any ONNX model, edited so that it takes bytes of pictures and gives finished rows.
//!
//! ```text
//! MODEL.onnx --compile--> graph: [prologue] + the layers the taps need + pooling, L2, cast --session--> rows in the caller's memory
//! ```
//!
//! It must not know data sets, decoding of pictures, caches beyond their element types, or anything of stage two. Only
//! this module uses ONNX Runtime.
//!
//! The decision defended: the graph is edited as protobuf before ONNX Runtime sees it, instead of running a model as it
//! is and post-processing. The provider prunes nothing by itself, so a tap of an early layer is only cheaper than a late
//! one because the later nodes are gone; and a map pooled inside never leaves the device.

mod blocked;
mod buffers;
mod build;
mod compile;
mod constant;
mod cuda;
mod device;
mod epilogue;
mod error;
mod export;
mod external;
mod graph;
mod halve;
mod input;
mod inspect;
pub mod known;
mod metadata;
mod model;
mod network;
#[expect(clippy::enum_variant_names, reason = "generated: the names are ONNX's")]
mod onnx;
mod pixels;
mod plan;
mod probe;
mod prologue;
mod regions;
mod runtime;
mod section;
mod session;
mod taps;

pub use compile::{CompiledEncoder, OutputInfo, compile};
pub use device::{Device, Devices};
pub use error::EncoderError;
pub use export::{export, find_python};
pub use inspect::{TensorInfo, inspect, inspect_at};
pub use known::{Known, absent, known};
pub use metadata::{ModelMetadata, read_metadata};
pub use model::model_digest;
pub use network::{Answer, Beginning, Ends, Feed, Network, NetworkSession, ends};
pub use plan::{Channels, EncoderPlan, Normalize, Pool, Precision, REWRITE_VERSION, Tap, key_fields};
pub use runtime::{RuntimeInfo, init_runtime, resolve, resolve_all};
pub use section::{SectionError, section, write_section};
pub use session::{EncoderSession, Kernels, finite};

#[cfg(test)]
mod tests;
