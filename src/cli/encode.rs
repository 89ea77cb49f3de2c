//! `export`, `inspect` and `encode`: stage one's commands.

use anyhow::Result;
use icecap_cache::Retry;

use super::{
    args::{Encode, Export, Inspect, Shared},
    bars::Bars,
    out, tables,
};
use crate::{
    encoder::{self, Devices},
    recipe::Recipe,
    stage::encode::{EncodeOptions, encode as run},
};

pub(super) fn export(args: &Export) -> Result<()> {
    encoder::export(&args.name, &args.weights, &args.output, args.python.as_deref())?;
    out::note!("{} is written; `icecap inspect {0}` lists what a column can tap", args.output.display());
    Ok(())
}

pub(super) fn inspect(args: &Inspect, shared: &Shared) -> Result<()> {
    encoder::init_runtime(shared.onnxruntime.as_deref())?;
    let size = args.size.as_ref().map(|size| [size[0] as usize, size[1] as usize]);
    let mut tensors = encoder::inspect_at(&args.model, size)?;
    let all = tensors.len();
    if !args.all {
        tensors = tables::last_of_each_shape(tensors);
    }
    if args.json {
        return out::json(&tensors);
    }
    out::data(tables::tensors(&tensors))?;
    if tensors.len() < all {
        out::note!("{} of {all} tensors: the last of each shape; --all lists every one", tensors.len());
    }
    Ok(())
}

pub(super) fn encode(args: &Encode, shared: &Shared) -> Result<()> {
    let recipe = Recipe::load(&args.recipe.recipe, &args.recipe.sets)?;
    let options = EncodeOptions {
        cache: args.cache.clone(),
        data: args.recipe.data.clone(),
        devices: args.device.parse::<Devices>()?,
        threads: args.threads,
        overwrite: args.overwrite,
        take: args.take.part(),
        retry_missing: args.retry_missing.map_or(Retry::No, Into::into),
        fetch: args.web.options(),
        keep_images: args.keep_images.clone(),
        max_missing: args.max_missing,
        part: args.part,
        shard_rows: args.shard_rows,
        onnxruntime: shared.onnxruntime.clone(),
        python: None,
    };
    let report = run(&recipe, &options, &Bars::new())?;
    if args.json {
        return out::json(&report);
    }
    out::note!("{}", tables::encoded_line(&report));
    out::data(tables::encoded(&report))
}
