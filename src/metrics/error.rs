//! What can be wrong with a set of captions to score.

/// Why captions can't be scored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricsError {
    /// Candidates and reference sets don't pair up.
    #[error(
        "`{candidates}` candidate captions but references of `{references}` images\nhint: give exactly one candidate for each image"
    )]
    Lengths {
        /// How many candidates came.
        candidates: usize,
        /// How many sets of references came.
        references: usize,
    },
    /// An image has nothing to compare with.
    #[error("image `{image}` has no reference captions\nhint: leave the image out, or give it one reference at least")]
    NoReferences {
        /// Position of the image in the input, from 0.
        image: usize,
    },
    /// Nothing to average over.
    #[error("no images to score\nhint: the results and the annotations may name different images")]
    NoImages,
    /// Runs scored on different numbers of images have no resamples in common.
    #[error(
        "`{first}` images of one run and `{other}` of another can't be compared\nhint: score both on the same images, in the same order"
    )]
    OtherImages {
        /// Images of the first run.
        first: usize,
        /// Images of the other.
        other: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message() {
        insta::assert_snapshot!(MetricsError::Lengths { candidates: 3, references: 5 }, @r"
        `3` candidate captions but references of `5` images
        hint: give exactly one candidate for each image
        ");
        insta::assert_snapshot!(MetricsError::NoReferences { image: 7 }, @r"
        image `7` has no reference captions
        hint: leave the image out, or give it one reference at least
        ");
        insta::assert_snapshot!(MetricsError::OtherImages { first: 1000, other: 500 }, @r"
        `1000` images of one run and `500` of another can't be compared
        hint: score both on the same images, in the same order
        ");
        insta::assert_snapshot!(MetricsError::NoImages, @r"
        no images to score
        hint: the results and the annotations may name different images
        ");
    }
}
