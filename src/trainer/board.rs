//! TensorBoard event files beside metrics.jsonl: the same numbers, and the sample captions as text.
//!
//! Knows neither losses nor scores: it shows whatever a line of the log holds. One decision defended: the crates that write
//! this format were left by their keepers, and bring a second protobuf or a downloader along, while the format is a frame with two
//! checksums around one message. So it is written here, with the protobuf that the ONNX files are read with.
//!
//! A sitting writes a file of its own. When a training goes on, the steps that will be taken again are cut off the older
//! files, and the new one begins with a mark that makes a TensorBoard that already read them forget them too.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use prost::Message;
use serde_json::Value;

use super::{TrainError, checkpoint::io};

/// What TensorBoard knows an event file by.
const PREFIX: &str = "events.out.tfevents.";
/// Numbers of a line that are no curves.
const NO_CURVES: [&str; 5] = ["step", "epoch", "seconds", "validation_seconds", "elapsed_seconds"];

/// Writes a run's event file; without a file it writes nothing.
#[derive(Debug)]
pub(super) struct Board {
    file: Option<(File, PathBuf)>,
}

impl Board {
    /// Cuts what comes after `step` off the files that are there and, where it is `on`, begins another.
    pub fn open(run: &Path, step: u64, on: bool) -> Result<Self, TrainError> {
        let older = event_files(run).map_err(|source| io("read", run, source))?;
        for path in &older {
            cut(path, step).map_err(|source| io("rewrite", path, source))?;
        }
        if !on {
            return Ok(Self { file: None });
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // TensorBoard reads a folder's files in the order of their names.
        let latest = older.iter().filter_map(|path| time_of(path)).max();
        let time = now.max(latest.map_or(0, |latest| latest + 1));
        let path = run.join(format!("{PREFIX}{time:010}.icecap"));
        let file = OpenOptions::new().create_new(true).append(true).open(&path);
        let mut board = Self { file: Some((file.map_err(|source| io("create", &path, source))?, path)) };
        board.write(&Event { file_version: Some("brain.Event:2".into()), ..Event::at(0) })?;
        board.write(&Event { session_log: Some(SessionLog { status: 1 }), ..Event::at(step + 1) })?;
        Ok(board)
    }

    /// The numbers of a line of the log: `validation/..` where it has scores, `train/..` where not.
    pub fn line(&mut self, line: &Value) -> Result<(), TrainError> {
        let Some(step) = line["step"].as_u64().filter(|_| self.file.is_some()) else { return Ok(()) };
        let group = if line["scores"].is_object() { "validation" } else { "train" };
        let numbers = |value: &Value| value.as_object().cloned().into_iter().flatten().collect::<Vec<_>>();
        let values = numbers(line).into_iter().filter(|(name, _)| !NO_CURVES.contains(&name.as_str()));
        let values = values.chain(numbers(&line["scores"]));
        let values = values.filter_map(|(name, value)| {
            let simple_value = value.as_f64()? as f32;
            Some(Shown { tag: format!("{group}/{name}"), simple_value: Some(simple_value), ..Shown::default() })
        });
        let summary = Summary { value: values.collect() };
        self.write(&Event { summary: Some(summary), ..Event::at(step) })
    }

    /// The captions of a few images, by the images' names.
    pub fn captions(&mut self, step: u64, captions: &[(String, &str)]) -> Result<(), TrainError> {
        if self.file.is_none() || captions.is_empty() {
            return Ok(());
        }
        let value = captions.iter().map(|(name, caption)| Shown::text(format!("captions/{name}"), caption)).collect();
        self.write(&Event { summary: Some(Summary { value }), ..Event::at(step) })
    }

    fn write(&mut self, event: &Event) -> Result<(), TrainError> {
        let Some((file, path)) = &mut self.file else { return Ok(()) };
        // In one write: a reader sees whole records.
        file.write_all(&record(&event.encode_to_vec())).map_err(|source| io("write", path, source))
    }
}

/// The run's event files, oldest first.
fn event_files(run: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(run)? {
        let path = entry?.path();
        if time_of(&path).is_some() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The time in the name of one of our event files.
fn time_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(".icecap")?.parse().ok()
}

/// Keeps a file's records until the first one after `step` or a damaged one; a file that says nothing then goes.
fn cut(path: &Path, step: u64) -> std::io::Result<()> {
    let bytes = fs::read(path)?;
    let (mut end, mut kept) = (0, 0);
    while let Some((event, length)) = read_record(&bytes[end..]) {
        if event.step > step as i64 {
            break;
        }
        end += length;
        kept += usize::from(event.summary.is_some());
    }
    match (kept, end == bytes.len()) {
        (0, _) => fs::remove_file(path),
        (_, true) => Ok(()),
        (_, false) => OpenOptions::new().write(true).open(path)?.set_len(end as u64),
    }
}

/// A message in its frame: length, the length's checksum, the message, its checksum.
fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), message, &masked(message)].concat()
}

/// The event at the beginning of `bytes` and the length of its record; `None` where there is no whole one.
fn read_record(bytes: &[u8]) -> Option<(Event, usize)> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (check, rest) = rest.split_first_chunk::<4>()?;
    let size = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|_| *check == masked(length))?;
    let message = rest.get(..size)?;
    let check = rest.get(size..size.checked_add(4)?)?;
    let event = Event::decode(message).ok().filter(|_| check == masked(message))?;
    Some((event, 16 + size))
}

/// CRC-32C, turned and moved as TensorFlow's record format has it: a checksum of checksums stays a good one.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

// What is used of TensorFlow's event.proto, summary.proto, tensor.proto and tensor_shape.proto.

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

impl Event {
    fn at(step: u64) -> Self {
        let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Self { wall_time, step: step as i64, ..Self::default() }
    }
}

/// Status 1 is a start: what was written for this event's step and later ones no longer counts.
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Shown>,
}

#[derive(Clone, PartialEq, Message)]
struct Shown {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "8")]
    tensor: Option<Strings>,
    #[prost(message, optional, tag = "9")]
    metadata: Option<Metadata>,
}

impl Shown {
    fn text(tag: String, text: &str) -> Self {
        let strings = Strings { dtype: 7, shape: Some(Shape {}), string_val: vec![text.as_bytes().to_vec()] };
        let plugin = Plugin { plugin_name: "text".into() };
        let metadata = Metadata { plugin_data: Some(plugin), data_class: 2 };
        Self { tag, simple_value: None, tensor: Some(strings), metadata: Some(metadata) }
    }
}

/// A tensor of strings (`dtype` 7).
#[derive(Clone, PartialEq, Message)]
struct Strings {
    #[prost(int32, tag = "1")]
    dtype: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    string_val: Vec<Vec<u8>>,
}

/// A scalar's shape: no dimensions.
#[derive(Clone, PartialEq, Message)]
struct Shape {}

/// Class 2 is a tensor.
#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(message, optional, tag = "1")]
    plugin_data: Option<Plugin>,
    #[prost(int32, tag = "4")]
    data_class: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Plugin {
    #[prost(string, tag = "1")]
    plugin_name: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// (step, tags) of every summary in the run's files.
    fn shown(run: &Path) -> Vec<(i64, Vec<String>)> {
        let mut found = Vec::new();
        for path in event_files(run).unwrap() {
            let bytes = fs::read(&path).unwrap();
            let mut at = 0;
            while let Some((event, length)) = read_record(&bytes[at..]) {
                at += length;
                let tags = |summary: Summary| summary.value.into_iter().map(|value| value.tag).collect();
                found.extend(event.summary.map(|summary| (event.step, tags(summary))));
            }
        }
        found
    }

    fn steps(run: &Path) -> Vec<i64> {
        shown(run).into_iter().map(|(step, _)| step).collect()
    }

    #[test]
    fn checksums_are_those_of_tensorflow() {
        // The first record of every event file: `file_version` "brain.Event:2" at time 0, as tensorboard 2.21 frames it.
        let event = Event { file_version: Some("brain.Event:2".into()), ..Event::default() };
        let bytes = record(&event.encode_to_vec());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0f000000000000006d532b091a0d627261696e2e4576656e743a32fc985129");
    }

    #[test]
    fn a_line_becomes_curves_and_captions_become_text() {
        let run = tempfile::tempdir().unwrap();
        let mut board = Board::open(run.path(), 0, true).unwrap();
        board.line(&json!({"step": 5, "epoch": 0.1, "loss": 2.5, "seconds": 1.0})).unwrap();
        board.line(&json!({"step": 9, "score": 3.0, "best": true, "scores": {"CIDEr": 3.0}, "samples": []})).unwrap();
        board.captions(9, &[("a.jpg".into(), "a dog")]).unwrap();
        let expected =
            [(5, vec!["train/loss"]), (9, vec!["validation/score", "validation/CIDEr"]), (9, vec!["captions/a.jpg"])];
        let found = shown(run.path());
        assert_eq!(found.len(), expected.len());
        for ((step, mut tags), (at, mut wanted)) in found.into_iter().zip(expected) {
            tags.sort();
            wanted.sort_unstable();
            assert_eq!((step, tags), (at, wanted.into_iter().map(str::to_owned).collect()));
        }
    }

    #[test]
    fn steps_to_be_taken_again_go_and_a_record_cut_short_goes_with_them() {
        let run = tempfile::tempdir().unwrap();
        let sitting = |from: u64, steps: &[u64]| {
            let mut board = Board::open(run.path(), from, true).unwrap();
            steps.iter().for_each(|step| board.line(&json!({"step": step, "loss": 1.0})).unwrap());
        };
        sitting(0, &[10, 20, 30]);
        let first = event_files(run.path()).unwrap().remove(0);
        let length = fs::metadata(&first).unwrap().len();
        OpenOptions::new().write(true).open(&first).unwrap().set_len(length - 3).unwrap(); // killed in the middle
        sitting(20, &[25, 40]);
        assert_eq!(steps(run.path()), [10, 20, 25, 40]);
        // Two sittings back at once, and one that wrote nothing.
        sitting(22, &[]);
        sitting(20, &[21]);
        assert_eq!((steps(run.path()), event_files(run.path()).unwrap().len()), (vec![10, 20, 21], 2));
        // Switched off, it still takes back what no longer holds, and writes nothing.
        let mut board = Board::open(run.path(), 10, false).unwrap();
        board.line(&json!({"step": 11, "loss": 1.0})).unwrap();
        assert_eq!(steps(run.path()), [10]);
    }
}
