//! Fetching from a server that does everything a server can do wrong: each failure by its name, nothing lost, nothing stuck.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use icecap::fetch::{FetchOptions, Fetched, Fetcher, Group};

use crate::web::{Answer, Web};

fn options() -> FetchOptions {
    FetchOptions { timeout: Duration::from_secs(4), retries: 0, allow_private: true, ..FetchOptions::default() }
}

fn groups<S: ToString>(groups: &[&[S]]) -> Vec<Group<usize>> {
    let group =
        |(ticket, urls): (usize, &&[S])| Group { ticket, urls: urls.iter().map(|url| Some(url.to_string())).collect() };
    groups.iter().enumerate().map(group).collect()
}

fn fetch(options: &FetchOptions, groups: Vec<Group<usize>>) -> Vec<Fetched<usize>> {
    let (out, fetched) = crossbeam_channel::unbounded();
    Fetcher::new(options).expect("a fetcher").fetch(groups.into_iter(), &out, &AtomicBool::new(false));
    drop(out);
    fetched.iter().collect()
}

/// `reason: detail`, or how many bytes, of each URL.
fn answers(fetched: &Fetched<usize>) -> Vec<String> {
    let answer = |file: &Result<icecap::fetch::Download, icecap::fetch::FetchError>| match file {
        Ok(bytes) => format!("{} bytes", bytes.len()),
        Err(error) => format!("{}: {error}", error.reason()),
    };
    fetched.files.iter().map(answer).collect()
}

#[test]
fn every_failure_has_its_name() {
    let web = Web::new(|path, _| match path {
        "good" => Answer::Bytes(vec![1; 3000]),
        "chunked" => Answer::Chunked(vec![1; 300_000]),
        "empty" => Answer::Bytes(Vec::new()),
        "moved" => Answer::Redirect("/good".to_owned()),
        "loop" => Answer::Redirect("/loop".to_owned()),
        "to-file" => Answer::Redirect("file:///etc/passwd".to_owned()),
        "to-nowhere" => Answer::Status(302, String::new()),
        "stall" => Answer::Stall,
        "stall-halfway" => Answer::StallHalfway(vec![1; 3000]),
        "break-off" => Answer::BreakOff(vec![1; 3000]),
        "hang-up" => Answer::HangUp,
        "huge" => Answer::Announce(1 << 30),
        "endless" => Answer::Endless,
        "rubbish" => Answer::Rubbish,
        status => Answer::Status(status.parse().expect("a status"), String::new()),
    });
    let paths = [
        "good",
        "chunked",
        "empty",
        "moved",
        "loop",
        "to-file",
        "to-nowhere",
        "stall",
        "stall-halfway",
        "break-off",
        "hang-up",
        "huge",
        "endless",
        "rubbish",
        "404",
        "410",
        "429",
        "500",
        "503",
        "206",
        "304",
    ];
    let mut urls: Vec<String> = paths.iter().map(|path| web.url(path)).collect();
    // Nobody listens there: it was free a moment ago, and is not given out again so soon.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    urls.extend([format!("http://127.0.0.1:{free}/"), format!("https://127.0.0.1:{}/good", web.port())]);
    urls.extend(
        ["http://no-such-host.invalid/", "file:///etc/passwd", "ftp://x/", "data:,x", "javascript:x", "", "\u{0}"]
            .map(str::to_owned),
    );
    let mut groups = groups(&[&urls]);
    groups[0].urls.push(None);
    let fetched = fetch(&FetchOptions { max_bytes: 1 << 20, ..options() }, groups);
    let names = paths.into_iter().map(str::to_owned).chain(urls[paths.len()..].iter().map(|url| {
        url.replace(&free.to_string(), "FREE").replace(&web.port().to_string(), "PORT").escape_default().to_string()
    }));
    let shown: Vec<String> = names
        .chain(["-".to_owned()])
        .zip(answers(&fetched[0]))
        .map(|(name, answer)| format!("{name} -> {answer}"))
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    good -> 3000 bytes
    chunked -> 300000 bytes
    empty -> 0 bytes
    moved -> 3000 bytes
    loop -> redirects: redirected more than `5` times
    to-file -> refused: not fetched: `file:` is neither http nor https
    to-nowhere -> http-302: the server answered `302`
    stall -> timeout: no answer in time
    stall-halfway -> timeout: no answer in time
    break-off -> connection: the connection broke off
    hang-up -> connection: the connection broke off
    huge -> too-large: the file has more than `1048576` bytes
    endless -> too-large: the file has more than `1048576` bytes
    rubbish -> connection: the connection broke off
    404 -> http-404: the server answered `404`
    410 -> http-410: the server answered `410`
    429 -> http-429: the server answered `429`
    500 -> http-500: the server answered `500`
    503 -> http-503: the server answered `503`
    206 -> 4 bytes
    304 -> http-304: the server answered `304`
    http://127.0.0.1:FREE/ -> connection: no connection is made
    https://127.0.0.1:PORT/good -> connection: no connection is made
    http://no-such-host.invalid/ -> dns: the host's name does not resolve
    file:///etc/passwd -> refused: not fetched: `file:` is neither http nor https
    ftp://x/ -> refused: not fetched: `ftp:` is neither http nor https
    data:,x -> refused: not fetched: `data:` is neither http nor https
    javascript:x -> refused: not fetched: `javascript:` is neither http nor https
     -> refused: not fetched: `` is not a URL (relative URL without a base)
    \u{0} -> refused: not fetched: `\0` is not a URL (relative URL without a base)
    - -> not-found: the data set has this picture no longer
    ");
}

#[test]
fn what_may_pass_is_tried_again_and_the_rest_is_not() {
    let web = Web::new(|path, before| match (path, before) {
        ("busy", 0) => Answer::Status(503, "retry-after: 0\r\n".to_owned()),
        ("broken", 0) => Answer::HangUp,
        ("gone", _) => Answer::Status(404, String::new()),
        ("patience", _) => Answer::Status(429, "retry-after: 86400\r\n".to_owned()),
        _ => Answer::Bytes(vec![1; 10]),
    });
    let urls = ["busy", "broken", "gone", "patience"].map(|path| web.url(path));
    let fetched = fetch(&FetchOptions { retries: 1, ..options() }, groups(&[&urls]));
    insta::assert_snapshot!(answers(&fetched[0]).join("\n"), @"
    10 bytes
    10 bytes
    http-404: the server answered `404`
    http-429: the server answered `429`
    ");
    assert_eq!(["busy", "broken", "gone", "patience"].map(|path| web.hits(path)), [2, 2, 1, 1]);
}

#[test]
fn a_list_does_not_reach_inside() {
    let web = Web::new(|_, _| Answer::Bytes(vec![1; 10]));
    let (port, url) = (web.port(), web.url("a"));
    let urls = [
        url,
        format!("http://localhost:{port}/a"),
        format!("http://0x7f000001:{port}/a"),
        format!("http://[::ffff:127.0.0.1]:{port}/a"),
        format!("http://0.0.0.0:{port}/a"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
    ];
    let fetched = fetch(&FetchOptions { allow_private: false, ..options() }, groups(&[&urls]));
    for (url, answer) in urls.iter().zip(answers(&fetched[0])) {
        assert!(
            answer.starts_with("refused: not fetched: `") && answer.ends_with("` is not a public address"),
            "{url}: {answer}"
        );
    }
    assert_eq!(web.all_hits(), 0);
}

#[test]
fn a_group_waits_for_its_slowest_and_for_no_other_group() {
    let web = Web::new(|path, _| if path == "stall" { Answer::Stall } else { Answer::Bytes(vec![1; 10]) });
    let (stall, quick) = (web.url("stall"), web.url("quick"));
    let fetched = fetch(&options(), groups(&[&[&quick, &stall], &[&quick, &quick], &[]]));
    let order: Vec<usize> = fetched.iter().map(|group| group.ticket).collect();
    assert_eq!(*order.last().expect("groups"), 0, "{order:?}");
    assert_eq!(fetched.last().map(answers).expect("groups"), ["10 bytes", "timeout: no answer in time"]);
}

#[test]
fn one_host_is_asked_for_no_more_at_once_than_was_agreed() {
    let web = Web::new(|_, _| {
        std::thread::sleep(Duration::from_millis(10));
        Answer::Bytes(vec![1; 10])
    });
    let urls: Vec<String> = (0..40).map(|at| web.url(&at.to_string())).collect();
    let fetched = fetch(&FetchOptions { per_host: 3, timeout: Duration::from_secs(10), ..options() }, groups(&[&urls]));
    assert!(fetched[0].files.iter().all(Result::is_ok));
    assert!(web.most_busy() <= 3, "{} at once", web.most_busy());
}

#[test]
fn files_that_nobody_takes_are_bounded_and_nothing_locks_up() {
    // Files of unknown length, larger than was guessed, and a room for three of them.
    let web =
        Web::new(
            |path, _| {
                if path.ends_with('0') { Answer::Bytes(vec![1; 100_000]) } else { Answer::Chunked(vec![1; 100_000]) }
            },
        );
    let all: Vec<Vec<String>> =
        (0..30).map(|group| (0..4).map(|at| web.url(&(4 * group + at).to_string())).collect()).collect();
    let groups = groups(&all.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let options = FetchOptions { held_bytes: 300_000, timeout: Duration::from_secs(20), ..options() };
    let (out, fetched) = crossbeam_channel::unbounded::<Fetched<usize>>();
    let fetcher = Fetcher::new(&options).expect("a fetcher");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            fetcher.fetch(groups.into_iter(), &out, &stop);
            drop(out);
        });
        let mut held = Vec::new();
        // Nobody takes anything: it comes to rest at what there is room for and the group that was the oldest.
        while let Ok(group) = fetched.recv_timeout(Duration::from_millis(300)) {
            held.push(group);
            if held.len() > 10 {
                break;
            }
        }
        let bytes: usize =
            held.iter().flat_map(|group| &group.files).map(|file| file.as_ref().map_or(0, |file| file.len())).sum();
        assert!(bytes <= 300_000 + 400_000, "{bytes} bytes are held");
        let mut seen = held.len();
        held.clear();
        for group in &fetched {
            assert!(group.files.iter().all(|file| file.as_ref().is_ok_and(|file| file.len() == 100_000)));
            seen += 1;
        }
        assert_eq!(seen, 30);
    });
}

#[test]
fn a_fetch_that_is_told_to_stop_stops() {
    let web = Web::new(|_, _| Answer::Stall);
    let groups = groups(&[&[web.url("a"), web.url("b")]]);
    let (out, _fetched) = crossbeam_channel::unbounded::<Fetched<usize>>();
    let fetcher = Fetcher::new(&FetchOptions { timeout: Duration::from_secs(3600), ..options() }).expect("a fetcher");
    let stop = AtomicBool::new(false);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| fetcher.fetch(groups.into_iter(), &out, &stop));
        while web.all_hits() < 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(begun.elapsed() < Duration::from_secs(60));
}
