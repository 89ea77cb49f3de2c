//! A sweep while it runs: a bar for each trial under way where someone is watching, a line an event where nobody is.

use std::{
    collections::HashMap,
    io::{IsTerminal, stderr},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::out;
use crate::{
    report::duration,
    stage::sweep::{Board, Now, Standing},
};

/// The board for this stderr.
pub(super) fn board() -> Box<dyn Board> {
    if stderr().is_terminal() { Box::new(Live::default()) } else { Box::new(Lines::default()) }
}

/// `loss 3.412  CIDEr 28.10`, as far as they are known.
fn numbers(now: &Now<'_>) -> String {
    let loss = now.seen.loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.3}"));
    let cider = now.seen.cider.map_or_else(|| "-".to_owned(), |cider| format!("{cider:.2}"));
    format!("loss {loss:>6}  CIDEr {cider:>6}")
}

fn left(seconds: Option<f64>) -> String {
    seconds.map_or_else(String::new, |seconds| format!("{} left", duration(seconds)))
}

fn overall(standing: &Standing<'_>) -> String {
    let failed = if standing.failed > 0 { format!(", {} failed", standing.failed) } else { String::new() };
    let left = standing.seconds_left.map_or_else(String::new, |seconds| format!(", about {} left", duration(seconds)));
    format!("{} of {} trials done{failed}{left}", standing.ended, standing.trials)
}

/// Bars, the trials' above the one of all.
#[derive(Default)]
struct Live {
    all: MultiProgress,
    total: Option<ProgressBar>,
    bars: HashMap<String, ProgressBar>,
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Live {
    fn bar(&mut self, now: &Now<'_>, width: usize) -> &ProgressBar {
        self.bars.entry(now.name.to_owned()).or_insert_with(|| {
            let bar = ProgressBar::new(now.steps);
            let bar = match &self.total {
                Some(total) => self.all.insert_before(total, bar),
                None => self.all.add(bar),
            };
            bar.set_style(style(&format!(
                "{{prefix:{width}}} {{bar:20.cyan/blue}} {{human_pos:>6}}/{{human_len}}  {{msg}}"
            )));
            bar.set_prefix(now.name.to_owned());
            bar
        })
    }
}

impl Board for Live {
    fn show(&mut self, standing: &Standing<'_>) {
        let total = self.total.get_or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new_spinner());
            bar.set_style(style("{msg}"));
            bar
        });
        total.set_message(overall(standing));
        let gone = |name: &String| !standing.running.iter().any(|now| now.name == name);
        let gone: Vec<String> = self.bars.keys().filter(|name| gone(name)).cloned().collect();
        for name in gone {
            if let Some(bar) = self.bars.remove(&name) {
                bar.finish_and_clear();
                self.all.remove(&bar);
            }
        }
        let width = standing.running.iter().map(|now| now.name.chars().count()).max().unwrap_or(0).max(12);
        for now in &standing.running {
            let message = format!("{}  {}", numbers(now), left(now.seconds_left()));
            let bar = self.bar(now, width);
            bar.set_length(now.steps);
            bar.set_position(now.seen.step);
            bar.set_message(message);
        }
    }

    fn line(&mut self, text: &str) {
        self.all.suspend(|| out::note!("{text}"));
    }

    fn finish(&mut self) {
        self.total.take().iter().for_each(ProgressBar::finish_and_clear);
        self.bars.drain().for_each(|(_, bar)| bar.finish_and_clear());
    }
}

/// A line where a trial begins, and one at each of its validations.
#[derive(Default)]
struct Lines {
    validated: HashMap<String, usize>,
}

impl Board for Lines {
    fn show(&mut self, standing: &Standing<'_>) {
        for now in &standing.running {
            let count = now.seen.scores.len();
            match self.validated.get(now.name) {
                None => out::note!("{}: begun; {}", now.name, overall(standing)),
                Some(before) if *before < count => {
                    out::note!("{}: step {} of {}, {}", now.name, now.seen.step, now.steps, numbers(now));
                }
                Some(_) => continue,
            }
            self.validated.insert(now.name.to_owned(), count);
        }
        self.validated.retain(|name, _| standing.running.iter().any(|now| now.name == name));
    }

    fn line(&mut self, text: &str) {
        out::note!("{text}");
    }

    fn finish(&mut self) {}
}
