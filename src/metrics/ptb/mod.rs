//! Penn-Treebank tokens as pycocoevalcap makes them: Stanford CoreNLP 3.4.1, lower-cased, punctuation dropped.
//!
//! Must not know: what is counted in the tokens. Every published CIDEr rests on this tokenizer, quirks included: a bracket
//! stays as `-lrb-` (the list of dropped marks spells it in capitals), `!!` stays where `!` goes.
//!
//! Each rule says how far a token reaches from here; the longest one wins, the earlier of two equal ones. None of the
//! program's code is here: the rules were fitted to what it answers, on real captions and on random strings. What an
//! initial at a caption's end becomes depends, there, on the next line of the file; here on whether the caption itself
//! begins with a capital, as captions of one file look alike.

mod abbreviations;
mod chars;
mod lexer;
mod marks;
mod names;
mod numbers;
mod ranges;
mod rule;
mod web;
mod words;

/// Tokens that don't count.
const DROPPED: [&str; 13] = ["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"];

/// The tokens of a caption, separated by single spaces; empty where nothing is left. Never fails: a character that
/// can't be part of a token (an emoji) is left out.
#[must_use]
pub fn tokenize(caption: &str) -> String {
    let mut tokens = String::with_capacity(caption.len() + 8);
    lexer::each_token(caption, |token| {
        if !DROPPED.contains(&token) {
            if !tokens.is_empty() {
                tokens.push(' ');
            }
            tokens.push_str(token);
        }
    });
    // Only a no-break space inside a token can stand at the end, and pycocoevalcap strips it.
    tokens.truncate(tokens.trim_end().len());
    tokens
}

#[cfg(test)]
mod tests;
