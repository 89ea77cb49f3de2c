//! How a failure is shown: what failed, why, and last the way out.

/// The text for stderr: `error:`, the chain of causes, then every `hint:` line that the chain carries.
pub(super) fn render(error: &anyhow::Error) -> String {
    let mut hints: Vec<String> = Vec::new();
    let mut shown = String::new();
    for (depth, cause) in error.chain().enumerate() {
        let text = cause.to_string();
        let (said, hinted): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| !line.starts_with("hint: "));
        let label = if depth == 0 { "error" } else { "  cause" };
        let said = said.join("\n");
        if !shown.ends_with(&format!("{said}\n")) {
            shown += &format!("{label}: {said}\n");
        }
        hints.extend(
            hinted
                .iter()
                .filter(|hint| !hints.iter().any(|seen| seen == *hint))
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
        );
    }
    hints.iter().fold(shown, |shown, hint| shown + hint + "\n")
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    #[test]
    fn the_hints_of_all_causes_come_last() {
        let error = Err::<(), _>(anyhow::anyhow!("the disk of `x` is full\nhint: free space"))
            .context("column `grid7` was not finished\nhint: run the same command again")
            .expect_err("an error");
        insta::assert_snapshot!(super::render(&error), @r"
        error: column `grid7` was not finished
          cause: the disk of `x` is full
        hint: run the same command again
        hint: free space
        ");
    }
}
