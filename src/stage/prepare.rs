//! From the files of a batch to the encoder's inputs: one decode a picture, every wanted view of it, and what a second model
//! needs of it.
//!
//! It must not know sessions, columns or threads. A picture that can't be decoded is black in every view and has a reason;
//! whoever takes the batch finds it in the outcomes, never in the pixels.

use std::ops::Deref;

use icecap_cache::{RowOutcome, content_hash};

pub use super::read::Unread;
use crate::{
    detector::Look,
    image::{Picture, Preprocess, View, load_views},
};

/// One batch of rows, some of which are to be encoded.
#[derive(Debug, Clone)]
pub struct Job {
    /// The batch's first row; its slots are the rows from there on.
    pub start: u32,
    /// The rows to encode, ascending.
    pub rows: Vec<u32>,
    /// The views that are needed for it, as positions in [`Preparer::views`], ascending.
    pub views: Vec<usize>,
}

impl Job {
    /// Slots up to the last row to encode.
    #[must_use]
    pub fn used(&self) -> usize {
        self.rows.last().map_or(0, |row| (row - self.start) as usize + 1)
    }
}

/// A job whose pictures are ready for the encoder.
pub struct Prepared {
    /// The job.
    pub job: Job,
    /// By the preparer's views: `[batch, H, W, 3]`, slots without a picture are black; empty where the job doesn't need it.
    pub views: Vec<Vec<u8>>,
    /// What became of each of the job's rows.
    pub outcomes: Vec<RowOutcome>,
    /// What a second model sees of each of the job's rows: nothing where the picture is missing; empty without such a model.
    pub seconds: Vec<Option<Second>>,
}

impl Prepared {
    /// What became of `row`, one of the job's rows.
    ///
    /// # Panics
    /// When it is none of them.
    #[must_use]
    pub fn outcome(&self, row: u32) -> &RowOutcome {
        match self.job.rows.binary_search(&row) {
            Ok(at) => &self.outcomes[at],
            Err(_) => unreachable!("a job holds the rows that each of its columns lacks"),
        }
    }

    /// Pictures that turned out to be missing.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.outcomes.iter().filter(|outcome| matches!(outcome, RowOutcome::Missing { .. })).count()
    }
}

/// What a second model, such as a detector, sees of a picture.
pub struct Second {
    /// `(height, width)` of the picture, upright and before any resizing: what boxes are given in.
    pub original: (u32, u32),
    /// Its input; nothing where only the size matters.
    pub look: Option<Look>,
}

/// Makes the second model's input of a picture that was decoded for the encoder.
pub trait SecondInput: Sync {
    /// The input for `picture`, in whatever size the second model likes it.
    fn of(&self, picture: &Picture<'_>) -> Option<Look>;
}

/// How pictures become inputs.
pub struct Preparer<'a> {
    /// Resize and crop.
    pub preprocess: &'a Preprocess,
    /// The views that any column looks at.
    pub views: &'a [View],
    /// Slots of a batch.
    pub batch: usize,
    /// What else is taken from each decoded picture.
    pub second: Option<&'a dyn SecondInput>,
}

impl Preparer<'_> {
    /// Decodes the files of `job`, one a row. `spare` are the views of a batch that is done with: their memory is used again.
    #[must_use]
    pub fn prepare(
        &self,
        job: Job,
        files: Vec<Result<impl Deref<Target = [u8]>, Unread>>,
        mut spare: Vec<Vec<u8>>,
    ) -> Prepared {
        let picture = self.picture_bytes();
        spare.resize_with(self.views.len(), Vec::new);
        for (at, pixels) in spare.iter_mut().enumerate() {
            pixels.resize(if job.views.contains(&at) { self.batch * picture } else { 0 }, 0);
        }
        let (mut outcomes, mut seconds) = (Vec::with_capacity(job.rows.len()), Vec::new());
        let mut rows = job.rows.iter().zip(files).peekable();
        for slot in 0..self.batch {
            let mut targets: Vec<(View, &mut [u8])> = self.slot_of(&job, &mut spare, slot).collect();
            let Some((_, file)) = rows.next_if(|(row, _)| **row as usize == job.start as usize + slot) else {
                targets.iter_mut().for_each(|(_, pixels)| pixels.fill(0));
                continue;
            };
            let (outcome, second) = self.decode(file, &mut targets);
            if matches!(outcome, RowOutcome::Missing { .. }) {
                targets.iter_mut().for_each(|(_, pixels)| pixels.fill(0));
            }
            outcomes.push(outcome);
            if self.second.is_some() {
                seconds.push(second);
            }
        }
        drop(rows);
        Prepared { job, views: spare, outcomes, seconds }
    }

    /// The views that `job` needs, each with the place of its picture `slot`.
    fn slot_of<'p>(
        &'p self,
        job: &'p Job,
        views: &'p mut [Vec<u8>],
        slot: usize,
    ) -> impl Iterator<Item = (View, &'p mut [u8])> {
        let picture = self.picture_bytes();
        let wanted = views.iter_mut().zip(self.views).enumerate().filter(|(at, _)| job.views.contains(at));
        wanted.map(move |(_, (pixels, view))| (*view, &mut pixels[slot * picture..][..picture]))
    }

    fn picture_bytes(&self) -> usize {
        let (height, width) = self.preprocess.output_size();
        height as usize * width as usize * 3
    }

    fn decode(
        &self,
        file: Result<impl Deref<Target = [u8]>, Unread>,
        targets: &mut [(View, &mut [u8])],
    ) -> (RowOutcome, Option<Second>) {
        let bytes = match file {
            Ok(bytes) => bytes,
            Err(Unread { reason, detail }) => return (RowOutcome::Missing { reason, detail, content: None }, None),
        };
        let content = content_hash(&bytes);
        let look = self.second.map(|second| |picture: &Picture<'_>| second.of(picture));
        match load_views(&bytes, self.preprocess, targets, look) {
            Ok((original, look)) => (RowOutcome::Present { content }, look.map(|look| Second { original, look })),
            Err(error) => {
                let (reason, detail) = (error.reason(), error.to_string());
                (RowOutcome::Missing { reason, detail, content: Some(content) }, None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use icecap_cache::Reason;

    use super::*;
    use crate::image::Resize;

    struct SizeOnly;

    impl SecondInput for SizeOnly {
        fn of(&self, picture: &Picture<'_>) -> Option<Look> {
            assert_eq!(picture.pixels().len(), 16 * 24 * 3, "the pixels are there to be looked at");
            None
        }
    }

    /// A picture as large as a fixture of the image tests.
    fn file() -> Vec<u8> {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/image/rgb.png")).expect("a fixture")
    }

    #[test]
    fn one_decode_feeds_every_view_that_is_wanted_and_a_second_model() {
        let preprocess = Preprocess { resize: Resize::Exact([4, 6]), crop: None, ..Preprocess::default() };
        let views = [View::Center, View::Whole, View::Hflip];
        let preparer = Preparer { preprocess: &preprocess, views: &views, batch: 4, second: Some(&SizeOnly) };
        let job = Job { start: 8, rows: vec![8, 10], views: vec![0, 2] };
        let spare = vec![vec![9; 5], vec![9; 5]];
        let missing = Unread::from(std::io::Error::from(std::io::ErrorKind::NotFound));
        let prepared = preparer.prepare(job, vec![Ok(file()), Err(missing)], spare);
        let picture = 4 * 6 * 3;
        assert_eq!(prepared.views.iter().map(Vec::len).collect::<Vec<_>>(), [4 * picture, 0, 4 * picture]);
        let mut expected = vec![0; picture];
        crate::image::load_into(&file(), &preprocess, &mut expected).expect("a picture");
        assert_eq!(prepared.views[0][..picture], expected);
        assert_ne!(prepared.views[2][..picture], expected);
        assert_eq!(prepared.views[2][..3], expected[15..18], "the mirror begins where the row ends");
        assert!(prepared.views.iter().flat_map(|view| view.iter().skip(picture)).all(|value| *value == 0), "black");
        assert!(matches!(prepared.outcome(10), RowOutcome::Missing { reason: Reason::NotFound, .. }));
        assert_eq!((prepared.missing(), prepared.job.used()), (1, 3));
        let second = prepared.seconds[0].as_ref().expect("a picture");
        assert_eq!((second.original, &second.look), ((16, 24), &None));
        assert!(prepared.seconds[1].is_none() && prepared.seconds.len() == 2);
    }
}
