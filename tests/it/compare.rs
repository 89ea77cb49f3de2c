//! Comparisons by the program, and their page as a real browser sees it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::Place;

/// A caption that would run, were it not text.
const MARKUP: &str = "<img src=x onerror=\"window.ran=1\"> a <b id=bold>bold</b> circle";

/// What the page is asked in the browser.
const PROBE: &str = include_str!("compare/probe.js");

/// Two runs: attention over a grid, and over a grid and a vector.
fn runs() -> Place {
    let place = Place::with_recipe();
    place.icecap("encode recipe.toml --data . --cache cache").good();
    let train = "train recipe.toml --data . --cache cache";
    place.icecap(&format!("{train} --run grid")).good();
    place.icecap(&format!("{train} --run both --set decoder.columns=[\"grid\",\"whole\"]")).good();
    place
}

/// The browser, where there is one.
fn chromium() -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
    let names = ["chromium", "chromium-browser", "google-chrome", "chrome"];
    let found = folders.iter().flat_map(|folder| names.map(|name| folder.join(name))).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: no chromium on the PATH");
    }
    found
}

/// The page's DOM after its scripts have run, and what the browser logged.
fn browse(chromium: &Path, page: &Path, profile: &Path) -> (String, String) {
    let ended = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
        .args([
            "--disable-component-update",
            "--disable-sync",
            "--enable-logging=stderr",
            "--virtual-time-budget=20000",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(["--window-size=1280,900", "--dump-dom"])
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .output()
        .expect("the browser runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&ended.stdout), text(&ended.stderr))
}

#[test]
fn a_page_works_in_a_browser_and_shows_markup_as_text() {
    let Some(chromium) = chromium() else { return };
    let place = runs();
    place.icecap("compare grid both --json").good();
    let scores = place.path("both/scores/val.json");
    let mut scored: Value = serde_json::from_str(&place.read("both/scores/val.json")).expect("scores");
    scored["images"][0]["caption"] = MARKUP.into();
    fs::write(&scores, scored.to_string()).expect("scores");
    place.icecap("compare grid both -o report.html").good();

    let page = place.read("report.html");
    assert!(!page.contains("<b id=bold>"), "captions are data, not markup");
    let errors = "<script>window.errors=[];window.onerror=text=>{errors.push(String(text))}</script>";
    let probed = page.replacen("<head>", &format!("<head>{errors}"), 1);
    assert_ne!(probed, page);
    let end = probed.rfind("</body>").expect("an end");
    let probed = format!("{}<script>{PROBE}</script>{}", &probed[..end], &probed[end..]);
    place.write("probed.html", probed);

    let (dom, log) = browse(&chromium, &place.path("probed.html"), &place.path("profile"));
    assert!(!log.contains("CONSOLE"), "{log}");
    let answer = dom.split("<pre id=\"probe\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let answer = answer.unwrap_or_else(|| panic!("no answer: {log}"));
    let answer = answer.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["errors"], serde_json::json!([]), "{answer}");
    assert_eq!(answer["outside"], serde_json::json!([]), "nothing is asked of a network: {answer}");
    assert_eq!((&answer["ran"], &answer["bold"]), (&false.into(), &false.into()), "{answer}");
    assert_eq!(answer["markup"], 1, "the caption stands there as text: {answer}");
    let numbers = |name: &str| -> Vec<f64> {
        let list = answer[name].as_array().unwrap_or_else(|| panic!("{name}: {answer}"));
        list.iter().filter_map(Value::as_f64).collect()
    };
    let (up, down) = (numbers("ascending"), numbers("descending"));
    assert!(up.len() == 2 && up.is_sorted() && down.iter().rev().copied().eq(up.iter().copied()), "{answer}");
    assert!(numbers("worst_first").is_sorted() && numbers("worst_first").len() > 3, "{answer}");
    let filtered = answer["filtered"].as_u64().unwrap_or(0);
    assert!(filtered > 0 && filtered < answer["all"].as_u64().unwrap_or(0), "{answer}");
    assert_eq!(answer["marked"], answer["filtered_cards"], "each card that is left shows the word: {answer}");
    assert!(numbers("drawn").iter().all(|share| *share > 0.0) && numbers("drawn").len() == 1, "{answer}");
}

#[test]
fn what_is_refused_says_why() {
    let place = runs();
    place.icecap("evaluate grid --split test --no-java").good();
    let other = place.icecap("compare grid nowhere").bad();
    assert!(other.contains("nowhere"), "{other}");
    place.icecap("compare grid both --json").good();

    // Other references: the scores of one run are of another data set.
    let mut scored: Value = serde_json::from_str(&place.read("both/scores/val.json")).expect("scores");
    scored["images"][0]["references"][0] = "something else".into();
    place.write("both/scores/val.json", scored.to_string());
    let refused = place.icecap("compare grid both").bad();
    assert!(refused.contains("references") && refused.contains("both"), "{refused}");

    // No captions at all.
    scored["images"] = serde_json::json!([]);
    place.write("both/scores/val.json", scored.to_string());
    let refused = place.icecap("compare grid both").bad();
    assert!(refused.contains("holds no captions") && refused.contains("icecap evaluate"), "{refused}");

    // The cache is gone: scores that are there do, scores that are not can't be made.
    fs::remove_dir_all(place.path("cache")).expect("the cache goes");
    fs::remove_file(place.path("both/scores/val.json")).expect("the scores go");
    let refused = place.icecap("compare grid both").bad();
    assert!(refused.contains("its cache") && refused.contains("--cache"), "{refused}");
    place.icecap("compare grid").good();
}
