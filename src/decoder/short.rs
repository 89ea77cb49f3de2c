//! For tests: a decoder on a device that is too small for it.

use std::cell::Cell;

use tch::{Device, Tensor};

use super::{Captions, ColumnInput, Decoder, DecoderSpec, Params, Prefix, Scoring, State, build};

/// What the device has memory for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Gradients of at most so many captions.
    Captions(i64),
    /// Gradients of as many as may be, but no caption is spoken.
    Learning,
    /// Not even what stands beside the weights.
    Nothing,
}

/// A decoder for the columns of the trainer's tests that runs out of memory as torch says it.
pub(crate) struct Short {
    inner: Box<dyn Decoder>,
    room: Room,
    asked: Cell<u32>,
}

impl Short {
    pub fn new(spec: &DecoderSpec, room: Room) -> Self {
        let inputs = [ColumnInput { name: "signs".into(), vectors: 3, width: 8 }];
        Self { inner: build(spec, &inputs, 12, 1, Device::Cpu).unwrap(), room, asked: Cell::new(0) }
    }
}

fn out_of_memory(is: bool) {
    assert!(!is, "CUDA out of memory. Tried to allocate 2.00 GiB");
}

impl Decoder for Short {
    fn params(&self) -> &Params {
        // The first question is for the device.
        self.asked.set(self.asked.get() + 1);
        out_of_memory(self.room == Room::Nothing && self.asked.get() > 1);
        self.inner.params()
    }

    fn params_mut(&mut self) -> &mut Params {
        self.inner.params_mut()
    }

    fn inputs(&self) -> &[ColumnInput] {
        self.inner.inputs()
    }

    fn vocab(&self) -> usize {
        self.inner.vocab()
    }

    fn limit(&self) -> Option<usize> {
        self.inner.limit()
    }

    fn halves(&self) -> bool {
        self.inner.halves()
    }

    fn loss(&self, prefix: &Prefix, captions: &Captions, scoring: Scoring) -> Tensor {
        self.inner.loss(prefix, captions, scoring)
    }

    fn gradients(&self, prefix: &Prefix, captions: &Captions, scoring: Scoring) -> (Tensor, Vec<Tensor>) {
        if let Room::Captions(most) = self.room {
            out_of_memory(captions.count() > most);
        }
        self.inner.gradients(prefix, captions, scoring)
    }

    fn start(&self, prefix: &Prefix) -> State {
        out_of_memory(self.room == Room::Learning);
        self.inner.start(prefix)
    }

    fn step(&self, state: &State, tokens: &Tensor) -> (Tensor, State) {
        self.inner.step(state, tokens)
    }
}
