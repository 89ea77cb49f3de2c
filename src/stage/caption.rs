//! `icecap caption`: pictures in, captions out: the one place where both stages run in one process.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use icecap_cache::{Dtype, dequantize, quantize};
use serde::Serialize;

use super::{
    embed::Embedding,
    evaluate::SearchOptions,
    find::Finder,
    model::{Model, Spec},
    prepare::{Second, SecondInput},
    regions::Looker,
    run::Run,
};
use crate::{
    batch::{self, Column, HeldColumn},
    decoder::{self, ColumnInput},
    encoder::{self, Device},
    image::{self, ImageError, Picture, View},
    progress::Progress,
    recipe::{ColumnSpec, Recipe, RegionsSpec},
};

/// What `icecap caption` is told.
#[derive(Debug, Clone)]
pub struct CaptionOptions {
    /// How captions are searched for, where it isn't the recipe's way.
    pub search: SearchOptions,
    /// Whether the decoder's attention is wanted.
    pub attention: bool,
    /// `cpu`, `cuda`, `cuda:N`.
    pub device: String,
    /// The ONNX file, where it isn't where the run found it.
    pub model: Option<PathBuf>,
    /// ONNX Runtime's library.
    pub onnxruntime: Option<PathBuf>,
}

/// The caption of one picture.
#[derive(Debug, Clone, Serialize)]
pub struct Captioned {
    /// The picture.
    pub image: PathBuf,
    /// Its caption.
    pub caption: String,
    /// The sum of the natural log-probabilities of its tokens.
    pub log_prob: f64,
    /// Where the decoder looked before each token, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention: Option<Attention>,
}

/// Where a decoder looked.
#[derive(Debug, Clone, Serialize)]
pub struct Attention {
    /// The caption's tokens; the last is the end mark, empty.
    pub tokens: Vec<String>,
    /// The columns it looked at, and the shape of their rows: the last axis is a vector's width, the others count vectors.
    pub columns: Vec<AttendedColumn>,
    /// The share of each vector, all columns' one after another, before each token: `[T][K]`. Of cross-attention the mean over heads and
    /// layers; what went to the mark of the image is left out.
    pub weights: Vec<Vec<f32>>,
}

/// A column that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct AttendedColumn {
    /// Its name.
    pub name: String,
    /// The shape of a row.
    pub shape: Vec<usize>,
}

/// The decoder looks at all vectors alike.
#[derive(Debug, thiserror::Error)]
#[error("the run `{}` has no attention to show: its decoder doesn't weigh the image's vectors\nhint: leave --attention out, or train `kind = \"attention-lstm\"`, or `\"gpt2\"` with `mapping = \"cross-attention\"`", run.display())]
pub struct NoAttention {
    run: PathBuf,
}

/// A picture that can't be captioned.
#[derive(Debug, thiserror::Error)]
#[error("`{}` can't be captioned", path.display())]
pub struct BadPicture {
    path: PathBuf,
    #[source]
    source: ImageError,
}

/// The encoder isn't the one that the run's columns were made with.
#[derive(Debug, thiserror::Error)]
#[error(
    "the encoder `{}` would give another column `{column}` than the run was trained on\nhint: give the ONNX file that encoded the \
     run's cache by --model", model.display()
)]
pub struct OtherEncoder {
    model: PathBuf,
    column: String,
}

/// A picture that has no caption.
#[derive(Debug, Clone, Serialize)]
pub struct Refused {
    /// The picture.
    pub image: PathBuf,
    /// Why.
    pub error: String,
}

impl Refused {
    fn new(image: &Path, error: &anyhow::Error) -> Self {
        let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
        let error = if causes.is_empty() { error.to_string() } else { causes.join(": ") };
        Self { image: image.to_owned(), error }
    }

    /// The same for a person.
    #[must_use]
    pub fn line(&self) -> String {
        format!("`{}` can't be captioned: {}", self.image.display(), self.error)
    }
}

/// The run's regions come from a file, and new pictures are not in it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the run `{}` was trained on regions from `{}`, and new pictures have none\nhint: a column of a detector's regions (regions = \"detector\") \
     can be had of any picture", run.display(), file.display()
)]
pub struct NoRegions {
    run: PathBuf,
    file: PathBuf,
}

/// Captions `images` with `run`, in their order. A picture that can't be read is refused, and keeps no other from its caption.
///
/// # Errors
/// Where the encoder isn't the run's.
pub fn caption(
    run: &Run,
    images: &[PathBuf],
    options: &CaptionOptions,
    progress: &dyn Progress,
) -> Result<Vec<Result<Captioned, Refused>>> {
    encoder::init_runtime(options.onnxruntime.as_deref())?;
    let (device, note) = encoder::resolve(options.device.parse::<Device>()?);
    note.iter().for_each(|note| progress.line(note));
    let model = open_model(run, options)?;
    let (decoder, note) = run.decoder(&options.device)?;
    note.iter().for_each(|note| progress.line(note));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut sessions = Sessions {
        embedding: Embedding::new(&model, device, threads, |_| true)?,
        finder: Finder::new(&model.regions, &model.resolved.preprocess, device, threads, |_| true)?,
        looker: model.regions.looker(|_| true),
    };
    let spec = options.search.apply(&run.recipe.decode)?;
    progress.start("caption", Some(images.len() as u64));
    let mut captions = Vec::with_capacity(images.len());
    for (at, images) in images.chunks(model.resolved.plan.batch).enumerate() {
        let mut refused = vec![None; images.len()];
        let columns = run.view(embed(&model, &mut sessions, images, &mut refused)?)?;
        let rows: Vec<u32> = (0..images.len() as u32).collect();
        let first = at * model.resolved.plan.batch;
        let (prefix, spoken) = decoder::speak(decoder.as_ref(), &columns, &rows, &spec, run.special(), first)?;
        for (index, (image, spoken)) in images.iter().zip(spoken).enumerate() {
            if let Some(refused) = refused[index].take() {
                captions.push(Err(refused));
                continue;
            }
            let prefix = prefix.narrow(index as i64, 1);
            let look = || attention(run, decoder.as_ref(), &prefix, &columns, &spoken.tokens);
            captions.push(Ok(Captioned {
                image: image.clone(),
                caption: run.tokenizer.decode(&spoken.tokens),
                log_prob: spoken.log_prob,
                attention: options.attention.then(look).transpose()?,
            }));
        }
        progress.advance(images.len() as u64);
    }
    progress.finish();
    Ok(captions)
}

/// Where the decoder looks while `tokens` are said of the one image of `prefix`.
///
/// # Errors
/// [`NoAttention`].
pub(super) fn attention(
    run: &Run,
    decoder: &dyn decoder::Decoder,
    prefix: &batch::Prefix,
    columns: &[Arc<dyn Column>],
    tokens: &[u32],
) -> Result<Attention> {
    let captions = batch::Captions::pack(&[(0, tokens)], run.special(), tokens.len() + 1);
    let captions = captions.to_device(decoder.params().device());
    let weights = decoder.attention(prefix, &captions).ok_or_else(|| NoAttention { run: run.folder.clone() })?;
    let shown = tokens.iter().map(|token| run.tokenizer.decode(&[*token])).chain([String::new()]);
    let column = |(column, (read, seen)): (&Arc<dyn Column>, (&ColumnInput, &ColumnInput))| AttendedColumn {
        name: column.name().to_owned(),
        // Behind a tail the decoder sees other vectors than the column's.
        shape: match read == seen {
            true => column.row_shape().to_vec(),
            false => vec![seen.vectors as usize, seen.width as usize],
        },
    };
    let inputs = decoder.inputs().iter().zip(decoder.seen_inputs());
    Ok(Attention {
        tokens: shown.collect(),
        columns: columns.iter().zip(inputs).map(column).collect(),
        weights: batch::rows_of(&weights),
    })
}

/// The run's encoder, with the columns that its decoder reads, in their order.
fn open_model(run: &Run, options: &CaptionOptions) -> Result<Model> {
    let by_name = |name: &str| run.recipe.columns.iter().find(|column| column.name == name).cloned();
    let columns: Vec<ColumnSpec> = run.info.columns.iter().filter_map(|column| by_name(&column.input.name)).collect();
    let path = options.model.as_deref().unwrap_or(&run.info.model);
    let Recipe { encoder, detector, .. } = &run.recipe;
    let spec = Spec { encoder, detector: detector.as_ref(), columns: &columns, data: &run.info.data };
    let box_file = |column: &ColumnSpec| match &column.regions {
        Some(RegionsSpec::File(spec)) => Some(spec.file.clone()),
        _ => None,
    };
    if let Some(file) = columns.iter().find_map(box_file) {
        return Err(NoRegions { run: run.folder.clone(), file }.into());
    }
    let model = Model::open(&spec, path, run.info.detector.as_deref())
        .with_context(|| format!("the run's encoder `{}` can't be used", path.display()))?;
    for (at, column) in run.info.columns.iter().enumerate() {
        if model.key(at).digest() != column.key {
            return Err(OtherEncoder { model: path.to_owned(), column: column.input.name.clone() }.into());
        }
    }
    Ok(model)
}

/// What a batch of pictures goes through.
struct Sessions<'m> {
    embedding: Embedding<'m>,
    finder: Finder<'m>,
    looker: Option<Looker<'m>>,
}

/// One batch of pictures as columns held in memory. Those that can't be read are noted in `refused`, and what their rows hold
/// means nothing.
fn embed(
    model: &Model,
    sessions: &mut Sessions<'_>,
    images: &[PathBuf],
    refused: &mut [Option<Refused>],
) -> Result<Vec<Arc<dyn Column>>> {
    let plan = &model.resolved.plan;
    let mut views = vec![vec![0; plan.images_bytes()]; model.views.len()];
    let mut seconds = Vec::with_capacity(images.len());
    for (slot, path) in images.iter().enumerate() {
        match load(path, model, slot, &mut views, sessions.looker.as_ref()) {
            Ok(second) => seconds.extend(second.map(|second| (slot, second))),
            Err(error) => refused[slot] = Some(Refused::new(path, &error)),
        }
    }
    let pictures: Vec<_> = seconds.iter().map(|(slot, second)| (*slot, None, second)).collect();
    let seen = sessions.finder.find(plan.batch, &pictures)?;
    seen.set(&mut sessions.embedding)?;
    let mut rows: Vec<Vec<u8>> = model.columns.iter().map(|column| vec![0; plan.batch * column.row_bytes()]).collect();
    let mut targets = rows.iter_mut().map(|rows| Some(rows.as_mut_slice())).collect();
    sessions.embedding.run(&views, images.len(), &mut targets)?;
    seen.write(&mut targets);
    let held = model.columns.iter().zip(rows).enumerate().map(|(at, (column, mut bytes))| {
        let (name, row_shape) = (column.name.clone(), column.row_shape.clone());
        let dtype = if column.is_scaled() { as_read_back(&mut bytes, column.row_bytes()) } else { column.dtype };
        let counts = seen.counts(at, images.len());
        Arc::new(HeldColumn { name, dtype, row_shape, bytes, counts }) as Arc<dyn Column>
    });
    Ok(held.collect())
}

/// Makes of f32 rows what the decoder was trained to see: the numbers that come back from i8. A row without a scale, which a cache
/// would have as missing, is zero. Returns the element type of the result.
fn as_read_back(rows: &mut [u8], row_bytes: usize) -> Dtype {
    let mut scaled = vec![0; row_bytes / 4];
    for row in rows.chunks_exact_mut(row_bytes) {
        match quantize(row, &mut scaled) {
            Some(scale) => dequantize(&scaled, scale, row),
            None => row.fill(0),
        }
    }
    Dtype::F32
}

/// Decodes the picture in `path` into its slot of every view; what its regions need of it is returned.
fn load(
    path: &Path,
    model: &Model,
    slot: usize,
    views: &mut [Vec<u8>],
    looker: Option<&Looker<'_>>,
) -> Result<Option<Second>> {
    let bytes = fs::read(path).with_context(|| format!("the picture `{}` can't be read", path.display()))?;
    let preprocess = &model.resolved.preprocess;
    let picture_bytes = model.resolved.plan.height * model.resolved.plan.width * 3;
    let slots = views.iter_mut().map(|pixels| &mut pixels[slot * picture_bytes..][..picture_bytes]);
    let mut targets: Vec<(View, &mut [u8])> = model.views.iter().copied().zip(slots).collect();
    let look = looker.map(|looker| |picture: &Picture<'_>| looker.of(picture));
    let (original, look) = image::load_views(&bytes, preprocess, &mut targets, look)
        .map_err(|source| BadPicture { path: path.to_owned(), source })?;
    Ok(look.map(|look| Second { original, look }))
}

/// Writes the attention of each caption as JSON into `folder`: `PICTURE.json`, numbered where two pictures share a name.
///
/// # Errors
/// Where a file can't be written.
pub fn write_attention<'a>(folder: &Path, captions: impl IntoIterator<Item = &'a Captioned>) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("the folder `{}` can't be made", folder.display()))?;
    let mut taken = HashSet::new();
    for captioned in captions {
        let name = captioned.image.file_name().map_or_else(|| "picture".into(), |name| name.to_string_lossy());
        let numbered = |n: usize| if n == 0 { format!("{name}.json") } else { format!("{name}.{n}.json") };
        let file = (0..).map(numbered).find(|file| taken.insert(file.clone())).unwrap_or_default();
        let path = folder.join(file);
        let text = serde_json::to_string(captioned)?;
        fs::write(&path, text + "\n").with_context(|| format!("`{}` can't be written", path.display()))?;
    }
    Ok(())
}
