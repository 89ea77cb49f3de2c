//! What can be wrong with a recipe, and how it is shown.

use std::{fmt, path::PathBuf};

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::strict::Fault;

/// A recipe that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file can't be read.
    #[error("the recipe `{}` can't be read{}", path.display(), hint_for(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file was read, and these things are wrong with it.
    #[error("{}", render("recipe", name, text, faults))]
    Faults {
        /// The file's name.
        name: String,
        /// Its contents.
        text: String,
        /// All that is wrong.
        faults: Vec<Fault>,
    },
    /// A `--set` that isn't `key=value`.
    #[error("`--set {given}` is not of the form KEY=VALUE\nhint: write for example `--set decoder.hidden=512`")]
    Set {
        /// What was given.
        given: String,
    },
    /// A `--set` of a place that the recipe doesn't have.
    #[error(
        "`--set {given}`: there is no `{at}`: {found}\nhint: a place is a section and a key, such as `decoder.hidden`; \
         columns are counted from 0, as in `column.0.pool`"
    )]
    SetPlace {
        /// What was given.
        given: String,
        /// The first part of its path that isn't there.
        at: String,
        /// What there is.
        found: String,
    },
    /// A section that the command needs isn't there.
    #[error(
        "the recipe `{name}` has no `[{section}]`, which `icecap {command}` needs\nhint: add one; pipelines/ has examples"
    )]
    Section {
        /// The file's name.
        name: String,
        /// The missing section.
        section: &'static str,
        /// Who needs it.
        command: &'static str,
    },
}

fn hint_for(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => "\nhint: check the path; the recipes that come with icecap are in pipelines/",
        _ => "",
    }
}

/// All faults of a file, which is a `kind`, each with its caret.
pub(super) fn render(kind: &str, name: &str, text: &str, faults: &[Fault]) -> String {
    let count = faults.len();
    let title = format!("the {kind} `{name}` has {count} fault{}", if count == 1 { "" } else { "s" });
    faults.iter().fold(title, |shown, fault| format!("{shown}\n{}", Shown { name, text, fault }))
}

struct Shown<'a> {
    name: &'a str,
    text: &'a str,
    fault: &'a Fault,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, text, fault } = self;
        let label = fault.hint.as_deref().unwrap_or_default();
        let span = fault.span.start.min(text.len())..fault.span.end.min(text.len());
        let annotation = AnnotationKind::Primary.span(span).label(label);
        let snippet = Snippet::source(*text).path(*name).annotation(annotation);
        let group = Level::ERROR.no_name().primary_title(fault.message.as_str()).element(snippet);
        write!(f, "{}", Renderer::plain().render(&[group]))
    }
}
