//! What can be wrong with a detector or a file of boxes.

use std::path::PathBuf;

use crate::encoder::EncoderError;

/// A detector that can't be used, or boxes that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum DetectorError {
    /// The network itself.
    #[error(transparent)]
    Network(#[from] EncoderError),
    /// The file isn't a Faster R-CNN that icecap exported.
    #[error(
        "`{}` is no Faster R-CNN in two halves: it has no tensor `{tensor}`\nhint: make one with `icecap export fasterrcnn_resnet50_fpn -o \
         MODEL.onnx`; an export of torchvision's own detects one picture at a time and can't be used", path.display()
    )]
    NotFasterRcnn {
        /// The model.
        path: PathBuf,
        /// What it lacks.
        tensor: String,
    },
    /// A tensor of a Faster R-CNN has another shape than torchvision's.
    #[error(
        "`{}` is no Faster R-CNN as icecap exports it: of one picture its `{tensor}` is {shape:?}, not {expected}\nhint: make one with `icecap \
         export fasterrcnn_resnet50_fpn -o MODEL.onnx`", path.display()
    )]
    FasterRcnnShape {
        /// The model.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// What it should be.
        expected: String,
    },
    /// The file isn't a YOLOX.
    #[error(
        "`{}` is no YOLOX: its output `{tensor}` has rows of shape {shape:?}, not `{expected}`\nhint: export it without its decoding \
         (`tools/export_onnx.py` of YOLOX does), and give its picture size where it is another: size = 640", path.display()
    )]
    NotYolox {
        /// The model.
        path: PathBuf,
        /// Its output.
        tensor: String,
        /// What a picture's rows look like.
        shape: Vec<usize>,
        /// What they should look like.
        expected: String,
    },
    /// A tensor that detectors of this kind don't have.
    #[error(
        "the detector `{}` has no `{tensor}` to keep\nhint: only a Faster R-CNN has; for others pool the encoder's maps: tap = TENSOR, regions = \
         \"detector\"", path.display()
    )]
    NoFeatures {
        /// The model.
        path: PathBuf,
        /// What was asked for.
        tensor: String,
    },
    /// The size of the pictures is open.
    #[error("`{}` takes pictures of any size\nhint: say in [detector] which it was trained on, for example size = 640", path.display())]
    NoSize {
        /// The model.
        path: PathBuf,
    },
    /// A file of boxes that can't be read.
    #[error("the boxes in `{}` can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file of boxes that isn't COCO's JSON.
    #[error(
        "`{}` is not COCO instances\nhint: an object with `images` and `annotations`; one picture a line is read from files called .jsonl",
        path.display()
    )]
    NotInstances {
        /// The file.
        path: PathBuf,
        /// What the reader said, and where.
        #[source]
        source: serde_json::Error,
    },
    /// Two pictures of one name.
    #[error("two of the `images` in `{}` are called `{name}`, by id or file_name\nhint: give each picture an id and a file_name of its own", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// The id or the file's name.
        name: String,
    },
    /// A line that can't be read.
    #[error(
        "line {line} of `{}` can't be read\nhint: a line is {{\"id\": \"a.jpg\", \"boxes\": [[x1, y1, x2, y2], ...], \"scores\": [...], \
         \"labels\": [...]}}, the last two as they like", path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the reader said.
        #[source]
        source: serde_json::Error,
    },
    /// A line whose numbers make no sense.
    #[error("line {line} of `{}`: {what} `{value}`\nhint: {hint}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
        /// With which value.
        value: String,
        /// The way out.
        hint: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_names_the_file_and_the_way_out() {
        let path = PathBuf::from("m.onnx");
        let error = DetectorError::NotFasterRcnn { path: path.clone(), tensor: "rpn.deltas.0".into() };
        insta::assert_snapshot!(error, @r"
        `m.onnx` is no Faster R-CNN in two halves: it has no tensor `rpn.deltas.0`
        hint: make one with `icecap export fasterrcnn_resnet50_fpn -o MODEL.onnx`; an export of torchvision's own detects one picture at a time and can't be used
        ");
        let shape = vec![10, 4];
        let expected = "[3549, 5 + classes]".into();
        let error = DetectorError::NotYolox { path: path.clone(), tensor: "output".into(), shape, expected };
        insta::assert_snapshot!(error, @r"
        `m.onnx` is no YOLOX: its output `output` has rows of shape [10, 4], not `[3549, 5 + classes]`
        hint: export it without its decoding (`tools/export_onnx.py` of YOLOX does), and give its picture size where it is another: size = 640
        ");
        insta::assert_snapshot!(DetectorError::NoFeatures { path: path.clone(), tensor: "fpn.0".into() }, @r#"
        the detector `m.onnx` has no `fpn.0` to keep
        hint: only a Faster R-CNN has; for others pool the encoder's maps: tap = TENSOR, regions = "detector"
        "#);
        insta::assert_snapshot!(DetectorError::NoSize { path }, @r"
        `m.onnx` takes pictures of any size
        hint: say in [detector] which it was trained on, for example size = 640
        ");
        let path = PathBuf::from("boxes.jsonl");
        let source = std::io::ErrorKind::NotFound.into();
        insta::assert_snapshot!(DetectorError::Read { path: path.clone(), source }, @"the boxes in `boxes.jsonl` can't be read");
        let source = || serde_json::from_str::<u8>("x").unwrap_err();
        insta::assert_snapshot!(DetectorError::NotInstances { path: path.clone(), source: source() }, @r"
        `boxes.jsonl` is not COCO instances
        hint: an object with `images` and `annotations`; one picture a line is read from files called .jsonl
        ");
        insta::assert_snapshot!(DetectorError::Line { path: path.clone(), line: 3, source: source() }, @r#"
        line 3 of `boxes.jsonl` can't be read
        hint: a line is {"id": "a.jpg", "boxes": [[x1, y1, x2, y2], ...], "scores": [...], "labels": [...]}, the last two as they like
        "#);
        let error = DetectorError::Value {
            path,
            line: 3,
            what: "a box of no size,",
            value: "[1, 1, 1, 2]".into(),
            hint: "x2 > x1",
        };
        insta::assert_snapshot!(error, @r"
        line 3 of `boxes.jsonl`: a box of no size, `[1, 1, 1, 2]`
        hint: x2 > x1
        ");
    }
}
