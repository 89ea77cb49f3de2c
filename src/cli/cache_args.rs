//! What can be typed after `icecap cache` and `icecap drift`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use icecap_cache::Dtype;

use super::{
    args::{devices, percentage},
    sources::FetchArgs,
};
use crate::foreign::Format;

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
    #[command(after_help = "Example:\n  icecap cache verify caches/flickr8k grid7\n  \
        icecap cache verify caches/flickr8k grid7 --recompute 100 --data data")]
    Verify {
        /// The cache's folder
        cache: PathBuf,
        /// Only these columns
        columns: Vec<String>,
        /// Encode N random rows of each column again, too, and compare them
        #[arg(long, value_name = "N")]
        recompute: Option<usize>,
        /// The recipe to encode by (default: the one that the column holds)
        #[arg(long, value_hint = ValueHint::FilePath, requires = "recompute")]
        recipe: Option<PathBuf>,
        /// Folder that the recipe's paths start from
        #[arg(long, default_value = "data", value_hint = ValueHint::DirPath)]
        data: PathBuf,
        /// cpu, cuda or cuda:N
        #[arg(long, default_value = "cpu", value_parser = devices)]
        device: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        web: FetchArgs,
    },
    /// List the pictures that have no embedding, and why
    #[command(after_help = "Example:\n  icecap cache missing caches/flickr8k grid7")]
    Missing {
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
    /// Join the caches of all parts (`icecap encode --part`) into one: the same bytes as one run
    #[command(after_help = "Shards are linked where the result is on the same disk, copied and checked where not.\n\n\
        Example:\n  icecap encode recipe.toml --part 1/2 --cache parts/1   # here\n  \
        icecap encode recipe.toml --part 2/2 --cache parts/2   # or on another machine\n  \
        icecap cache merge caches/flickr8k parts/1 parts/2")]
    Merge {
        /// The cache to make
        out: PathBuf,
        /// The caches of the parts
        #[arg(required = true)]
        parts: Vec<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    Import(Import),
    Export(CacheExport),
}

/// Take over features that another program computed, as a column
#[derive(Debug, Args)]
#[command(
    after_help = "A row is matched by its id, then by its file name without folder and extension, then by COCO's number: \
    COCO_train2014_000000132417.jpg is 132417. Without --dataset, a new cache gets a row for each picture of the source.\n\n\
    Example:\n  icecap cache import caches/coco --column regions --from trainval_36.tsv --format anderson-tsv\n  \
    icecap cache import caches/coco --column att --from cocotalk_att --format npz --dataset pipelines/coco.toml --data data"
)]
pub(super) struct Import {
    /// The cache's folder; made where it isn't there
    pub cache: PathBuf,
    /// The new column's name
    #[arg(long)]
    pub column: String,
    /// The TSV, or the folder
    #[arg(long, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    pub from: PathBuf,
    /// anderson-tsv (one file); npy, npz, bottom-up-npz (one file a picture); or npy-rows (features.npy and ids.txt, as `export` writes them)
    #[arg(long)]
    pub format: Format,
    /// The array to take from each .npz
    #[arg(long, default_value = "feat", value_name = "NAME")]
    pub array: String,
    /// Vectors a row (default: as many as the picture with the most has); the rest of a row is padding, and `count` says so
    #[arg(long, value_name = "K")]
    pub vectors: Option<usize>,
    /// f16, bf16 or f32; the features are rounded to it
    #[arg(long, default_value = "f16")]
    pub dtype: Dtype,
    /// A recipe whose `[dataset]` gives the rows, their captions and splits
    #[arg(long, value_name = "RECIPE", value_hint = ValueHint::FilePath)]
    pub dataset: Option<PathBuf>,
    /// Folder that the recipe's paths start from
    #[arg(long, default_value = "data", value_hint = ValueHint::DirPath)]
    pub data: PathBuf,
    /// Drop a column of the same name made in another way
    #[arg(long)]
    pub overwrite: bool,
    /// Fail when more than this share of the rows has no features
    #[arg(long, default_value = "5%", value_name = "P", value_parser = percentage)]
    pub max_missing: f64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Write a column as files that other programs read
#[derive(Debug, Args)]
#[command(
    after_help = "Rows without an embedding are left out: ids.txt (or the tensor `ids`) says which row is which.\n\n\
    Example:\n  icecap cache export caches/flickr8k grid7 --format npy -o grid7\n  \
    icecap cache export caches/flickr8k grid7 --format safetensors -o grid7.safetensors --split val"
)]
pub(super) struct CacheExport {
    /// The cache's folder
    pub cache: PathBuf,
    /// The column
    pub column: String,
    /// npy: a folder with features.npy, ids.txt, missing.txt; safetensors: one file
    #[arg(long)]
    pub format: ExportKind,
    /// The folder or file to make
    #[arg(short, long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub output: PathBuf,
    /// Only the rows of this split
    #[arg(long)]
    pub split: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `cache export` writes.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum ExportKind {
    Npy,
    Safetensors,
}

/// How far two columns are from each other: layers, element types, encoders, devices
#[derive(Debug, Args)]
#[command(
    after_help = "Columns of one width are compared row by row: cosine, length, largest difference. Of any two, linear CKA says how far \
    they agree on which pictures are alike.\n\n\
    Example:\n  icecap drift caches/flickr8k grid7 grid7-f32\n  icecap drift caches/flickr8k grid7 caches/gpu:grid7 --json"
)]
pub(super) struct Drift {
    /// The cache's folder
    pub cache: PathBuf,
    /// A column, or CACHE:COLUMN of another cache
    pub one: String,
    /// The column to compare it with
    pub two: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
