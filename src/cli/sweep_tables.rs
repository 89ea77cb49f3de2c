//! What `icecap sweep` prints.

use crate::{
    report::{Table, bytes, count, duration},
    stage::sweep::{DryRun, PointReport, State, SweepOptions, SweepReport},
};

/// The points, the best first, with what failed and why below.
pub(super) fn points(report: &SweepReport) -> String {
    let mut table = Table::new(&["point", "CIDEr", "± sd", "seeds", "steps", "parameters", "time each", ""]);
    for point in &report.points {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        table.row(vec![
            point.point.clone(),
            number(point.mean),
            point.deviation.map_or_else(String::new, |deviation| format!("{deviation:.2}")),
            seeds(point),
            point.steps.map_or_else(String::new, |steps| steps.to_string()),
            point.parameters.map_or_else(String::new, |number| count(number as u64)),
            point.seconds.map_or_else(String::new, duration),
            state(point.state).to_owned(),
        ]);
    }
    let mut shown = table.to_string();
    shown +=
        "\nCIDEr: the best of a training's validations, greedy; the mean over seeds, and its standard deviation.\n";
    for trial in &report.trials {
        if let Some(error) = &trial.error {
            shown += &format!("\n{} failed: {}\n", trial.name, error.replace('\n', "\n    "));
        }
    }
    shown
}

fn seeds(point: &PointReport) -> String {
    if point.trials == point.of { point.of.to_string() } else { format!("{} of {}", point.trials, point.of) }
}

fn state(state: State) -> &'static str {
    match state {
        State::Finished => "",
        State::WeededOut => "weeded out",
        State::Failed => "failed",
        State::Waiting => "unfinished",
    }
}

/// The trials and what they cost.
pub(super) fn dry(found: &DryRun, options: &SweepOptions) -> String {
    let mut table = Table::new(&["trial", "columns", "steps", "done", "time left", ""]);
    for trial in &found.trials {
        table.row(vec![
            trial.name.clone(),
            trial.columns.join("+"),
            trial.steps.to_string(),
            trial.steps_done.to_string(),
            trial.seconds_left.map_or_else(|| "-".to_owned(), duration),
            match trial.state {
                State::Finished => "finished",
                State::Failed => "failed, to be tried again",
                _ => "",
            }
            .to_owned(),
        ]);
    }
    format!("{table}\n{}\n{}\n", encoding(found), training(found, options))
}

fn encoding(found: &DryRun) -> String {
    if found.columns.is_empty() {
        return "All columns are encoded.".to_owned();
    }
    let names: Vec<String> =
        found.columns.iter().map(|column| format!("{} ({})", column.name, bytes(column.bytes))).collect();
    let needed = found.columns.iter().map(|column| column.row_bytes * column.to_encode as u64).sum();
    let time = found.encode_seconds.map_or_else(String::new, |seconds| format!(" in about {}", duration(seconds)));
    format!("To encode first: {}; {}{time}.", names.join(", "), bytes(needed))
}

fn training(found: &DryRun, options: &SweepOptions) -> String {
    let jobs = options.jobs;
    let time = match found.train_seconds {
        Some(seconds) => format!("about {}", duration(seconds)),
        None => "a time that is told once a trial was trained".to_owned(),
    };
    format!("{} trials, {} steps left, {jobs} at once: {time}.", found.trials.len(), found.steps_left)
}
