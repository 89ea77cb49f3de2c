//! What can be typed after `icecap`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use icecap_cache::Part;

use super::cache_args::{Cache, Drift};

use super::{
    compare::Compare,
    sources::{FetchArgs, PartArgs, RetryMissing},
    sweep_args::{SweepArgs, TrialArgs},
};

use crate::{
    encoder::{Device, Devices, EncoderError},
    trainer::Resume,
};

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
    Plan(Plan),
    Encode(Encode),
    Cache(Cache),
    Drift(Drift),
    Train(Train),
    Sweep(SweepArgs),
    #[command(hide = true)]
    Trial(TrialArgs),
    Caption(Caption),
    Evaluate(Evaluate),
    Compare(Compare),
    ExportRun(ExportRun),
}

/// The whole journey on pictures that icecap draws itself: encode, a sweep of decoders, caption, compare
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
    /// resnet18, resnet34, resnet50, resnet101, densenet121, inception_v3 or fasterrcnn_resnet50_fpn
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
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = assignment)]
    pub sets: Vec<String>,
}

/// What an encode would do: rows, columns, bytes, what is there already, and the time, from a short probe
#[derive(Debug, Args)]
#[command(after_help = "Nothing is written. Fails where the disk is too small.\n\n\
    Example:\n  icecap plan pipelines/flickr8k-attention.toml --data data --cache caches/flickr8k")]
pub(super) struct Plan {
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// The cache's folder; it need not exist
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub cache: PathBuf,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", value_parser = devices)]
    pub device: String,
    /// Threads to use (default: all cores)
    #[arg(long)]
    pub threads: Option<usize>,
    /// Images to encode for the probe
    #[arg(long, default_value_t = crate::stage::plan::PROBE_IMAGES, value_name = "N")]
    pub probe: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub take: PartArgs,
    #[command(flatten)]
    pub web: FetchArgs,
}

/// Stage one: run the frozen encoder over a data set and keep the columns that the recipe names
#[derive(Debug, Args)]
#[command(after_help = "Resumes by itself: run the same command again after any interruption.\n\n\
    Example:\n  icecap encode pipelines/flickr8k-attention.toml --data data --cache caches/flickr8k\n  \
    icecap encode pipelines/resnet-gpt2.toml --data data --cache caches/cc3m --sample 100000 --max-missing 40%")]
pub(super) struct Encode {
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// The cache's folder; made where it isn't there
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub cache: PathBuf,
    /// cpu, cuda, cuda:N, or several GPUs: cuda:0,1
    #[arg(long, default_value = "cpu", value_parser = devices)]
    pub device: String,
    /// Threads to use (default: all cores)
    #[arg(long)]
    pub threads: Option<usize>,
    /// Drop columns of the same name made in another way, and encode them anew
    #[arg(long)]
    pub overwrite: bool,
    /// Try again the pictures that an earlier run recorded as missing: those that may be had by now, or =all of them
    #[arg(long, value_name = "WHICH", num_args = 0..=1, require_equals = true, default_missing_value = "temporary")]
    pub retry_missing: Option<RetryMissing>,
    /// Fail when more than this share of the pictures is missing
    #[arg(long, default_value = "5%", value_name = "P", value_parser = percentage)]
    pub max_missing: f64,
    /// Encode part I of N: whole shards of each column, into a cache of its own (join them with `icecap cache merge`)
    #[arg(long, value_name = "I/N")]
    pub part: Option<Part>,
    /// Rows a shard of new columns (default: about 256 MiB a shard)
    #[arg(long, value_name = "N")]
    pub shard_rows: Option<u32>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub take: PartArgs,
    #[command(flatten)]
    pub web: FetchArgs,
    /// Keep the pictures that are fetched as WebDataset tars in this folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Data sets on the web")]
    pub keep_images: Option<PathBuf>,
}

/// A checkpoint of a run.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Checkpoint {
    Last,
    Best,
}

impl From<Checkpoint> for Resume {
    fn from(checkpoint: Checkpoint) -> Self {
        match checkpoint {
            Checkpoint::Last => Self::Last,
            Checkpoint::Best => Self::Best,
        }
    }
}

/// Stage two: train a decoder on cached columns
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  icecap train pipelines/flickr8k-attention.toml --cache caches/flickr8k --run runs/attention\n  \
    icecap train pipelines/flickr8k-attention.toml --cache caches/flickr8k --run runs/attention --resume\n  \
    icecap train pipelines/flickr8k-scst.toml --cache caches/flickr8k --run runs/scst --init runs/up-down"
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
    #[arg(long, default_value = "cpu", value_parser = device)]
    pub device: String,
    /// Go on from the run's last checkpoint; `--resume=best` from its best, where the last one is damaged
    #[arg(long, value_name = "CHECKPOINT", num_args = 0..=1, require_equals = true, default_missing_value = "last")]
    pub resume: Option<Checkpoint>,
    /// Begin with the weights and the tokenizer of another run, as rewards (train.scst) need it
    #[arg(long, value_name = "RUN", value_hint = ValueHint::DirPath)]
    pub init: Option<PathBuf>,
}

/// Write the GPT-2 of a run as a folder that Hugging Face's transformers opens, or a run's encoder with its trained tail
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  icecap export-run runs/gpt2 -o exported/gpt2\n  \
    icecap export-run runs/tail --encoder -o data/encoders/tuned.onnx")]
pub(super) struct ExportRun {
    /// The run's folder
    pub run: PathBuf,
    /// The folder to write (it must be empty, or not there); with --encoder, the file
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::AnyPath)]
    pub output: PathBuf,
    /// Write the encoder as ONNX instead: the run's own model, with the weights that its tail was trained to
    #[arg(long)]
    pub encoder: bool,
    /// The encoder's ONNX file, where it has moved since the run was trained
    #[arg(long, value_name = "MODEL.onnx", requires = "encoder", value_hint = ValueHint::FilePath)]
    pub model: Option<PathBuf>,
}

/// How captions are searched for; what isn't given is taken from the run's recipe.
#[derive(Debug, Args)]
pub(super) struct Search {
    /// Width of the beam; 1 is greedy
    #[arg(long, value_name = "N", conflicts_with_all = ["temperature", "top_k", "top_p"])]
    pub beam: Option<usize>,
    /// Sample, dividing the logits by this
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// Sample from the K most probable tokens
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Sample from the most probable tokens that together have this probability
    #[arg(long, value_name = "P")]
    pub top_p: Option<f64>,
    /// What is sampled
    #[arg(long)]
    pub seed: Option<u64>,
    /// Say no sequence of so many tokens twice
    #[arg(long, value_name = "N")]
    pub no_repeat_ngram: Option<usize>,
    /// Divide log-probabilities by length to this power: 0 prefers short captions
    #[arg(long, value_name = "A")]
    pub length_penalty: Option<f64>,
    /// cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu", value_parser = device)]
    pub device: String,
}

/// Caption new pictures with a trained run, end to end
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  icecap caption runs/attention holiday.jpg --beam 5\n  \
    icecap caption runs/attention holiday.jpg --top-p 0.9 --temperature 0.8 --seed 1")]
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
    /// Write where the decoder looked before each word, one JSON file a picture, into this folder
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub attention: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Score a run, or anyone's COCO results file: BLEU-1..4, ROUGE-L, METEOR, SPICE, CIDEr, with intervals
#[derive(Debug, Args)]
#[command(
    after_help = "METEOR and SPICE run in Java, where it and pycocoevalcap are installed (make setup EXTRAS=metrics). A run's per-image \
    scores are kept in RUN/scores/SPLIT.json.\n\n\
    Example:\n  icecap evaluate runs/attention --beam 5 -o results.json\n  \
    icecap evaluate results.json --annotations captions_val2017.json"
)]
pub(super) struct Evaluate {
    /// A run's folder, or a results file: [{\"image_id\": .., \"caption\": ..}, ..]
    pub subject: PathBuf,
    /// The references of a results file, in COCO's format
    #[arg(long, value_name = "FILE")]
    pub annotations: Option<PathBuf>,
    /// The split of the data set to caption (default: val)
    #[arg(long)]
    pub split: Option<String>,
    /// The cache, where it has moved since the run was trained
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    #[command(flatten)]
    pub search: Search,
    /// Write the captions here, as a COCO results file
    #[arg(short, long, value_name = "RESULTS.json")]
    pub output: Option<PathBuf>,
    /// Keep each image's scores here (a run's: else in its folder)
    #[arg(long, value_name = "FILE", conflicts_with = "no_per_image")]
    pub per_image: Option<PathBuf>,
    /// Keep no per-image scores
    #[arg(long)]
    pub no_per_image: bool,
    /// Leave out METEOR and SPICE, which take from seconds to minutes
    #[arg(long)]
    pub no_java: bool,
    /// Python that has pycocoevalcap (else ICECAP_PYTHON, VIRTUAL_ENV, .venv, python3)
    #[arg(long, value_name = "FILE")]
    pub python: Option<PathBuf>,
    /// How often the images are drawn anew for the 95% intervals; 0 for none
    #[arg(long, value_name = "N", default_value_t = crate::metrics::Plan::default().resamples)]
    pub resamples: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) fn device(text: &str) -> Result<String, String> {
    text.parse::<Device>().map(|_| text.to_owned()).map_err(|_| "give cpu, cuda or cuda:N, such as cuda:1".to_owned())
}

/// The same where several GPUs can share the work.
pub(super) fn devices(text: &str) -> Result<String, String> {
    text.parse::<Devices>().map(|_| text.to_owned()).map_err(|error| match error {
        error @ EncoderError::DeviceTwice { .. } => error.to_string(),
        _ => "give cpu, cuda, cuda:N, such as cuda:1, or several GPUs, such as cuda:0,1".to_owned(),
    })
}

pub(super) fn assignment(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("write KEY=VALUE, for example decoder.hidden=512".to_owned()),
    }
}

pub(super) fn percentage(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(number) => number.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse::<f64>(),
    };
    match share {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("give a percentage such as `1%`, or a share from 0 to 1".to_owned()),
    }
}
