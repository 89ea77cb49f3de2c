//! `icecap encode` on data sets of the web and in tars: rows and reasons, resumed, retried, kept, and in part.

use std::{collections::HashSet, process::Stdio, time::Duration};

use serde_json::json;

use crate::{
    support::{Place, files},
    web::{Answer, Web},
};

/// A picture that differs from every other one.
fn picture(index: u32) -> Vec<u8> {
    icecap::dataset::shapes::Scene { seed: 1, index: index.into(), side: 64 }.png()
}

/// Everything from `[encoder]` on of the ordinary recipe.
fn columns(place: &Place) -> String {
    let recipe = place.read("recipe.toml");
    recipe[recipe.find("[encoder]").expect("an encoder")..].to_owned()
}

/// A place with `web.toml` and a list of `rows` URLs of `web`.
fn listed(web: &Web, rows: u32) -> Place {
    let place = Place::with_recipe();
    let lines: String = (0..rows).map(|row| format!("picture {row}\t{}\n", web.url(&row.to_string()))).collect();
    place.write("list.tsv", lines);
    let columns = columns(&place);
    place.write("web.toml", format!("[dataset]\nformat = \"conceptual-captions\"\ntrain = \"list.tsv\"\n\n{columns}"));
    place
}

const ENCODE: &str = "encode web.toml --data . --allow-private --max-missing 90% --timeout 60 --json";

fn row(path: &str) -> u32 {
    path.parse().expect("a row")
}

#[test]
fn a_list_is_encoded_and_only_what_may_have_passed_is_tried_again() {
    let web = Web::new(|path, before| match row(path) {
        at if at % 10 == 3 => Answer::Status(404, String::new()),
        // Three tries in the first run, and up again in the second.
        7 if before < 3 => Answer::Status(500, "retry-after: 0\r\n".to_owned()),
        8 => Answer::Bytes(b"<html>this is no picture</html>".to_vec()),
        9 => Answer::Bytes(picture(9)[..500].to_vec()),
        at => Answer::Bytes(picture(at)),
    });
    let place = listed(&web, 60);
    let report = place.icecap(&format!("{ENCODE} --cache cache")).good().json();
    let first = json!({"http-404": 6, "http-500": 1, "not-an-image": 1, "truncated": 1});
    assert_eq!(
        (&report["rows"], &report["encoded"], &report["columns"][0]["missing"]),
        (&json!(60), &json!(60), &first)
    );
    assert_eq!((web.hits("7"), web.hits("3")), (3, 1));
    let report = place.icecap(&format!("{ENCODE} --cache cache")).good().json();
    assert_eq!((&report["encoded"], web.all_hits()), (&json!(0), 62));
    let report = place.icecap(&format!("{ENCODE} --cache cache --retry-missing")).good().json();
    let second = json!({"http-404": 6, "not-an-image": 1, "truncated": 1});
    assert_eq!((&report["encoded"], &report["columns"][0]["missing"]), (&json!(1), &second));
    assert_eq!(web.all_hits(), 63);
    let report = place.icecap(&format!("{ENCODE} --cache cache --retry-missing=all")).good().json();
    assert_eq!((&report["encoded"], &report["columns"][1]["missing"], web.all_hits()), (&json!(8), &second, 71));
}

#[test]
fn a_run_that_is_killed_goes_on_to_the_same_bytes_and_keeps_each_picture_once() {
    let web = Web::new(|path, _| match row(path) {
        at if at % 7 == 5 => Answer::Status(404, String::new()),
        at => {
            std::thread::sleep(Duration::from_millis(u64::from(at % 5) * 4));
            Answer::Bytes(picture(at))
        }
    });
    let place = listed(&web, 400);
    place.icecap(&format!("{ENCODE} --cache whole")).good();
    let mut kills = 0;
    for patience in [150, 250, 400, 600] {
        let line = format!("{ENCODE} --cache broken --keep-images kept --per-host 4");
        let mut child = place.command(&line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("icecap runs");
        std::thread::sleep(Duration::from_millis(patience));
        if child.try_wait().expect("a child").is_none() {
            kills += 1;
        }
        child.kill().expect("a kill");
        child.wait().expect("an end");
    }
    place.icecap(&format!("{ENCODE} --cache broken --keep-images kept")).good();
    let shards = |cache: &str| {
        let all = files(&place.path(&format!("{cache}/columns")));
        all.into_iter()
            .filter(|(name, _)| name.ends_with(".safetensors") || name.contains("missing"))
            .collect::<Vec<_>>()
    };
    assert_eq!(shards("whole"), shards("broken"), "after {kills} kills");
    // The tars hold exactly the pictures that are there, as another data set that gives the same rows.
    let columns = columns(&place);
    place.write("tars.toml", format!("[dataset]\nformat = \"webdataset\"\ntrain = \"kept\"\n\n{columns}"));
    let report = place.icecap("encode tars.toml --data . --cache tars --json").good().json();
    let present = (0..400).filter(|row| row % 7 != 5).count();
    assert_eq!((&report["rows"], &report["columns"][0]["missing"]), (&json!(present), &json!({})));
    let rows = place.read("tars/rows.jsonl");
    let lines: Vec<serde_json::Value> = rows.lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
    let captions: HashSet<&str> = lines.iter().filter_map(|line| line["captions"][0].as_str()).collect();
    assert_eq!(captions.len(), present);
    assert!(lines.iter().all(|line| {
        let key: u32 = line["id"]
            .as_str()
            .and_then(|id| id.strip_prefix("00000/00000"))
            .expect("a key")
            .parse()
            .expect("a number");
        line["captions"][0] == format!("picture {key}")
    }));
}

#[test]
fn a_part_grows_and_does_not_shrink() {
    let web = Web::new(|path, _| Answer::Bytes(picture(row(path))));
    let place = listed(&web, 50);
    let report = place.icecap(&format!("{ENCODE} --cache cache --sample 10:3")).good().json();
    assert_eq!((&report["rows"], web.all_hits()), (&json!(10), 10));
    let report = place.icecap(&format!("{ENCODE} --cache cache --sample 20:3")).good().json();
    assert_eq!((&report["rows"], &report["encoded"], web.all_hits()), (&json!(20), &json!(10), 20));
    // Ids are addresses and the server's port is another one each time, so the sample may hold the first image or not.
    let first = format!("\"{}\"", web.url("0"));
    let left_out = place.read("cache/rows.jsonl").lines().filter(|line| !line.contains(&first)).count();
    let refused = place.icecap(&format!("{ENCODE} --cache cache --limit 1")).bad();
    insta::assert_snapshot!(refused.replace(&format!("out {left_out} images"), "out N images"), @"
    error: `--limit` leaves out N images that the cache `cache` holds
    hint: a cache only grows: take at least what it has, or give the part a cache of its own
    ");
    let report = place.icecap(&format!("{ENCODE} --cache cache")).good().json();
    assert_eq!((&report["rows"], &report["encoded"]), (&json!(50), &json!(30)));
    let report = place.icecap(&format!("{ENCODE} --cache first --limit 7")).good().json();
    assert_eq!(report["rows"], json!(7));
}

#[test]
fn private_addresses_are_refused_unless_they_are_asked_for() {
    let web = Web::new(|path, _| Answer::Bytes(picture(row(path))));
    let place = listed(&web, 8);
    let refused = place.icecap("encode web.toml --data . --cache cache").bad();
    let refused = refused.replace(&web.port().to_string(), "PORT");
    insta::assert_snapshot!(refused, @"
    8 rows: 8 new
    error: 8 of 8 pictures of column `grid` are missing (8 refused), more than the 5% that --max-missing allows
      http://127.0.0.1:PORT/0: refused (not fetched: `127.0.0.1` is not a public address)
      http://127.0.0.1:PORT/1: refused (not fetched: `127.0.0.1` is not a public address)
      http://127.0.0.1:PORT/2: refused (not fetched: `127.0.0.1` is not a public address)
      http://127.0.0.1:PORT/3: refused (not fetched: `127.0.0.1` is not a public address)
      http://127.0.0.1:PORT/4: refused (not fetched: `127.0.0.1` is not a public address)
      http://127.0.0.1:PORT/5: refused (not fetched: `127.0.0.1` is not a public address)
      http://127.0.0.1:PORT/6: refused (not fetched: `127.0.0.1` is not a public address)
      http://127.0.0.1:PORT/7: refused (not fetched: `127.0.0.1` is not a public address)
    hint: nothing is lost: mend the list where its addresses are none; fetch from your own network with --allow-private and --retry-missing=all, or allow more, for example --max-missing 100%
    ");
    assert_eq!(web.all_hits(), 0);
    // The refusal is not for ever: it is another question now.
    let line = "encode web.toml --data . --cache cache --allow-private --retry-missing=all --json";
    assert_eq!(place.icecap(line).good().json()["columns"][0]["missing"], json!({}));
}

#[test]
fn options_for_the_web_that_make_no_sense() {
    let place = Place::with_recipe();
    insta::assert_snapshot!(place.icecap("encode recipe.toml --data . --cache cache --keep-images kept").bad(), @"
    error: `--keep-images kept` has nothing to keep: the images of `shapes` are on this machine already
    hint: leave it out
    ");
    for bad in [
        "--timeout 0",
        "--connections 0",
        "--per-host x",
        "--limit 0",
        "--sample 5:x",
        "--limit 5 --sample 5",
        "--retry-missing=some",
    ] {
        assert_eq!(place.icecap(&format!("encode recipe.toml --data . --cache cache {bad}")).code, Some(2), "{bad}");
    }
}

#[test]
fn bombs_and_broken_pictures_in_a_tar_are_missing_rows() {
    let place = Place::with_recipe();
    // A GIF of 60,000 by 60,000 pixels in a few bytes.
    let bomb = b"GIF89a\x60\xea\x60\xea\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x60\xea\x60\xea\0\x02\x02\x4c\x01\0;";
    let mut builder = tar::Builder::new(Vec::new());
    let good = picture(1);
    let members: [(&str, &[u8]); 5] =
        [("a.png", &good), ("b.gif", bomb), ("c.jpg", b"text"), ("d.jpg", b""), ("e.png", &good[..good.len() / 2])];
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).expect("a member");
    }
    let whole = builder.into_inner().expect("a tar");
    // The last picture is cut off with its tar.
    place.write("x.tar", &whole[..whole.len() - 1024 - good.len() / 4]);
    let columns = columns(&place);
    place.write("tar.toml", format!("[dataset]\nformat = \"webdataset\"\ntrain = \"x.tar\"\n\n{columns}"));
    let ended = place.icecap("encode tar.toml --data . --cache cache --max-missing 90% --json").good();
    assert!(ended.err.contains("`x.tar` is cut off or damaged"), "{}", ended.err);
    insta::assert_snapshot!(ended.json()["columns"][0]["missing"], @r#"{"empty":1,"not-an-image":1,"too-large":1,"truncated":1}"#);
}
