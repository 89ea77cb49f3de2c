//! From what a recipe says (`cc3m/{00000..00331}.tar`, a folder, a file) to the names of tars.

use std::fs;
use std::path::Path;

use super::DatasetError;

/// Names that one pattern may stand for.
const MOST: usize = 1_000_000;

/// The tars that `pattern`, the setting of `split`, names, relative to `data_dir`. Whether they are there is not asked.
pub(super) fn files(pattern: &str, split: &'static str, data_dir: &Path) -> Result<Vec<String>, DatasetError> {
    let path = data_dir.join(pattern);
    if path.is_dir() {
        return folder(pattern, &path);
    }
    expand(pattern).map_err(|hint| DatasetError::Setting { key: split, value: format!("{pattern:?}"), hint })
}

fn folder(name: &str, path: &Path) -> Result<Vec<String>, DatasetError> {
    let unreadable = |source| DatasetError::Read { path: path.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned();
        if file.ends_with(".tar") && !file.starts_with('.') {
            names.push(format!("{}/{file}", name.trim_end_matches('/')));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A shell's braces: `{000..331}` counts, with leading zeros, `{a,b}` lists; several multiply, the last fastest.
fn expand(pattern: &str) -> Result<Vec<String>, &'static str> {
    let mut names = vec![String::new()];
    let mut rest = pattern;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, after) = after.split_once('}').ok_or("a `{` in it has no `}`")?;
        if inside.contains('{') || before.contains('}') {
            return Err("braces are `{00000..00331}` or `{a,b}`, side by side but not one in another");
        }
        let choices = choices(inside)?;
        if names.len().saturating_mul(choices.len()) > MOST {
            return Err("it stands for more than 1,000,000 files");
        }
        let longer = |name: &String| choices.iter().map(move |choice| format!("{name}{before}{choice}")).collect();
        names = names.iter().flat_map(|name| -> Vec<String> { longer(name) }).collect();
        rest = after;
    }
    if rest.contains('}') {
        return Err("a `}` in it has no `{`");
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Ok(names)
}

fn choices(inside: &str) -> Result<Vec<String>, &'static str> {
    let Some((first, last)) = inside.split_once("..") else {
        return Ok(inside.split(',').map(str::to_owned).collect());
    };
    let number =
        |text: &str| text.parse::<usize>().map_err(|_| "a range in braces is of two numbers: `{00000..00331}`");
    let (from, to) = (number(first)?, number(last)?);
    if from > to || to - from >= MOST {
        return Err("a range in braces goes up, over at most 1,000,000 numbers");
    }
    let digits = if first.starts_with('0') || last.starts_with('0') { first.len().max(last.len()) } else { 0 };
    Ok((from..=to).map(|at| format!("{at:0digits$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_expand_as_in_a_shell() {
        assert_eq!(expand("a/{008..010}.tar").unwrap(), ["a/008.tar", "a/009.tar", "a/010.tar"]);
        assert_eq!(expand("{9..11}").unwrap(), ["9", "10", "11"]);
        assert_eq!(expand("{a,b}/{0..1}.tar").unwrap(), ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]);
        assert_eq!(expand("plain.tar").unwrap(), ["plain.tar"]);
    }

    #[test]
    fn braces_that_make_no_sense_are_refused() {
        for bad in ["{1..2", "1}.tar", "{a,{b,c}}", "{2..1}", "{a..b}", "{0..99999999}", "{0..999}{0..9999}"] {
            assert!(expand(bad).is_err(), "{bad}");
        }
    }
}
