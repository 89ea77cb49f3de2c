//! Progress on stderr: a bar where someone is watching, nothing where nobody is.

use std::{io::IsTerminal, sync::Mutex};

use indicatif::{ProgressBar, ProgressStyle};

use super::out;
use crate::progress::Progress;

/// Draws one bar at a time on stderr; lines stay above it.
pub(super) struct Bars {
    bar: Mutex<Option<ProgressBar>>,
    watched: bool,
}

impl Bars {
    pub(super) fn new() -> Self {
        Self { bar: Mutex::new(None), watched: std::io::stderr().is_terminal() }
    }

    fn with_bar(&self, act: impl FnOnce(&ProgressBar)) {
        if let Ok(bar) = self.bar.lock()
            && let Some(bar) = bar.as_ref()
        {
            act(bar);
        }
    }
}

impl Progress for Bars {
    fn start(&self, label: &str, total: Option<u64>) {
        self.finish();
        if !self.watched {
            return;
        }
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{prefix:.bold} {wide_bar:.cyan/blue} {human_pos}/{human_len}  {msg}  {eta} left",
            ),
            None => (ProgressBar::new_spinner(), "{prefix:.bold} {spinner} {human_pos}  {msg}"),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_prefix(label.to_owned());
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        if let Ok(mut slot) = self.bar.lock() {
            *slot = Some(bar);
        }
    }

    fn advance(&self, units: u64) {
        self.with_bar(|bar| bar.inc(units));
    }

    fn status(&self, text: &str) {
        self.with_bar(|bar| bar.set_message(text.to_owned()));
    }

    fn line(&self, text: &str) {
        match self.bar.lock() {
            Ok(bar) => match bar.as_ref() {
                Some(bar) => bar.suspend(|| out::note!("{text}")),
                None => out::note!("{text}"),
            },
            Err(_) => out::note!("{text}"),
        }
    }

    fn finish(&self) {
        if let Ok(mut bar) = self.bar.lock()
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
        }
    }
}
