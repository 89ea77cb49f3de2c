//! Where encoders run, as it is typed: `cpu`, `cuda`, `cuda:1`, `cuda:0,1`.
//!
//! Must not know what is there: which of the named can be used is asked of the driver, in [`super::resolve_all`]. One list of
//! devices is either the processor or GPUs. Both at once would make the processor decode less for GPUs that wait for pictures.

use std::fmt;
use std::str::FromStr;

use super::EncoderError;

/// Where the encoder runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The NVIDIA device of this number.
    Cuda(u32),
}

impl FromStr for Device {
    type Err = EncoderError;

    fn from_str(text: &str) -> Result<Self, EncoderError> {
        let number = |text: &str| text.strip_prefix("cuda:")?.parse().ok().map(Self::Cuda);
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            other => number(other).ok_or_else(|| EncoderError::DeviceSyntax { value: text.to_owned() }),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => out.write_str("cpu"),
            Self::Cuda(number) => write!(out, "cuda:{number}"),
        }
    }
}

/// Where several sessions run: the processor, or one GPU or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices(Vec<Device>);

impl Devices {
    /// At least one, each once.
    pub fn as_slice(&self) -> &[Device] {
        &self.0
    }
}

impl Default for Devices {
    fn default() -> Self {
        Self(vec![Device::Cpu])
    }
}

impl From<Device> for Devices {
    fn from(device: Device) -> Self {
        Self(vec![device])
    }
}

impl FromStr for Devices {
    type Err = EncoderError;

    /// `cpu`, `cuda`, `cuda:1`, or several GPUs: `cuda:0,1`.
    fn from_str(text: &str) -> Result<Self, EncoderError> {
        let Some(numbers) = text.strip_prefix("cuda:").filter(|numbers| numbers.contains(',')) else {
            return Ok(Self(vec![text.parse()?]));
        };
        let numbers: Result<Vec<u32>, _> = numbers.split(',').map(str::parse).collect();
        let numbers = numbers.map_err(|_| EncoderError::DeviceSyntax { value: text.to_owned() })?;
        if let Some(twice) = (1..numbers.len()).find(|&at| numbers[..at].contains(&numbers[at])) {
            return Err(EncoderError::DeviceTwice { value: text.to_owned(), number: numbers[twice] });
        }
        Ok(Self(numbers.into_iter().map(Device::Cuda).collect()))
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0[0])?;
        self.0[1..].iter().try_for_each(|device| match device {
            Device::Cpu => out.write_str(",cpu"),
            Device::Cuda(number) => write!(out, ",{number}"),
        })
    }
}
