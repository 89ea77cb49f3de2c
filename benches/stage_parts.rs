//! Stage one in parts: decoding alone, and the encoder alone, at the speed of the hardware. What the whole cannot exceed.
//!
//!     cargo bench --bench stage_parts -- decode RECIPE --data DIR [--threads N] [--seconds S]
//!     cargo bench --bench stage_parts -- jpeg RECIPE --data DIR [--threads N] [--seconds S]
//!     cargo bench --bench stage_parts -- encoder RECIPE --data DIR [--threads N] [--seconds S] [--device cpu|cuda|cuda:0,1]
//!
//! `decode`: the recipe's first pictures, their files in memory, decoded and resized on N threads. `jpeg`: the same without the
//! resizing. `encoder`: resident batches of noise, on the CPU by N sessions of one thread, on a GPU by two sessions each, as
//! `icecap encode` opens them; rows go to memory that is used again. Prints one line of JSON. It uses icecap's library, so that
//! it measures the code that runs.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use icecap::dataset;
use icecap::encoder::{self, CompiledEncoder, Device, Devices, EncoderSession};
use icecap::image::{self, Picture, View};
use icecap::progress::Silent;
use icecap::recipe::Recipe;
use icecap::stage::model::{Model, Spec};

/// Files kept in memory.
const PICTURES: usize = 512;

struct Options {
    part: String,
    recipe: PathBuf,
    data: PathBuf,
    threads: usize,
    seconds: f64,
    devices: Devices,
}

fn main() -> Result<()> {
    let Some(options) = options()? else { return Ok(()) };
    let recipe = Recipe::load(&options.recipe, &[])?;
    encoder::init_runtime(None)?;
    let (devices, missing) = encoder::resolve_all(&options.devices);
    missing.iter().for_each(|line| eprintln!("{line}"));
    let model = Model::prepare(&Spec::of(&recipe, &options.data), None, &Silent)?;
    let rate = match options.part.as_str() {
        "decode" => decode(&recipe, &model, &options)?,
        "jpeg" => jpeg(&recipe, &options)?,
        "encoder" => encode(&model.passes[0].compiled, &devices, &options)?,
        other => bail!("`{other}` is no part: decode, jpeg or encoder"),
    };
    println!("{}", serde_json::json!({ "part": options.part, "threads": options.threads, "images_per_second": rate }));
    Ok(())
}

/// What is typed; nothing where cargo only asks whether there are tests.
fn options() -> Result<Option<Options>> {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let Some(part) = words.next().filter(|word| !word.starts_with('-')) else { return Ok(None) };
    let recipe = words.next().context("which recipe?")?.into();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (data, devices) = (PathBuf::from("data"), Devices::default());
    let mut options = Options { part, recipe, data, threads: cores, seconds: 5.0, devices };
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--data" => options.data = value.into(),
            "--threads" => options.threads = value.parse()?,
            "--seconds" => options.seconds = value.parse()?,
            "--device" => options.devices = value.parse()?,
            _ => bail!("`{word}` is no option"),
        }
    }
    Ok(Some(options))
}

/// Runs `work` on each of `workers` until the time is up, once more beforehand to warm up; images a second of all together.
fn together<W: Send>(
    workers: Vec<W>,
    seconds: f64,
    work: impl Fn(&mut W, usize) -> Result<usize> + Sync,
) -> Result<f64> {
    let done = AtomicU64::new(0);
    let ready = std::sync::Barrier::new(workers.len());
    let count = workers.len();
    let times = std::thread::scope(|scope| -> Result<Vec<f64>> {
        let run = |(at, mut worker): (usize, W)| {
            let (work, done, ready) = (&work, &done, &ready);
            scope.spawn(move || -> Result<f64> {
                let warm = work(&mut worker, at);
                ready.wait();
                warm?;
                let (start, limit) = (Instant::now(), Duration::from_secs_f64(seconds));
                let mut turn = at;
                while start.elapsed() < limit {
                    turn += count;
                    done.fetch_add(work(&mut worker, turn)? as u64, Ordering::Relaxed);
                }
                Ok(start.elapsed().as_secs_f64())
            })
        };
        let threads: Vec<_> = workers.into_iter().enumerate().map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("no worker panics")).collect()
    })?;
    Ok(done.into_inner() as f64 / times.into_iter().fold(0.0, f64::max))
}

fn files(recipe: &Recipe, options: &Options) -> Result<Vec<Vec<u8>>> {
    let dataset = dataset::load(&recipe.dataset, &options.data)?;
    let files: Vec<Vec<u8>> = dataset.items.iter().take(PICTURES).filter_map(|item| item.source.read().ok()).collect();
    if files.is_empty() {
        bail!("no picture could be read");
    }
    Ok(files)
}

fn jpeg(recipe: &Recipe, options: &Options) -> Result<f64> {
    let files = files(recipe, options)?;
    together(vec![(); options.threads], options.seconds, |(), turn| {
        Ok(usize::from(image::decode(&files[turn % files.len()], u64::MAX).is_ok()))
    })
}

fn decode(recipe: &Recipe, model: &Model, options: &Options) -> Result<f64> {
    let files = files(recipe, options)?;
    let picture = model.resolved.plan.height * model.resolved.plan.width * 3;
    let buffers = vec![vec![0; picture]; options.threads];
    together(buffers, options.seconds, |pixels, turn| {
        let targets = &mut [(View::Center, pixels.as_mut_slice())];
        let preprocess = &model.resolved.preprocess;
        let loaded = image::load_views(&files[turn % files.len()], preprocess, targets, None::<fn(&Picture<'_>)>);
        Ok(usize::from(loaded.is_ok()))
    })
}

fn encode(compiled: &CompiledEncoder, devices: &[Device], options: &Options) -> Result<f64> {
    let places = if devices == [Device::Cpu] { vec![Device::Cpu; options.threads] } else { devices.repeat(2) };
    let open = |device| -> Result<Worker> {
        let session = EncoderSession::new(compiled, device, 1)?;
        let words = |bytes: usize| vec![0u64; bytes.div_ceil(8)];
        let rows = compiled.outputs().iter().map(|output| words(session.batch() * output.row_bytes())).collect();
        let noise = |at: usize| ((at as u32).wrapping_mul(0x9E37_79B9) >> 24) as u8;
        Ok(Worker { session, images: (0..compiled.plan().images_bytes()).map(noise).collect(), rows })
    };
    let workers = places.into_iter().map(open).collect::<Result<Vec<_>>>()?;
    together(workers, options.seconds, |worker, _| {
        let sizes = compiled.outputs().iter().map(|output| compiled.plan().batch * output.row_bytes());
        let rows = worker.rows.iter_mut().zip(sizes);
        let mut rows: Vec<&mut [u8]> =
            rows.map(|(words, bytes)| &mut bytemuck::cast_slice_mut::<u64, u8>(words)[..bytes]).collect();
        worker.session.run(&worker.images, &mut rows)?;
        Ok(worker.session.batch())
    })
}

/// A session and a resident batch.
struct Worker {
    session: EncoderSession,
    images: Vec<u8>,
    rows: Vec<Vec<u64>>,
}
