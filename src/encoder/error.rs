//! What can go wrong between an ONNX file and the rows it makes.
//!
//! A message names what failed, the value in backticks and the file; a last line `hint:` says the way out. What ONNX
//! Runtime itself said is always the source, never part of the text.

use std::path::PathBuf;

/// Errors of the encoder: finding ONNX Runtime, reading and editing a model, running and exporting it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// No `libonnxruntime` at any of the places looked at.
    #[error(
        "ONNX Runtime was not found; looked at\n{}\nhint: run `make setup`, or name the library with --onnxruntime FILE or ORT_DYLIB_PATH",
        bullets(looked)
    )]
    RuntimeNotFound {
        /// Each place, with what was found wrong there.
        looked: Vec<String>,
    },
    /// A library was named, but it is not a usable ONNX Runtime.
    #[error("`{}` is not a usable ONNX Runtime\nhint: icecap needs version 1.22 or newer; `make setup` installs one", path.display())]
    RuntimeUnusable {
        /// The library.
        path: PathBuf,
        /// What the loader said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// ONNX Runtime loaded, but would not start.
    #[error("ONNX Runtime would not start")]
    RuntimeStart {
        /// What ONNX Runtime said.
        #[source]
        source: ort::Error,
    },
    /// Sessions were asked for before [`crate::encoder::init_runtime`] succeeded.
    #[error("ONNX Runtime has not been loaded\nhint: call `init_runtime` first")]
    RuntimeNotLoaded,
    /// A file could not be read or written.
    #[error("cannot read or write `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The bytes are no ONNX model.
    #[error("`{}` is not an ONNX model\nhint: export one with `icecap export NAME -o MODEL.onnx`", path.display())]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// What the reader said, where it said anything.
        #[source]
        source: Option<prost::DecodeError>,
    },
    /// The file begins like an ONNX model and ends too early.
    #[error("`{}` is an ONNX model cut short after {bytes} bytes\nhint: copy or download it again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// Protobuf holds at most 2 GiB.
    #[error(
        "`{}` needs {bytes} bytes in one message, and ONNX holds at most 2147483647\nhint: tap an earlier layer, or export the encoder in f16",
        path.display()
    )]
    TooLarge {
        /// The model.
        path: PathBuf,
        /// Bytes of the file, or of the part the taps need with its external data.
        bytes: u64,
    },
    /// External data lies outside of the model's folder.
    #[error("tensor `{tensor}` of `{}` keeps its data at `{location}`, outside of the model's folder\nhint: put the data file beside the model", path.display())]
    ExternalOutside {
        /// The model.
        path: PathBuf,
        /// The weight.
        tensor: String,
        /// Where it says its data is.
        location: String,
    },
    /// External data that cannot be read.
    #[error("tensor `{tensor}` of `{}` keeps its data in `{location}`, which cannot be read\nhint: copy the data file beside the model", path.display())]
    ExternalMissing {
        /// The model.
        path: PathBuf,
        /// The weight.
        tensor: String,
        /// The data file, relative to the model's folder.
        location: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A place in a data file that is no number.
    #[error("tensor `{tensor}` of `{}` lies in a data file at {key} `{value}`, which is no number\nhint: export the model again", path.display())]
    ExternalNumber {
        /// The model.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// `offset` or `length`.
        key: &'static str,
        /// What it is said to be.
        value: String,
    },
    /// External data shorter than a tensor says, or a range that makes no sense.
    #[error("tensor `{tensor}` of `{}` says its data is bytes {offset}..{end} of `{location}`, which has {bytes}\nhint: copy the data file again", path.display())]
    ExternalShort {
        /// The model.
        path: PathBuf,
        /// The weight.
        tensor: String,
        /// The data file.
        location: String,
        /// First byte.
        offset: u64,
        /// One past the last byte.
        end: u64,
        /// Bytes the data file has.
        bytes: u64,
    },
    /// A version of the operator set too old to add the prologue and epilogue to.
    #[error("`{}` uses ONNX opset {version}; icecap edits opset 8 and newer\nhint: convert it with onnx.version_converter", path.display())]
    Opset {
        /// The model.
        path: PathBuf,
        /// Its opset.
        version: i64,
    },
    /// No input takes pictures.
    #[error(
        "`{}` has no image input: a float tensor of 4 dimensions with 3 channels; its inputs are {inputs}\nhint: export it with the batch first, as [N, 3, H, W] or [N, H, W, 3]",
        path.display()
    )]
    NoImageInput {
        /// The model.
        path: PathBuf,
        /// Its inputs, with shapes.
        inputs: String,
    },
    /// The model's picture size is fixed and another was asked for.
    #[error("`{}` takes pictures of {}x{}, not `{}x{}`\nhint: set the crop to {}", path.display(), expected[0], expected[1], asked[0], asked[1], size_hint(expected))]
    FixedSize {
        /// The model.
        path: PathBuf,
        /// Height and width the model takes.
        expected: [usize; 2],
        /// Height and width asked for.
        asked: [usize; 2],
    },
    /// The model's batch is fixed, and running it at another size gives other rows.
    #[error("`{}` takes batches of {expected}, and its layers rule out `{asked}`\nhint: set batch = {expected}, or export it with a dynamic batch", path.display())]
    FixedBatch {
        /// The model.
        path: PathBuf,
        /// The batch in the file.
        expected: usize,
        /// The batch asked for.
        asked: usize,
    },
    /// A tap needs an input that is no picture.
    #[error("tap `{tensor}` of `{}` needs the input `{input}`, which is no picture\nhint: `icecap inspect` lists the tensors that need only the picture", path.display())]
    ExtraInput {
        /// The model.
        path: PathBuf,
        /// The other input.
        input: String,
        /// The tap.
        tensor: String,
    },
    /// A tap that is the same for every picture.
    #[error("tensor `{tensor}` of `{}` does not depend on the picture\nhint: `icecap inspect {}` lists what can be tapped", path.display(), path.display())]
    Constant {
        /// The model.
        path: PathBuf,
        /// The tap.
        tensor: String,
    },
    /// No such tensor.
    #[error("`{}` has no tensor `{tensor}`{}\nhint: `icecap inspect {}` lists what can be tapped", path.display(), did_you_mean(nearest), path.display())]
    UnknownTensor {
        /// The model.
        path: PathBuf,
        /// The tap.
        tensor: String,
        /// The names closest to it, best first.
        nearest: Vec<String>,
    },
    /// The tensor holds no floats.
    #[error("tensor `{tensor}` of `{}` holds {element}, and rows hold floats\nhint: `icecap inspect {}` lists what can be tapped", path.display(), path.display())]
    NotFloat {
        /// The model.
        path: PathBuf,
        /// The tap.
        tensor: String,
        /// Its element type.
        element: String,
    },
    /// The first dimension is not the batch.
    #[error("tensor `{tensor}` of `{}` has shape {shape:?} for a batch of {batch}: its first dimension is not the image\nhint: `icecap inspect {}` lists what can be tapped", path.display(), path.display())]
    NotBatched {
        /// The model.
        path: PathBuf,
        /// The tap.
        tensor: String,
        /// Its shape.
        shape: Vec<i64>,
        /// Images in the batch.
        batch: usize,
    },
    /// A tensor of more elements than a row may have.
    #[error("tensor `{tensor}` of `{}` has shape {shape:?}: a row would have more than {most} elements\nhint: tap another tensor; `icecap inspect {}` lists them", path.display(), path.display())]
    RowTooLarge {
        /// The model.
        path: PathBuf,
        /// The tap.
        tensor: String,
        /// Its shape, batch first.
        shape: Vec<i64>,
        /// Most elements.
        most: u64,
    },
    /// A grid of a tensor that is no map.
    #[error(
        "column `{column}` pools `{tensor}` by `{pool}`, but its rows have shape {shape:?}\nhint: only maps [C, H, W] can be pooled so; set pool = \"none\""
    )]
    PoolNeedsMap {
        /// The column.
        column: String,
        /// The tap.
        tensor: String,
        /// The pooling asked for.
        pool: String,
        /// Shape of a row before pooling.
        shape: Vec<usize>,
    },
    /// Regions of a tensor that is no map.
    #[error(
        "column `{column}` pools regions of `{tensor}`, but its rows have shape {shape:?}\nhint: only maps [C, H, W] have regions; `icecap \
         inspect` lists the shapes"
    )]
    RegionsNeedMap {
        /// The column.
        column: String,
        /// The tap.
        tensor: String,
        /// Shape of a row before pooling.
        shape: Vec<usize>,
    },
    /// Several layers in one column whose vectors don't lie side by side.
    #[error(
        "column `{column}` can't join {}: they have different numbers of vectors\nhint: pool them alike, by pool = \"global\" or a grid such as pool = \"7x7\"",
        with_shapes(taps)
    )]
    TapsDiffer {
        /// The column.
        column: String,
        /// Each tap, and the shape of its rows after pooling.
        taps: Vec<(String, Vec<usize>)>,
    },
    /// Two columns of one name.
    #[error("two columns are called `{column}`\nhint: give one of them another name")]
    DuplicateColumn {
        /// The name.
        column: String,
    },
    /// A number in the plan that makes no sense.
    #[error("encoder: {field} is `{value}`\nhint: {wanted}")]
    Plan {
        /// What is wrong.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// ONNX Runtime refuses the model.
    #[error("ONNX Runtime refuses `{}`", path.display())]
    Rejected {
        /// The model.
        path: PathBuf,
        /// What ONNX Runtime said.
        #[source]
        source: ort::Error,
    },
    /// A batch failed.
    #[error("the encoder failed on a batch")]
    Run {
        /// What ONNX Runtime said.
        #[source]
        source: ort::Error,
    },
    /// In f16 a value went beyond what it holds.
    #[error(
        "column `{column}` has rows that are no numbers: some layer's values go beyond f16's 65504\nhint: set precision = \"f32\" in [encoder]"
    )]
    NotFinite {
        /// The column.
        column: String,
    },
    /// A buffer of the wrong length or alignment, or the wrong number of them.
    #[error("{what}: expected {expected}, found `{found}`")]
    Buffer {
        /// Which buffer, and what of it.
        what: String,
        /// What the session needs.
        expected: usize,
        /// What it got.
        found: usize,
    },
    /// A device that cannot be read.
    #[error("`{value}` is no device\nhint: cpu, cuda, cuda:N, or several GPUs such as cuda:0,1")]
    DeviceSyntax {
        /// As typed.
        value: String,
    },
    /// A GPU named twice.
    #[error("`{value}` names GPU {number} twice\nhint: name each once; a GPU gets two sessions by itself")]
    DeviceTwice {
        /// As typed.
        value: String,
        /// The GPU.
        number: u32,
    },
    /// A pooling that cannot be read.
    #[error("`{value}` is no pooling\nhint: none, global, flatten, or a grid such as 7x7")]
    PoolSyntax {
        /// As typed.
        value: String,
    },
    /// An encoder icecap does not know by name.
    #[error("no encoder is called `{name}`{}\nhint: {}, or the path of any .onnx", did_you_mean(nearest), crate::encoder::known::NAMES.join(", "))]
    UnknownEncoder {
        /// As typed.
        name: String,
        /// The names closest to it.
        nearest: Vec<String>,
    },
    /// A recipe's model is no name that icecap knows and no file.
    #[error(
        "`{model}` is neither a known encoder nor a file: there is no `{}`{}\nhint: known are {}; a path starts from the folder given by --data",
        path.display(), did_you_mean(nearest), crate::encoder::known::NAMES.join(", ")
    )]
    NoModel {
        /// As the recipe says it.
        model: String,
        /// The file that it would be.
        path: PathBuf,
        /// The names closest to it.
        nearest: Vec<String>,
    },
    /// No Python with torch to export with.
    #[error(
        "no Python to export `{name}` with; looked at\n{}\nhint: run `make setup`, or name one with --python FILE or ICECAP_PYTHON",
        bullets(looked)
    )]
    PythonNotFound {
        /// The encoder.
        name: String,
        /// Each place looked at.
        looked: Vec<String>,
    },
    /// A part of the model can't be taken out of it, or put back.
    #[error(transparent)]
    Section(#[from] crate::encoder::SectionError),
    /// The exporter failed; its last words say why.
    #[error("exporting `{name}` failed: {message}")]
    Export {
        /// The encoder.
        name: String,
        /// The exporter's own message.
        message: String,
    },
}

impl EncoderError {
    /// Wraps an I/O error with its file.
    pub(super) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_path_buf(), source }
    }
}

fn bullets(lines: &[String]) -> String {
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

fn with_shapes(taps: &[(String, Vec<usize>)]) -> String {
    taps.iter().map(|(tap, shape)| format!("`{tap}` {shape:?}")).collect::<Vec<_>>().join(" and ")
}

fn did_you_mean(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        names => format!("; nearest: {}", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    }
}

fn size_hint([height, width]: &[usize; 2]) -> String {
    if height == width { format!("{height}") } else { format!("[{height}, {width}]") }
}
