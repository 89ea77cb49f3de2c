//! One sitting of a training: opened fresh or from a checkpoint, driven to its end.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;
use tch::{Device, Kind, Tensor};

use super::{
    Hooks, Outcome, Resume, TrainData, TrainError, TrainSpec, TrainState,
    average::Average,
    checkpoint::{self, io},
    fits, learning_rate,
    log::Log,
    open::{check, loader, state},
    optimizer::{AdamW, Stepped},
    precision,
    scst::{Images, Rewards, rewarded},
    spec::Plan,
    validate::{Validated, validate},
    window::{Report, Window},
};
use crate::{
    batch::{Batch, Captions, Held, Loader, Prefix, random::mix},
    decoder::{DecodeSpec, Decoder, Scoring, guard, mixed},
    report::duration,
};

/// Keeps the seeds of dropout apart from those of orders and first weights.
const DROPOUT: u64 = 0xD80F;

/// Keeps the seeds of a decoder's own words apart from all others.
const OWN_WORDS: u64 = 0x0711;

/// A training under way.
pub(super) struct Run<'a> {
    decoder: &'a mut dyn Decoder,
    optimizer: AdamW,
    average: Option<Average>,
    /// Forward and backward are computed in bf16.
    half: bool,
    held: Option<Held>,
    spec: &'a TrainSpec,
    data: &'a TrainData,
    folder: &'a Path,
    hooks: &'a Hooks<'a>,
    plan: Plan,
    rewards: Rewards,
    state: TrainState,
    log: Log,
    loader: Loader,
    /// Laid out as the parameters.
    gradient: Tensor,
    window: Window,
    begun: Instant,
    saved: Instant,
    waited: Duration,
    seconds: f64,
}

impl<'a> Run<'a> {
    pub fn open(
        decoder: &'a mut dyn Decoder,
        spec: &'a TrainSpec,
        data: &'a TrainData,
        folder: &'a Path,
        resume: Option<Resume>,
        hooks: &'a Hooks<'a>,
    ) -> Result<Self, TrainError> {
        check(decoder, spec, data)?;
        fs::create_dir_all(folder).map_err(|source| io("create", folder, source))?;
        let half = spec.precision.halves(decoder)?;
        let on_gpu = decoder.params().device() != Device::Cpu;
        spec.precision
            .line(on_gpu, decoder.halves_without_tail())
            .into_iter()
            .for_each(|line| hooks.progress.line(line));
        let mut optimizer = AdamW::new(decoder.params(), spec);
        let mut average = Average::new(decoder.params(), spec);
        let state = state(decoder, &mut optimizer, average.as_mut(), spec, data, folder, resume, hooks)?;
        let plan = Plan::new(spec, data.captions.len());
        // Before the rows are held: what is held leaves room for it.
        let gradient = decoder.params().flat().zeros_like();
        let held = fits::hold(decoder, spec, data)?.map(|(held, line)| {
            hooks.progress.line(&line);
            held
        });
        let loader = loader(spec, data, plan, state.step, held.is_some(), decoder.params().device())?;
        Ok(Self {
            gradient,
            log: Log::open(folder, state.step, spec)?,
            window: Window::default(),
            rewards: Rewards::default(),
            begun: Instant::now(),
            saved: Instant::now(),
            waited: Duration::ZERO,
            seconds: 0.0,
            decoder,
            optimizer,
            average,
            half,
            held,
            spec,
            data,
            folder,
            hooks,
            plan,
            state,
            loader,
        })
    }

    /// To the last step or to step `until`, or until the score no longer rises.
    pub fn go(mut self, until: Option<u64>) -> Result<Outcome, TrainError> {
        let steps = self.plan.steps;
        let end = until.map_or(steps, |until| until.min(steps));
        self.hooks.progress.start("train", Some(steps));
        self.hooks.progress.advance(self.state.step.min(steps));
        // Rewards begin with weights that know something: what they know is where the best score begins.
        if self.state.step == 0 && self.state.best.is_none() && self.spec.only_rewards() {
            self.validate()?;
        }
        // Gone on from the best checkpoint: it is the last one too from here on, even where no step follows.
        if self.state.best.is_some() && checkpoint::find(self.folder, "last").is_none() {
            self.save("last")?;
        }
        let mut stopped_early = self.exhausted();
        while self.state.step < end && !stopped_early {
            self.step()?;
            let done = self.state.step;
            let validates = done.is_multiple_of(self.plan.validate_every) || done == end;
            if validates || done.is_multiple_of(self.spec.log_every.max(1)) {
                self.report()?;
            }
            if validates {
                self.validate()?;
                stopped_early = self.exhausted() && done < steps;
            } else if self.saved.elapsed().as_secs() >= self.spec.checkpoint_seconds {
                self.save("last")?;
            }
        }
        self.hooks.progress.finish();
        Ok(Outcome {
            steps: self.state.step,
            best: self.state.best,
            stopped_early,
            skipped: self.state.skipped,
            tokens: self.state.tokens,
            seconds: self.state.seconds,
            waited: self.waited.as_secs_f64() / self.seconds.max(1e-9),
        })
    }

    fn exhausted(&self) -> bool {
        self.spec.patience > 0 && self.state.since_best >= self.spec.patience
    }

    /// One step: its batches' gradients, weighted by their tokens, and the optimizer.
    fn step(&mut self) -> Result<(), TrainError> {
        let begun = Instant::now();
        let waited_before = self.loader.waited;
        let step = self.state.step;
        let (_, _, batches) = self.plan.locate(step);
        let rate = self.rate(step);
        let Some(found) = guard(|| self.learn(step, batches, rate)) else {
            let (spec, data, held) = (self.spec, self.data, self.held.is_some());
            return Err(fits::too_large(self.decoder, self.half, spec, data, self.plan, step, held));
        };
        let (loss, tokens, stepped) = found?;
        self.state.step += 1;
        self.state.tokens += tokens;
        let waited = self.loader.waited - waited_before;
        let time = begun.elapsed();
        self.window.push(loss, stepped, tokens, time, waited);
        self.waited += waited;
        self.seconds += time.as_secs_f64();
        self.state.seconds += time.as_secs_f64();
        if self.decoder.params().device() == Device::Cpu {
            self.window.read(&mut self.state, self.spec, rate)?;
        }
        self.hooks.progress.advance(1);
        Ok(())
    }

    /// A step's gradients and what follows from them: its loss, its tokens, and what the optimizer found.
    fn learn(&mut self, step: u64, batches: u64, rate: f64) -> Result<(Tensor, u64, Stepped), TrainError> {
        let (loss, tokens) = self.gradients(step, batches)?;
        let params = self.decoder.params_mut();
        let stepped = self.optimizer.step(params, &mut self.gradient, &loss, rate, step);
        if let Some(average) = &mut self.average {
            average.follow(params, &stepped.finite, step);
        }
        Ok((loss, tokens, stepped))
    }

    /// The learning rate of a step.
    fn rate(&self, step: u64) -> f64 {
        learning_rate(self.spec, step, self.plan.steps) * self.state.plateaus.factor(self.spec)
    }

    /// Reads what the steps so far came to, once the device has done them: a GPU works behind the host, and that is part of their time.
    fn settle(&mut self) -> Result<(), TrainError> {
        let (asked, rate) = (Instant::now(), self.rate(self.state.step.saturating_sub(1)));
        self.window.read(&mut self.state, self.spec, rate)?;
        let time = asked.elapsed();
        self.window.add_time(time);
        self.seconds += time.as_secs_f64();
        self.state.seconds += time.as_secs_f64();
        Ok(())
    }

    /// Does `work` with the weights' average in the decoder, where there is one.
    fn averaged<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, TrainError>) -> Result<T, TrainError> {
        let swap = |run: &mut Self| {
            if let Some(average) = &mut run.average {
                average.swap(run.decoder.params_mut());
            }
        };
        swap(self);
        let found = work(self);
        swap(self);
        found
    }

    /// The step's loss and number of tokens; its gradient is left in `self.gradient`.
    fn gradients(&mut self, step: u64, batches: u64) -> Result<(Tensor, u64), TrainError> {
        let device = self.decoder.params().device();
        let loaded = (0..batches).map(|_| self.loader.next_batch()).collect::<Result<Vec<_>, _>>()?;
        let rewards = self.spec.rewards_at(self.plan.epoch(step)).is_some();
        let size = |batch: &Batch| if rewards { batch.rows.len() as i64 } else { batch.captions.tokens() };
        let (all, mut tokens): (i64, i64) = (loaded.iter().map(size).sum(), 0);
        let mut total: Option<Tensor> = None;
        for (index, batch) in loaded.into_iter().enumerate() {
            let share = size(&batch) as f64 / all as f64;
            let prefix = self.held.as_ref().map_or(batch.prefix, |held| held.gather(&batch.rows)).to_device(device);
            let salt = step * self.spec.accumulation as u64 + index as u64;
            let (captions, scoring) =
                self.lesson(step, salt, &prefix, batch.captions.to_device(device), &batch.rows)?;
            let (loss, gradients) = precision::gradients(self.decoder, self.half, &prefix, &captions, scoring);
            self.decoder.params().accumulate(&gradients, share, index == 0, &self.gradient);
            let part = if share == 1.0 { loss } else { loss * share };
            total = Some(total.map_or_else(|| part.shallow_clone(), |total| total + &part));
            tokens += captions.tokens();
        }
        Ok((total.unwrap_or_else(|| Tensor::zeros([], (Kind::Float, device))), tokens as u64))
    }

    /// What is learned of a batch: its captions, with some words of the decoder's own, or sampled and rewarded ones.
    fn lesson(
        &mut self,
        step: u64,
        salt: u64,
        prefix: &Prefix,
        captions: Captions,
        rows: &[u32],
    ) -> Result<(Captions, Scoring), TrainError> {
        let (epoch, special, seed) = (self.plan.epoch(step), self.data.special, mix(self.spec.seed ^ OWN_WORDS, salt));
        if let Some(scst) = self.spec.rewards_at(epoch) {
            let images = Images { prefix, rows, special, max_tokens: self.spec.max_tokens };
            let found = rewarded(self.decoder, &images, scst, seed, self.hooks)?;
            self.rewards.push(&found);
            return Ok((found.captions, Scoring { dropout: None, label_smoothing: 0.0 }));
        }
        let scoring =
            Scoring { dropout: Some(mix(self.spec.seed ^ DROPOUT, salt)), label_smoothing: self.spec.label_smoothing };
        let share = self.spec.scheduled_sampling.as_ref().map_or(0.0, |sampling| sampling.share(epoch));
        let own = (share > 0.0).then(|| mixed(self.decoder, prefix, &captions, special, share, seed)).flatten();
        Ok((own.unwrap_or(captions), scoring))
    }

    /// Shows and logs the steps since the last report.
    fn report(&mut self) -> Result<(), TrainError> {
        let step = self.state.step;
        let rate = self.rate(step.saturating_sub(1));
        self.settle()?;
        let report = self.window.report();
        let epoch = step as f64 / self.plan.steps_an_epoch as f64;
        let rewards = self.rewards.take();
        self.hooks.progress.status(&self.status(&report, epoch, rewards));
        let mut line = json!({
            "step": step, "epoch": epoch, "loss": report.loss, "learning_rate": rate, "gradient_norm": report.norm,
            "tokens_per_second": report.tokens_per_second, "waited": report.waited, "skipped": self.state.skipped,
            "seconds": self.state.seconds,
        });
        if let Some((reward, baseline)) = rewards {
            line["reward"] = json!(reward);
            line["baseline"] = json!(baseline);
        }
        self.log.line(&line)
    }

    fn status(&self, report: &Report, epoch: f64, rewards: Option<(f64, f64)>) -> String {
        let Report { loss, tokens_per_second, waited, .. } = report;
        let steps_left = (self.plan.steps - self.state.step) as f64;
        let left = steps_left * self.state.seconds / self.state.step.max(1) as f64;
        let skipped = match self.state.skipped {
            0 => String::new(),
            skipped => format!(", {skipped} steps skipped"),
        };
        let learned = match rewards {
            Some((reward, baseline)) => format!("reward {reward:.3} (baseline {baseline:.3})"),
            None => format!("loss {loss:.3}"),
        };
        format!(
            "epoch {epoch:.1}, {learned}, {tokens_per_second:.0} tokens/s, {} left, waited {:.1}% for data{skipped}",
            duration(left),
            100.0 * waited
        )
    }

    /// Captions of the validation images, their score, and the checkpoints that follow from it.
    fn validate(&mut self) -> Result<(), TrainError> {
        let asked = Instant::now();
        let greedy = DecodeSpec::default().greedy();
        let validated = self.averaged(|run| validate(run.decoder, run.data, &greedy, run.hooks));
        let Validated { score, captions } = validated?;
        // A best of zero is none: no caption said anything yet that a reference says.
        let better = self.state.best.is_none_or(|(best, _)| score.value > best || best == 0.0);
        if better {
            self.state.best = Some((score.value, self.state.step));
            self.state.since_best = 0;
        } else {
            self.state.since_best += 1;
        }
        let cut = self.state.plateaus.note(better, self.spec);
        let shown: Vec<String> = score.shown.iter().map(|(name, value)| format!("{name} {value:.2}")).collect();
        let progress = self.hooks.progress;
        let epoch = self.state.step as f64 / self.plan.steps_an_epoch as f64;
        let best = if better { " (best so far)" } else { "" };
        progress.line(&format!("epoch {epoch:.1}, step {}: {}{best}", self.state.step, shown.join(", ")));
        let samples = &captions[..self.spec.samples.min(captions.len())];
        let samples: Vec<(String, &str)> =
            samples.iter().map(|(row, caption)| ((self.hooks.name)(*row), caption.as_str())).collect();
        for (name, caption) in &samples {
            progress.line(&format!("    {name}: {caption}"));
        }
        self.log.captions(self.state.step, &samples)?;
        if cut {
            progress.line(&format!("    the score no longer rises: learning rate {:.2e}", self.rate(self.state.step)));
        }
        let scores: serde_json::Map<_, _> =
            score.shown.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        self.log.line(&json!({
            "step": self.state.step, "epoch": epoch, "score": score.value, "best": better, "scores": scores,
            "samples": captions[..samples.len()], "validation_seconds": asked.elapsed().as_secs_f64(),
            "elapsed_seconds": self.begun.elapsed().as_secs_f64(),
        }))?;
        if better {
            self.save("best")?;
        }
        self.save("last")
    }

    fn save(&mut self, name: &str) -> Result<(), TrainError> {
        self.settle()?;
        self.saved = Instant::now();
        self.averaged(|run| {
            let (optimizer, average, special) = (&run.optimizer, run.average.as_ref(), run.data.special);
            checkpoint::save(run.folder, name, run.decoder, optimizer, average, &run.state, special)
        })
    }
}
