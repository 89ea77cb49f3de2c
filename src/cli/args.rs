//! What can be typed after `icecap`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

/// Image captioning from frozen encoders: encode a data set once, train many decoders on the cached embeddings.
#[derive(Debug, Parser)]
#[command(name = "icecap", version, max_term_width = 100, arg_required_else_help = true)]
pub(super) struct Options {
    #[command(flatten)]
    pub shared: Shared,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(super) struct Shared {
    /// ONNX Runtime's shared library (else ORT_DYLIB_PATH, .venv, the system's)
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub onnxruntime: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Demo(Demo),
    Export(Export),
    Inspect(Inspect),
    Encode(Encode),
    Cache(Cache),
    Train(Train),
    Caption(Caption),
    Evaluate(Evaluate),
    ExportRun(ExportRun),
}

/// The whole journey on pictures that icecap draws itself: encode, train two decoders, caption, compare
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  icecap demo")]
pub(super) struct Demo {
    /// Folder for the demo's cache, runs and pictures
    #[arg(long, default_value = "icecap-demo", value_hint = ValueHint::DirPath)]
    pub out: PathBuf,
    /// Python that has torch and torchvision, for the export of the ResNet-18
    #[arg(long, value_name = "FILE")]
    pub python: Option<PathBuf>,
}

/// Write an encoder of torchvision's as an ONNX file whose layers can be tapped by name
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  icecap export resnet50 --weights pretrained -o data/encoders/resnet50.onnx")]
pub(super) struct Export {
    /// resnet18, resnet34, resnet50, resnet101, densenet121 or inception_v3
    pub name: String,
    /// pretrained, random, random:SEED, or a local state dict (.pth)
    #[arg(long, default_value = "pretrained")]
    pub weights: String,
    /// The file to write
    #[arg(short, long, value_name = "MODEL.onnx")]
    pub output: PathBuf,
    /// Python that has torch and torchvision (else ICECAP_PYTHON, VIRTUAL_ENV, .venv, python3)
    #[arg(long, value_name = "FILE")]
    pub python: Option<PathBuf>,
}

/// List the tensors of an ONNX model that a column can tap
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  icecap inspect data/encoders/resnet18.onnx --all")]
pub(super) struct Inspect {
    /// The model
    pub model: PathBuf,
    /// Height and width of the pictures, where the model leaves them open
    #[arg(long, num_args = 2, value_names = ["H", "W"])]
    pub size: Option<Vec<u32>>,
    /// Every tensor, not only the last of each shape
    #[arg(long)]
    pub all: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What a recipe is read with.
#[derive(Debug, Args)]
pub(super) struct RecipeArgs {
    /// The recipe (TOML)
    #[arg(value_hint = ValueHint::FilePath)]
    pub recipe: PathBuf,
    /// Folder that the recipe's paths start from
    #[arg(long, default_value = "data", value_hint = ValueHint::DirPath)]
    pub data: PathBuf,
    /// Put another value into the recipe, such as decoder.hidden=512 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
}

/// Stage one: run the frozen encoder over a data set and keep the columns that the recipe names
#[derive(Debug, Args)]
#[command(after_help = "Resumes by itself: run the same command again after any interruption.\n\n\
    Example:\n  icecap encode pipelines/flickr8k-attention.toml --data data --cache caches/flickr8k")]
pub(super) struct Encode {
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// The cache's folder; made where it isn't there
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub cache: PathBuf,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Threads to use (default: all cores)
    #[arg(long)]
    pub threads: Option<usize>,
    /// Drop columns of the same name made in another way, and encode them anew
    #[arg(long)]
    pub overwrite: bool,
    /// Try again the pictures that an earlier run recorded as missing
    #[arg(long)]
    pub retry_missing: bool,
    /// Fail when more than this share of the pictures is missing
    #[arg(long, default_value = "5%", value_name = "P", value_parser = percentage)]
    pub max_missing: f64,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Look after a cache
#[derive(Debug, Args)]
pub(super) struct Cache {
    #[command(subcommand)]
    pub command: CacheCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// List the columns of a cache, finished and unfinished
    #[command(after_help = "Example:\n  icecap cache list caches/flickr8k")]
    List {
        /// The cache's folder
        cache: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Read every byte of the columns and compare it with the digests that were written
    #[command(after_help = "Example:\n  icecap cache verify caches/flickr8k grid7")]
    Verify {
        /// The cache's folder
        cache: PathBuf,
        /// Only these columns
        columns: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove columns; the others are not touched
    #[command(after_help = "Example:\n  icecap cache drop caches/flickr8k grid7")]
    Drop {
        /// The cache's folder
        cache: PathBuf,
        /// The columns
        #[arg(required = true)]
        columns: Vec<String>,
    },
}

/// Stage two: train a decoder on cached columns
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  icecap train pipelines/flickr8k-attention.toml --cache caches/flickr8k --run runs/attention\n  \
    icecap train pipelines/flickr8k-attention.toml --cache caches/flickr8k --run runs/attention --resume"
)]
pub(super) struct Train {
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// The cache's folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub cache: PathBuf,
    /// The run's folder; made where it isn't there
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub run: PathBuf,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: String,
    /// Go on from the run's last checkpoint
    #[arg(long)]
    pub resume: bool,
}

/// Write the GPT-2 of a run as a folder that Hugging Face's transformers opens
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  icecap export-run runs/gpt2 -o exported/gpt2")]
pub(super) struct ExportRun {
    /// The run's folder
    pub run: PathBuf,
    /// The folder to write; it must be empty, or not there
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub output: PathBuf,
}

/// How captions are searched for; what isn't given is taken from the run's recipe.
#[derive(Debug, Args)]
pub(super) struct Search {
    /// Width of the beam; 1 is greedy
    #[arg(long, value_name = "N")]
    pub beam: Option<usize>,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    pub device: String,
}

/// Caption new pictures with a trained run, end to end
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  icecap caption runs/attention holiday.jpg --beam 5")]
pub(super) struct Caption {
    /// The run's folder
    pub run: PathBuf,
    /// The pictures
    #[arg(required = true, value_hint = ValueHint::FilePath)]
    pub images: Vec<PathBuf>,
    #[command(flatten)]
    pub search: Search,
    /// The encoder's ONNX file, where it has moved since the run was trained
    #[arg(long, value_name = "MODEL.onnx")]
    pub model: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Score a run, or anyone's COCO results file: BLEU-1..4, ROUGE-L, CIDEr
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  icecap evaluate runs/attention --beam 5 -o results.json\n  \
    icecap evaluate results.json --annotations captions_val2017.json")]
pub(super) struct Evaluate {
    /// A run's folder, or a results file: [{\"image_id\": .., \"caption\": ..}, ..]
    pub subject: PathBuf,
    /// The references of a results file, in COCO's format
    #[arg(long, value_name = "FILE")]
    pub annotations: Option<PathBuf>,
    /// The split of the data set to caption
    #[arg(long, default_value = "val")]
    pub split: String,
    /// The cache, where it has moved since the run was trained
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    #[command(flatten)]
    pub search: Search,
    /// Write the captions here, as a COCO results file
    #[arg(short, long, value_name = "RESULTS.json")]
    pub output: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn percentage(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(number) => number.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse::<f64>(),
    };
    match share {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("give a percentage such as `1%`, or a share from 0 to 1".to_owned()),
    }
}
