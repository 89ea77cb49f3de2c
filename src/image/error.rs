//! What can be wrong with a picture, and the reason a cache records for it.

use std::error::Error;

use icecap_cache::Reason;

/// A picture that could not be turned into pixels. The file's name is the caller's to add.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Zero bytes.
    #[error("the file is empty (`0` bytes)")]
    Empty,
    /// No picture format begins like this.
    #[error("not an image: it begins with `{start}`")]
    NotAnImage {
        /// The first bytes, escaped.
        start: String,
    },
    /// The data ends before the picture does.
    #[error("the {format} is truncated: its data ends after `{bytes}` bytes, before the picture is complete")]
    Truncated {
        /// Name of the format.
        format: &'static str,
        /// Length of the file in bytes.
        bytes: usize,
    },
    /// More pixels than the limit.
    #[error(
        "the picture is too large: `{width}x{height}` pixels, the limit is `{max_pixels}` in all\n\
         hint: raise `max_pixels` if such pictures are meant to be read"
    )]
    TooLarge {
        /// Width in pixels, as the header claims.
        width: u32,
        /// Height in pixels, as the header claims.
        height: u32,
        /// The limit on width times height.
        max_pixels: u64,
    },
    /// A picture, but of a kind that icecap does not read.
    #[error(
        "unsupported image: `{what}`\nhint: JPEG, PNG, WebP, GIF and BMP are read; convert the picture to one of them"
    )]
    Unsupported {
        /// Format or feature.
        what: String,
    },
    /// The bytes contradict their own format.
    #[error("the {format} is damaged")]
    Damaged {
        /// Name of the format.
        format: &'static str,
        /// The decoder's complaint.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The caller's buffer does not fit [`super::Preprocess::output_size`].
    #[error("the buffer for a picture holds `{found}` bytes, `{expected}` are needed")]
    Buffer {
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A size of zero, or one beyond what an encoder could take.
    #[error("`{key} = {value}` cannot be used\nhint: a side is between 1 and {max} pixels")]
    Setting {
        /// The key in the recipe.
        key: &'static str,
        /// Its value.
        value: String,
        /// The largest side allowed.
        max: u32,
    },
}

impl ImageError {
    /// The reason that a cache records for the missing row.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Empty => Reason::Empty,
            Self::NotAnImage { .. } => Reason::NotAnImage,
            Self::Truncated { .. } => Reason::Truncated,
            Self::TooLarge { .. } => Reason::TooLarge,
            Self::Unsupported { .. } => Reason::Unsupported,
            Self::Damaged { .. } => Reason::Unreadable,
            Self::Buffer { .. } | Self::Setting { .. } => Reason::Other,
        }
    }

    pub(super) fn damaged(format: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Damaged { format, source: source.into() }
    }

    pub(super) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into() }
    }
}
