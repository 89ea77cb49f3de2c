//! Sentences for `Dataset::notes`.

/// How many names a note shows.
const SHOWN: usize = 10;

/// `names` as a note: "`count` `what`: a, b, ... and 90 more". `None` when there are none.
pub(super) fn list(what: &str, names: &[impl AsRef<str>]) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("`{}`", name.as_ref())).collect();
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!("{} {what}: {}{more}", names.len(), shown.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_are_shown_and_all_are_counted() {
        assert_eq!(list("images are not there", &[] as &[&str]), None);
        let two = list("images are not there", &["a", "b"]).unwrap();
        assert_eq!(two, "2 images are not there: `a`, `b`");
        let names: Vec<_> = (0..25).map(|i| i.to_string()).collect();
        let note = list("are missing", &names).unwrap();
        assert!(note.starts_with("25 are missing: `0`, ") && note.ends_with("`9` and 15 more"), "{note}");
    }
}
