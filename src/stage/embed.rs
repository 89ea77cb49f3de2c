//! From prepared views to rows: the sessions of a model's passes, for one worker.
//!
//! It must not know shards or files: it writes rows where it is told to. A column of one view, alone in its pass, is written by the
//! encoder itself into the target; where views lie side by side in a row, they are copied there from the side, which costs a
//! memcpy of rows that are far smaller than the pictures.

use anyhow::Result;

use super::model::{Model, Pass};
use crate::encoder::{Device, EncoderSession};

/// Where the rows of a batch go, by the model's columns: `[batch, row]` bytes, or nowhere.
pub(super) type Targets<'t> = Vec<Option<&'t mut [u8]>>;

/// One worker's sessions.
pub(super) struct Embedding<'m> {
    model: &'m Model,
    /// One a pass; none where no column of it will be asked for.
    runs: Vec<Option<Run<'m>>>,
}

/// One pass, with the memory it works in.
struct Run<'m> {
    pass: &'m Pass,
    session: EncoderSession,
    /// Views from several pictures, packed to a batch: `[batch, H, W, 3]`.
    packed: Vec<u8>,
    /// Rows of one view, by the pass's columns: `[batch, view]` bytes.
    aside: Vec<Vec<u8>>,
}

impl<'m> Embedding<'m> {
    /// Opens the sessions that `columns` (positions) need, of `threads` threads each.
    ///
    /// # Errors
    /// Where ONNX Runtime refuses the model or the device.
    pub fn new(model: &'m Model, device: Device, threads: usize, columns: impl Fn(usize) -> bool) -> Result<Self> {
        let open = |pass: &'m Pass| -> Result<Option<Run<'m>>> {
            if !pass.columns.iter().any(|&column| columns(column)) {
                return Ok(None);
            }
            let session = EncoderSession::new(&pass.compiled, device, threads)?;
            Ok(Some(Run { pass, session, packed: Vec::new(), aside: vec![Vec::new(); pass.columns.len()] }))
        };
        Ok(Self { model, runs: model.passes.iter().map(open).collect::<Result<_>>()? })
    }

    /// Sets the regions of the picture in `slot` of the next batch for `column`, in pixels of the encoder's input.
    ///
    /// # Errors
    /// For more boxes than a row has vectors.
    pub fn set_regions(&mut self, column: usize, slot: usize, boxes: &[[f32; 4]]) -> Result<()> {
        for run in self.runs.iter_mut().flatten() {
            // A pass with a column of regions has one view, so that a batch's slots are its inputs in their order.
            if let Some(output) = run.pass.columns.iter().position(|own| *own == column) {
                run.session.set_regions(output, slot, boxes)?;
            }
        }
        Ok(())
    }

    /// Embeds a batch of which the first `used` slots hold pictures. `views` are `[batch, H, W, 3]` by the model's views; those of
    /// a pass none of whose columns has a target may be empty.
    ///
    /// # Errors
    /// Where the encoder fails.
    pub fn run(&mut self, views: &[Vec<u8>], used: usize, targets: &mut Targets<'_>) -> Result<()> {
        for run in self.runs.iter_mut().flatten() {
            if run.pass.columns.iter().all(|&column| targets[column].is_none()) {
                continue;
            }
            let plain = |&column: &usize| self.model.columns[column].views.len() == 1;
            if run.pass.columns.iter().all(plain) {
                run.straight(&views[run.pass.views[0]], targets)?;
            } else {
                run.spread(self.model, views, used, targets)?;
            }
        }
        Ok(())
    }
}

impl Run<'_> {
    /// One view, whose rows are the columns' rows: the encoder writes them in place.
    fn straight(&mut self, pixels: &[u8], targets: &mut Targets<'_>) -> Result<()> {
        let batch = self.session.batch();
        let mut taken: Vec<(usize, &mut [u8])> = Vec::with_capacity(self.pass.columns.len());
        for (at, target) in targets.iter_mut().enumerate() {
            if let (true, Some(target)) = (self.pass.columns.contains(&at), target) {
                taken.push((at, target));
            }
        }
        let mut taken = taken.into_iter().peekable();
        let columns = self.pass.columns.iter().zip(&mut self.aside).zip(self.pass.compiled.outputs());
        let outputs = columns.map(|((column, aside), output)| match taken.next_if(|(at, _)| at == column) {
            Some((_, target)) => target,
            None => {
                aside.resize(batch * output.row_bytes(), 0);
                aside.as_mut_slice()
            }
        });
        let mut outputs: Vec<&mut [u8]> = outputs.collect();
        Ok(self.session.run(pixels, &mut outputs)?)
    }

    /// Several views, or columns that are made of several: each view's rows are copied to their places.
    fn spread(&mut self, model: &Model, views: &[Vec<u8>], used: usize, targets: &mut Targets<'_>) -> Result<()> {
        let batch = self.session.batch();
        let inputs: Vec<(usize, usize)> =
            self.pass.views.iter().flat_map(|&view| (0..used).map(move |slot| (view, slot))).collect();
        for inputs in inputs.chunks(batch) {
            self.rows_aside(views, inputs)?;
            for (&column, rows) in self.pass.columns.iter().zip(&self.aside) {
                let Some(target) = &mut targets[column] else { continue };
                let column = &model.columns[column];
                for (&(view, slot), row) in inputs.iter().zip(rows.chunks_exact(column.view_bytes)) {
                    let Some(place) = column.views.iter().position(|own| *own == view) else { continue };
                    let at = slot * column.row_bytes() + place * column.view_bytes;
                    target[at..at + column.view_bytes].copy_from_slice(row);
                }
            }
        }
        Ok(())
    }

    /// Runs the encoder on `inputs` (a view and a slot each), a batch at most; the rows are in `aside` then.
    fn rows_aside(&mut self, views: &[Vec<u8>], inputs: &[(usize, usize)]) -> Result<()> {
        let batch = self.session.batch();
        for (aside, output) in self.aside.iter_mut().zip(self.pass.compiled.outputs()) {
            aside.resize(batch * output.row_bytes(), 0);
        }
        let mut outputs: Vec<&mut [u8]> = self.aside.iter_mut().map(Vec::as_mut_slice).collect();
        let first = inputs[0];
        let one_view = inputs.len() == batch && inputs.iter().all(|(view, _)| *view == first.0);
        if one_view {
            // A full batch: a view's buffer is in order as it lies.
            return Ok(self.session.run(&views[first.0], &mut outputs)?);
        }
        let plan = self.pass.compiled.plan();
        let picture = plan.height * plan.width * 3;
        self.packed.resize(plan.images_bytes(), 0);
        for (at, (view, slot)) in inputs.iter().enumerate() {
            let pixels = &views[*view][slot * picture..][..picture];
            self.packed[at * picture..][..picture].copy_from_slice(pixels);
        }
        // What is behind the inputs is left over from an earlier run: a row doesn't depend on the others.
        Ok(self.session.run(&self.packed, &mut outputs)?)
    }
}
