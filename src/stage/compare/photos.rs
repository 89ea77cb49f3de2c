//! The photographs of a gallery: found once, shrunk once, whatever the number of runs.
//!
//! Must not know runs' captions. A photograph that can't be read is no photograph: the gallery shows its captions without it.

use std::{collections::HashMap, path::Path};

use rayon::prelude::*;

use crate::{
    dataset::{self, Source},
    image::{Thumbnail, thumbnail},
    recipe::Recipe,
};

/// The longer sides that are tried, in pixels.
const SIDES: [u32; 3] = [320, 240, 160];
/// Photographs that say how large the others will be.
const TRIED: usize = 24;
/// Photographs shrunk before it is asked whether more fit.
const AT_ONCE: usize = 128;

/// Where the photographs of a data set are.
pub(super) struct Photos {
    sources: HashMap<String, Source>,
}

impl Photos {
    /// The images of the recipe's data set.
    ///
    /// # Errors
    /// A line that says why there are none.
    pub fn find(recipe: &Recipe, data: &Path) -> Result<Self, String> {
        let dataset = dataset::load(&recipe.dataset, data)
            .map_err(|error| format!("no photographs: {}", error.to_string().lines().next().unwrap_or_default()))?;
        Ok(Self { sources: dataset.items.into_iter().map(|item| (item.id, item.source)).collect() })
    }

    fn shrink(&self, id: &str, side: u32) -> Option<Thumbnail> {
        thumbnail(&self.sources.get(id)?.read().ok()?, side).ok()
    }

    /// The largest side at which about all of `ids` fit into `bytes` of base64, else the smallest.
    pub fn side(&self, ids: &[&str], bytes: usize) -> u32 {
        let step = ids.len().div_ceil(TRIED).max(1);
        let tried: Vec<&str> = ids.iter().step_by(step).copied().collect();
        let fits = |side: &u32| {
            let sizes: Vec<usize> =
                tried.par_iter().filter_map(|id| Some(base64_bytes(self.shrink(id, *side)?.jpeg.len()))).collect();
            let mean = sizes.iter().sum::<usize>() as f64 / sizes.len().max(1) as f64;
            mean * ids.len() as f64 <= 0.95 * bytes as f64
        };
        SIDES.into_iter().find(fits).unwrap_or(SIDES[SIDES.len() - 1])
    }

    /// Thumbnails of `ids` in their order, as long as `take` says that there is room for one more of them.
    pub fn shrink_while(
        &self,
        ids: &[&str],
        side: u32,
        mut take: impl FnMut(Option<&Thumbnail>) -> bool,
    ) -> Vec<Option<Thumbnail>> {
        let mut kept = Vec::new();
        for ids in ids.chunks(AT_ONCE) {
            let shrunk: Vec<Option<Thumbnail>> = ids.par_iter().map(|id| self.shrink(id, side)).collect();
            for thumbnail in shrunk {
                if !take(thumbnail.as_ref()) {
                    return kept;
                }
                kept.push(thumbnail);
            }
        }
        kept
    }
}

/// The length of so many bytes in base64.
pub(super) fn base64_bytes(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}
