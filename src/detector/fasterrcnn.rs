//! Faster R-CNN: two halves of a network, and between them the choice that no graph makes.
//!
//! ```text
//! pictures --> backbone, pyramid, proposal head --> propose (here) --> box head on the proposals --> candidates (here) --> policy
//! ```
//!
//! Must not know recipes or caches. The decision defended: a batch holds pictures of one padded size only. torchvision pads a batch to
//! its largest picture, and what a picture is padded with reaches into its maps: its detections then depend on its neighbours. Here each
//! picture has exactly the detections that torchvision finds in it alone, and nothing is computed for padding.

use std::{collections::BTreeMap, path::Path};

use super::{
    DetectorError, Found, Wanted,
    anchors::PER_CELL,
    boxes::Box4,
    heads::{self, LEAST_SIDE, Said},
    levels::{self, LEVELS},
    policy::{Candidate, Policy, Regions},
    proposals::{Level, level_of, propose},
    transform::Resized,
};
use crate::encoder::{Answer, Device, EncoderError, Feed, Network, NetworkSession};

/// Pixels of a batch: four pictures of 800 x 1344. More fill the memory and no core.
const MOST_PIXELS: usize = 4 * 800 * 1344;

/// Side of the picture that a network is tried with, in pixels.
const PROBE: usize = 64;

/// Levels that regions are pooled from; the last of [`LEVELS`] only proposes.
const POOLED: usize = LEVELS.len() - 1;

/// Faster R-CNN, from which sessions are opened.
pub(super) struct FasterRcnn {
    maps: Network,
    heads: Network,
}

/// Names of the outputs of one kind for every level.
fn of_levels(kind: &str) -> Vec<String> {
    (0..LEVELS.len()).map(|level| format!("rpn.{kind}.{level}")).collect()
}

impl FasterRcnn {
    /// Both halves of the file at `path`.
    pub fn open(path: &Path) -> Result<Self, EncoderError> {
        let mut outputs: Vec<String> = LEVELS.iter().map(|&level| level.to_owned()).collect();
        outputs.extend(of_levels("objectness"));
        outputs.extend(of_levels("deltas"));
        let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
        let maps = Network::open(path, &[("images", 4)], &outputs)?;
        let regions: Vec<String> = (0..POOLED).map(|level| format!("regions.{level}")).collect();
        let mut inputs: Vec<(&str, usize)> = LEVELS[..POOLED].iter().map(|&level| (level, 4)).collect();
        inputs.extend(regions.iter().map(|name| (name.as_str(), 2)));
        let heads = Network::open(path, &inputs, &["box_features", "class_logits", "box_deltas"])?;
        Ok(Self { maps, heads })
    }

    pub fn digest(&self) -> &str {
        self.maps.digest()
    }

    /// Widths of a region's features and of a map: asked of the network itself, with the smallest picture it takes. Every shape that
    /// the code here counts on is looked at.
    pub fn widths(&self, path: &Path) -> Result<(usize, usize), DetectorError> {
        let mut session = self.session(Device::Cpu, 1)?;
        let black = vec![0.0; 3 * PROBE * PROBE];
        let answers = session.maps.run(&[Feed::Floats(&[1, 3, PROBE, PROBE], &black)])?;
        let fits = |tensor: &str, answer: &Answer, sizes: &[Option<usize>]| {
            let shape = answer.shape();
            let same = |(found, asked): (&usize, &Option<usize>)| asked.map_or(*found > 0, |asked| *found == asked);
            if shape.len() == sizes.len() && shape.iter().zip(sizes).all(same) {
                return Ok(shape);
            }
            let sizes: Vec<String> =
                sizes.iter().map(|size| size.map_or("any".into(), |size| size.to_string())).collect();
            let (path, tensor, expected) = (path.to_owned(), tensor.to_owned(), format!("[{}]", sizes.join(", ")));
            Err(DetectorError::FasterRcnnShape { path, tensor, shape, expected })
        };
        let (one, per_cell) = (Some(1), Some(PER_CELL));
        let mut channels = None;
        for (level, name) in LEVELS.iter().enumerate() {
            let map = fits(name, &answers[level], &[one, channels, None, None])?;
            channels = Some(map[1]);
            let place = [Some(map[2]), Some(map[3])];
            let kind = |kind: usize| &answers[LEVELS.len() * kind + level];
            fits(&format!("rpn.objectness.{level}"), kind(1), &[one, per_cell, place[0], place[1]])?;
            fits(&format!("rpn.deltas.{level}"), kind(2), &[one, Some(4 * PER_CELL), place[0], place[1]])?;
        }
        let heads = session.pool(&answers[..POOLED], &[vec![[0.0, 0.0, PROBE as f32, PROBE as f32]]])?.answers;
        let features = fits("box_features", &heads[0], &[one, None])?;
        let logits = fits("class_logits", &heads[1], &[one, None])?;
        fits("box_deltas", &heads[2], &[one, Some(4 * logits[1])])?;
        Ok((features[1], channels.unwrap_or_default()))
    }

    pub fn session(&self, device: Device, threads: usize) -> Result<Session, EncoderError> {
        Ok(Session { maps: self.maps.session(device, threads)?, heads: self.heads.session(device, threads)? })
    }
}

/// One worker's session.
pub(super) struct Session {
    maps: NetworkSession,
    heads: NetworkSession,
}

impl Session {
    /// What is found in `pictures`, one for one.
    pub fn detect(
        &mut self,
        pictures: &[&Resized],
        policy: &Policy,
        wanted: &Wanted,
    ) -> Result<Vec<Found>, EncoderError> {
        let mut by_size: BTreeMap<(u32, u32), Vec<usize>> = BTreeMap::new();
        for (index, picture) in pictures.iter().enumerate() {
            by_size.entry(picture.padded()).or_default().push(index);
        }
        let mut found: Vec<Option<Found>> = pictures.iter().map(|_| None).collect();
        for ((height, width), indices) in by_size {
            let at_once = (MOST_PIXELS / (height as usize * width as usize)).max(1);
            for indices in indices.chunks(at_once) {
                let batch: Vec<&Resized> = indices.iter().map(|&index| pictures[index]).collect();
                let answers = self.batch(&batch, policy, wanted)?;
                indices.iter().zip(answers).for_each(|(&index, answer)| found[index] = Some(answer));
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// What is found in pictures of one padded size.
    fn batch(&mut self, pictures: &[&Resized], policy: &Policy, wanted: &Wanted) -> Result<Vec<Found>, EncoderError> {
        let padded = pictures[0].padded();
        let (height, width) = (padded.0 as usize, padded.1 as usize);
        let mut input = vec![0.0; pictures.len() * 3 * height * width];
        pictures.iter().zip(input.chunks_exact_mut(3 * height * width)).for_each(|(from, to)| from.copy_into(to));
        let answers = self.maps.run(&[Feed::Floats(&[pictures.len(), 3, height, width], &input)])?;
        drop(input);
        let mut found = Vec::with_capacity(pictures.len());
        for (index, picture) in pictures.iter().enumerate() {
            let levels = levels::pooled(&answers[..LEVELS.len()], index, picture.size, padded, wanted)?;
            found.push(Found { regions: Regions::default(), features: Vec::new(), levels });
        }
        if wanted.regions {
            let proposals = self.propose(pictures, &answers, padded)?;
            let said = self.pool(&answers[..POOLED], &proposals)?;
            for (((found, picture), proposals), said) in found.iter_mut().zip(pictures).zip(&proposals).zip(said.of()?)
            {
                (found.regions, found.features) = choose(picture, proposals, &said, policy);
            }
        }
        Ok(found)
    }

    /// The proposals for each picture, and the whole picture as the last of them: a region where nothing else is.
    fn propose(
        &self,
        pictures: &[&Resized],
        answers: &[Answer],
        padded: (u32, u32),
    ) -> Result<Vec<Vec<Box4>>, EncoderError> {
        let (objectness, deltas) = answers[LEVELS.len()..].split_at(LEVELS.len());
        let mut all = Vec::with_capacity(pictures.len());
        for (index, picture) in pictures.iter().enumerate() {
            let mut levels = Vec::with_capacity(LEVELS.len());
            for (objectness, deltas) in objectness.iter().zip(deltas) {
                let shape = objectness.shape();
                let (objectness, deltas) = (row(objectness, index)?, row(deltas, index)?);
                levels.push(Level { objectness, deltas, size: (shape[2], shape[3]) });
            }
            let mut proposals = propose(&levels, picture.size, padded);
            proposals.push([0.0, 0.0, picture.size.1 as f32, picture.size.0 as f32]);
            all.push(proposals);
        }
        Ok(all)
    }

    /// Runs the box head on the proposals of all pictures.
    fn pool(&mut self, maps: &[Answer], proposals: &[Vec<Box4>]) -> Result<Heads, EncoderError> {
        let mut regions: [Vec<f32>; POOLED] = Default::default(); // [R, 5] each
        let mut places: Vec<Vec<(usize, usize)>> = Vec::with_capacity(proposals.len());
        for (image, proposals) in proposals.iter().enumerate() {
            let place = |&proposal: &Box4| {
                let level = level_of(proposal);
                regions[level].extend([image as f32, proposal[0], proposal[1], proposal[2], proposal[3]]);
                (level, regions[level].len() / 5 - 1)
            };
            places.push(proposals.iter().map(place).collect());
        }
        let shapes: Vec<[usize; 2]> = regions.iter().map(|regions| [regions.len() / 5, 5]).collect();
        let mut feeds: Vec<Feed<'_>> = maps.iter().map(Feed::Answer).collect();
        feeds.extend(shapes.iter().zip(&regions).map(|(shape, regions)| Feed::Floats(shape, regions)));
        let answers = self.heads.run(&feeds)?;
        // The network answers for the regions level by level.
        let first: Vec<usize> = (0..POOLED).map(|level| shapes[..level].iter().map(|shape| shape[0]).sum()).collect();
        let rows = places.iter().map(|places| places.iter().map(|&(level, at)| first[level] + at).collect()).collect();
        Ok(Heads { answers, rows })
    }
}

/// The numbers of one picture of a batch.
fn row(answer: &Answer, index: usize) -> Result<&[f32], EncoderError> {
    let size: usize = answer.shape()[1..].iter().product();
    Ok(&answer.floats()?[index * size..][..size])
}

/// What the box head says of the proposals of a batch.
struct Heads {
    /// Features `[R, 1024]`, logits `[R, classes]`, deltas `[R, 4 classes]`.
    answers: Vec<Answer>,
    /// For each picture, the row of each of its proposals.
    rows: Vec<Vec<usize>>,
}

/// The same for one picture.
struct HeadsOf<'a> {
    tables: [&'a [f32]; 3],
    widths: [usize; 3],
    rows: &'a [usize],
}

impl Heads {
    fn of(&self) -> Result<Vec<HeadsOf<'_>>, EncoderError> {
        let [features, logits, deltas] = self.answers.as_slice() else { return Ok(Vec::new()) };
        let tables = [features.floats()?, logits.floats()?, deltas.floats()?];
        let widths = [features, logits, deltas].map(|answer| answer.shape()[1]);
        Ok(self.rows.iter().map(|rows| HeadsOf { tables, widths, rows }).collect())
    }
}

impl HeadsOf<'_> {
    fn row(&self, table: usize, proposal: usize) -> &[f32] {
        let width = self.widths[table];
        &self.tables[table][self.rows[proposal] * width..][..width]
    }
}

/// The regions of a picture in pixels of its original, and their features one after another.
fn choose(picture: &Resized, proposals: &[Box4], heads: &HeadsOf<'_>, policy: &Policy) -> (Regions, Vec<f32>) {
    let whole = proposals.len() - 1;
    let candidates = |least| {
        let said = (0..whole).map(|index| Said {
            proposal: proposals[index],
            logits: heads.row(1, index),
            deltas: heads.row(2, index),
        });
        heads::candidates(said, picture.size, least)
    };
    let mut chosen = policy.choose(&candidates(policy.score), LEAST_SIDE);
    if chosen.len() < policy.min {
        chosen = policy.choose(&candidates(0.0), LEAST_SIDE);
    }
    let original = |chosen: &Candidate| Candidate { bbox: picture.to_original(chosen.bbox), ..*chosen };
    let regions = Regions::of(&chosen.iter().map(original).collect::<Vec<_>>(), picture.original);
    let sources = if chosen.is_empty() { vec![whole] } else { chosen.iter().map(|chosen| chosen.source).collect() };
    let features = sources.iter().flat_map(|&source| heads.row(0, source)).copied().collect();
    (regions, features)
}
