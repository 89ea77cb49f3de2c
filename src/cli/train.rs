//! `train`, `caption`, `evaluate` and `demo`: stage two's commands, and the one that does everything.

use anyhow::Result;

use super::{
    args::{Caption, Demo, Evaluate, ExportRun, Search, Shared, Train},
    bars::Bars,
    tables,
};
use crate::{
    recipe::Recipe,
    stage::{
        caption::{CaptionOptions, caption as run_caption, write_attention},
        demo::{DemoOptions, demo as run_demo},
        evaluate::{EvaluateOptions, SearchOptions, evaluate_results, evaluate_run, write_results},
        export_run::export_run as run_export,
        run::Run,
        train::{TrainOptions, train as run_train},
    },
};

pub(super) fn train(args: &Train) -> Result<()> {
    let recipe = Recipe::load(&args.recipe.recipe, &args.recipe.sets)?;
    let options = TrainOptions {
        cache: args.cache.clone(),
        run: args.run.clone(),
        data: args.recipe.data.clone(),
        device: args.device.clone(),
        resume: args.resume,
        init: args.init.clone(),
    };
    let report = run_train(&recipe, &args.recipe.recipe.display().to_string(), &options, &Bars::new())?;
    eprintln!("{}", tables::trained_line(&report));
    eprintln!("score it with `icecap evaluate {}`", args.run.display());
    Ok(())
}

fn search(args: &Search) -> SearchOptions {
    SearchOptions {
        beam: args.beam,
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        seed: args.seed,
        no_repeat_ngram: args.no_repeat_ngram,
        length_penalty: args.length_penalty,
    }
}

pub(super) fn caption(args: &Caption, shared: &Shared) -> Result<()> {
    let run = Run::open(&args.run)?;
    let options = CaptionOptions {
        search: search(&args.search),
        attention: args.attention.is_some(),
        device: args.search.device.clone(),
        model: args.model.clone(),
        onnxruntime: shared.onnxruntime.clone(),
    };
    let mut captions = run_caption(&run, &args.images, &options, &Bars::new())?;
    if let Some(folder) = &args.attention {
        write_attention(folder, &captions)?;
        eprintln!("where the decoder looked is in {}", folder.display());
        captions.iter_mut().for_each(|captioned| captioned.attention = None);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&captions)?);
        return Ok(());
    }
    for captioned in &captions {
        println!("{}\t{}", captioned.image.display(), captioned.caption);
    }
    Ok(())
}

pub(super) fn evaluate(args: &Evaluate) -> Result<()> {
    let evaluation = if args.subject.is_dir() {
        let run = Run::open(&args.subject)?;
        let options = EvaluateOptions {
            split: args.split.clone(),
            cache: args.cache.clone(),
            search: search(&args.search),
            device: args.search.device.clone(),
        };
        evaluate_run(&run, &options, &Bars::new())?
    } else {
        evaluate_results(&args.subject, args.annotations.as_deref())?
    };
    if let Some(output) = &args.output {
        write_results(output, &evaluation.results)?;
        eprintln!("{} captions are in {}", evaluation.results.len(), output.display());
    }
    if evaluation.missing > 0 {
        eprintln!("{} images have no embedding: their captions were made from nothing", evaluation.missing);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&tables::scores_json(&evaluation))?);
        return Ok(());
    }
    print!("{}", tables::scores(&evaluation));
    Ok(())
}

pub(super) fn export_run(args: &ExportRun) -> Result<()> {
    run_export(&Run::open(&args.run)?, &args.output)?;
    eprintln!("{} is written: `GPT2LMHeadModel.from_pretrained(\"{0}\")` opens it", args.output.display());
    Ok(())
}

pub(super) fn demo(args: &Demo, shared: &Shared) -> Result<()> {
    let options =
        DemoOptions { out: args.out.clone(), onnxruntime: shared.onnxruntime.clone(), python: args.python.clone() };
    let report = run_demo(&options, &Bars::new())?;
    print!("{}", tables::demo(&report));
    Ok(())
}
