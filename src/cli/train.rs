//! `train`, `caption`, `evaluate` and `demo`: stage two's commands, and the one that does everything.

use anyhow::Result;

use super::{
    args::{Caption, Demo, Evaluate, ExportRun, Search, Shared, Train},
    bars::Bars,
    score_tables, tables,
};
use crate::{
    metrics::Plan,
    recipe::Recipe,
    stage::{
        caption::{CaptionOptions, caption as run_caption, write_attention},
        demo::{DemoOptions, demo as run_demo},
        evaluate::{
            EvaluateOptions, Evaluation, Judging, Scored, SearchOptions, evaluate_results, evaluate_run, write_results,
        },
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
    let judging = Judging {
        java: !args.no_java,
        python: args.python.clone(),
        bootstrap: (args.resamples > 0).then(|| Plan { resamples: args.resamples, ..Plan::default() }),
    };
    let is_run = args.subject.is_dir();
    let evaluation = if is_run {
        let run = Run::open(&args.subject)?;
        let options = EvaluateOptions {
            split: args.split.clone(),
            cache: args.cache.clone(),
            search: search(&args.search),
            device: args.search.device.clone(),
            judging,
        };
        evaluate_run(&run, &options, &Bars::new())?
    } else {
        evaluate_results(&args.subject, args.annotations.as_deref(), &judging, &Bars::new())?
    };
    if let Some(output) = &args.output {
        write_results(output, &evaluation.results)?;
        eprintln!("{} captions are in {}", evaluation.results.len(), output.display());
    }
    keep_per_image(args, is_run, &evaluation)?;
    if evaluation.summary.missing > 0 {
        eprintln!("{} images have no embedding: their captions were made from nothing", evaluation.summary.missing);
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&evaluation.summary)?);
        return Ok(());
    }
    if !args.no_java {
        score_tables::not_scored(&evaluation.summary).iter().for_each(|line| eprintln!("{line}"));
    }
    print!("{}", score_tables::scores(&evaluation.summary));
    println!("{}", score_tables::wording(&evaluation.summary));
    Ok(())
}

/// A file that was asked for must be written; where a run's folder takes none, the scores are shown all the same.
fn keep_per_image(args: &Evaluate, is_run: bool, evaluation: &Evaluation) -> Result<()> {
    if let Some(path) = &args.per_image {
        Scored::from(evaluation).write(path)?;
        eprintln!("each image's scores are in {}", path.display());
    } else if is_run && !args.no_per_image {
        let path = Scored::path(&args.subject, &args.split);
        match Scored::from(evaluation).write(&path) {
            Ok(()) => eprintln!("each image's scores are in {}", path.display()),
            Err(error) => eprintln!("each image's scores are not kept: {error:#}"),
        }
    }
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
