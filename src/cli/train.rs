//! `train`, `caption`, `evaluate` and `demo`: stage two's commands, and the one that does everything.

use anyhow::{Result, bail};
use serde_json::Value;

use super::{
    args::{Caption, Demo, Evaluate, ExportRun, Search, Shared, Train},
    bars::Bars,
    out, score_tables,
    sweep::program,
    sweep_board::board,
    tables,
};
use crate::{
    metrics::Plan,
    recipe::Recipe,
    stage::{
        caption::{CaptionOptions, Refused, caption as run_caption, write_attention},
        demo::{DemoOptions, demo as run_demo},
        evaluate::{
            EvaluateError, EvaluateOptions, Evaluation, Judging, Scored, SearchOptions, evaluate_results, evaluate_run,
            write_results,
        },
        export_run::export_run as run_export,
        run::Run,
        tail::export_encoder,
        train::{TrainOptions, train as run_train},
    },
};

pub(super) fn train(args: &Train, shared: &Shared) -> Result<()> {
    let recipe = Recipe::load(&args.recipe.recipe, &args.recipe.sets)?;
    let options = TrainOptions {
        cache: args.cache.clone(),
        run: args.run.clone(),
        data: args.recipe.data.clone(),
        device: args.device.clone(),
        resume: args.resume.map(Into::into),
        onnxruntime: shared.onnxruntime.clone(),
        init: args.init.clone(),
        until: None,
    };
    let report = run_train(&recipe, &args.recipe.recipe.display().to_string(), &options, &Bars::new())?;
    out::note!("{}", tables::trained_line(&report));
    out::note!("score it with `icecap evaluate {}`", args.run.display());
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
    let mut outcomes = run_caption(&run, &args.images, &options, &Bars::new())?;
    let refused: Vec<String> =
        outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).map(Refused::line).collect();
    refused.iter().for_each(|line| out::note!("{line}"));
    if let Some(folder) = &args.attention {
        write_attention(folder, outcomes.iter().flatten())?;
        out::note!("where the decoder looked is in {}", folder.display());
        outcomes.iter_mut().flatten().for_each(|captioned| captioned.attention = None);
    }
    if args.json {
        // Each as it is: a caption or an error.
        let shown: Result<Vec<Value>, _> = outcomes
            .iter()
            .map(|outcome| outcome.as_ref().map_or_else(serde_json::to_value, serde_json::to_value))
            .collect();
        out::json(&shown?)?;
    } else {
        for captioned in outcomes.iter().flatten() {
            out::data(format_args!("{}\t{}\n", captioned.image.display(), captioned.caption))?;
        }
    }
    match refused.len() {
        0 => Ok(()),
        bad => bail!("{bad} of {} pictures could not be captioned", outcomes.len()),
    }
}

/// Refuses what isn't there, and options that would do nothing.
fn check_subject(args: &Evaluate) -> Result<(), EvaluateError> {
    let path = args.subject.clone();
    if !path.exists() {
        return Err(EvaluateError::Nothing { path });
    }
    if path.is_dir() {
        let (meant, found) = ("a results file", "a run: its references are in its cache");
        let given = args.annotations.is_some();
        return if given {
            Err(EvaluateError::Useless { option: "--annotations", meant, path, found })
        } else {
            Ok(())
        };
    }
    let search = &args.search;
    let given = [
        ("--split", args.split.is_some()),
        ("--cache", args.cache.is_some()),
        ("--beam", search.beam.is_some()),
        ("--temperature", search.temperature.is_some()),
        ("--top-k", search.top_k.is_some()),
        ("--top-p", search.top_p.is_some()),
        ("--seed", search.seed.is_some()),
        ("--no-repeat-ngram", search.no_repeat_ngram.is_some()),
        ("--length-penalty", search.length_penalty.is_some()),
        ("--device", search.device != "cpu"),
    ];
    let (meant, found) = ("a run", "a results file: its captions are there already");
    match given.into_iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(EvaluateError::Useless { option, meant, path, found }),
        None => Ok(()),
    }
}

pub(super) fn evaluate(args: &Evaluate) -> Result<()> {
    check_subject(args)?;
    let judging = Judging {
        java: !args.no_java,
        python: args.python.clone(),
        bootstrap: (args.resamples > 0).then(|| Plan { resamples: args.resamples, ..Plan::default() }),
    };
    let is_run = args.subject.is_dir();
    let evaluation = if is_run {
        let run = Run::open(&args.subject)?;
        let options = EvaluateOptions {
            split: split(args),
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
        out::note!("{} captions are in {}", evaluation.results.len(), output.display());
    }
    keep_per_image(args, is_run, &evaluation)?;
    if evaluation.summary.missing > 0 {
        out::note!("{} images have no embedding: their captions were made from nothing", evaluation.summary.missing);
    }
    if args.json {
        return out::json(&evaluation.summary);
    }
    if !args.no_java {
        score_tables::not_scored(&evaluation.summary).iter().for_each(|line| out::note!("{line}"));
    }
    out::data(score_tables::scores(&evaluation.summary))?;
    out::data(format_args!("{}\n", score_tables::wording(&evaluation.summary)))
}

fn split(args: &Evaluate) -> String {
    args.split.clone().unwrap_or_else(|| "val".to_owned())
}

/// A file that was asked for must be written; where a run's folder takes none, the scores are shown all the same.
fn keep_per_image(args: &Evaluate, is_run: bool, evaluation: &Evaluation) -> Result<()> {
    if let Some(path) = &args.per_image {
        Scored::from(evaluation).write(path)?;
        out::note!("each image's scores are in {}", path.display());
    } else if is_run && !args.no_per_image {
        let path = Scored::path(&args.subject, &split(args));
        match Scored::from(evaluation).write(&path) {
            Ok(()) => out::note!("each image's scores are in {}", path.display()),
            Err(error) => out::note!("each image's scores are not kept: {error:#}"),
        }
    }
    Ok(())
}

pub(super) fn export_run(args: &ExportRun) -> Result<()> {
    if args.encoder {
        export_encoder(&Run::open(&args.run)?, args.model.as_deref(), &args.output)?;
        out::note!("{0} is written: a recipe with `model = \"{0}\"` encodes with it", args.output.display());
        return Ok(());
    }
    run_export(&Run::open(&args.run)?, &args.output)?;
    out::note!("{} is written: `GPT2LMHeadModel.from_pretrained(\"{0}\")` opens it", args.output.display());
    Ok(())
}

pub(super) fn demo(args: &Demo, shared: &Shared) -> Result<()> {
    let options = DemoOptions {
        out: args.out.clone(),
        onnxruntime: shared.onnxruntime.clone(),
        python: args.python.clone(),
        program: program()?,
    };
    let report = run_demo(&options, &Bars::new(), board().as_mut())?;
    out::data(tables::demo(&report))
}
