//! The report of a comparison: one HTML file that needs nothing else.
//!
//! Must not know runs, caches or pictures: takes words, numbers and JPEGs, gives a page. One decision defended: what can be read is in the
//! HTML, and the script only sorts, filters and draws. The gallery is data (JSON in a script element that is never run): a caption reaches the page as
//! the text of a node, so that whatever a caption says is shown and never done.

mod data;
mod plot;

use minijinja::{AutoEscape, Environment, Value, context, value::Serde};
use serde::Serialize;

pub use data::{Data, Image, Look, Pair, Part, RunData, Said, Shares};
pub use plot::{COLOURS, Cost, Curve, PlotError, costs, curves};

/// Bytes of a report, at most.
pub const MOST_BYTES: usize = 9_900_000;

/// A page that can't be made.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The template.
    #[error("the report's template can't be filled")]
    Template(#[from] minijinja::Error),
    /// A number that JSON has no form for.
    #[error("the report's data can't be written")]
    Data(#[from] serde_json::Error),
    /// A plot.
    #[error(transparent)]
    Plot(#[from] PlotError),
}

/// All that the page says, but the gallery's data.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Page {
    /// What is compared.
    pub title: String,
    /// The data set, the split, its images.
    pub subject: String,
    /// The finding, in a sentence or two.
    pub verdict: Vec<String>,
    /// The name of the score that ranks.
    pub metric: String,
    /// How intervals and differences were found.
    pub method: String,
    /// What the reader should know.
    pub notes: Vec<String>,
    /// Whether some variant has several seeds.
    pub seeds: bool,
    /// The titles of the other scores.
    pub other_scores: Vec<String>,
    /// The ranking.
    pub rows: Vec<Row>,
    /// Score against bytes a row.
    pub cost_plot: Option<String>,
    /// Loss by epoch.
    pub loss_plot: Option<String>,
    /// Validation's score by epoch.
    pub score_plot: Option<String>,
    /// What the validation's score is.
    pub score_plot_of: String,
    /// Which images the gallery shows.
    pub gallery_rule: String,
    /// Of how many images attention is shown.
    pub attention_rule: String,
    /// Where everything came from: a title and lines.
    pub provenance: Vec<Provenance>,
    /// The version of icecap.
    pub version: String,
}

/// One variant in the ranking. Numbers are there twice: as shown, and to sort by.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Row {
    /// Its place, from 1.
    pub rank: usize,
    /// Its colour, from 0.
    pub colour: usize,
    /// Its name.
    pub name: String,
    /// Its runs.
    pub runs: Vec<String>,
    /// What its decoder reads.
    pub columns: String,
    /// The score that ranks.
    pub score: Cell,
    /// Its interval.
    pub interval: String,
    /// Where the interval lies in the table's bar, in percent: from, to, and the score.
    pub bar: [f64; 3],
    /// What sets it apart from the first.
    pub behind: String,
    /// Where that lies.
    pub behind_interval: String,
    /// Whether it may be called worse than the first.
    pub worse: bool,
    /// The standard deviation over seeds.
    pub deviation: Cell,
    /// The other scores.
    pub scores: Vec<Cell>,
    /// Parameters.
    pub parameters: Cell,
    /// Bytes a row.
    pub row_bytes: Cell,
    /// Passes of the encoder.
    pub passes: Cell,
    /// Tokens a second.
    pub speed: Cell,
    /// Epochs.
    pub epochs: Cell,
    /// Time of training.
    pub time: Cell,
}

/// A number as shown and as sorted; both empty where there is none.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Cell {
    /// As shown.
    pub shown: String,
    /// As sorted.
    pub value: Option<f64>,
}

impl Cell {
    /// `value`, shown by `show`.
    #[must_use]
    pub fn of(value: Option<f64>, show: impl Fn(f64) -> String) -> Self {
        Self { shown: value.map(show).unwrap_or_default(), value }
    }
}

/// Where a run came from.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Provenance {
    /// The run.
    pub title: String,
    /// A name and what it is.
    pub lines: Vec<(String, String)>,
}

/// The page as HTML. `data` is [`Data`] as JSON.
///
/// # Errors
/// Where the template can't be filled.
pub fn render(page: &Page, data: &str) -> Result<String, PageError> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page.html", include_str!("page.html"))?;
    let template = environment.get_template("page.html")?;
    let safe = |text: &str| Value::from_safe_string(text.to_owned());
    Ok(template.render(context! {
        page => Value::from(Serde(page)),
        cost_plot => page.cost_plot.as_deref().map(safe),
        loss_plot => page.loss_plot.as_deref().map(safe),
        score_plot => page.score_plot.as_deref().map(safe),
        css => safe(include_str!("page.css")),
        js => safe(include_str!("page.js")),
        data => safe(&in_script(data)),
    })?)
}

/// JSON that ends no script element: `<` is written by its number, wherever it is.
fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let row = Row { rank: 1, name: "<b>grid</b>".into(), runs: vec!["a".into()], ..Row::default() };
        Page { title: "Two & \"three\"".into(), rows: vec![row], ..Page::default() }
    }

    #[test]
    fn what_is_named_is_text() {
        let html = render(&page(), "{}").unwrap();
        assert!(html.contains("&lt;b&gt;grid&lt;") && !html.contains("<b>grid"), "{html}");
        assert!(html.contains("Two &amp; &quot;three&quot;"));
    }

    #[test]
    fn no_caption_ends_the_script() {
        let data = serde_json::to_string(&["</script><script>alert(1)</script><!--"]).unwrap();
        let html = render(&page(), &data).unwrap();
        let held = html.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
        let read: Vec<String> = serde_json::from_str(held).unwrap();
        assert_eq!(read, ["</script><script>alert(1)</script><!--"]);
        assert!(!html.contains("<script>alert"));
    }

    #[test]
    fn the_page_needs_nothing_else() {
        let html = render(&page(), "{}").unwrap();
        for outside in ["src=\"http", "href=\"http", "url(http", "@import", "<link"] {
            assert!(!html.contains(outside), "{outside}");
        }
    }
}
