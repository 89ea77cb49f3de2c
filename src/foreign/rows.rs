//! A picture's features as numbers: what every source is read into.

/// A tensor of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// Its shape, without the rows.
    pub dimensions: Vec<usize>,
}

impl Shape {
    pub(super) fn new(name: &'static str, dimensions: impl Into<Vec<usize>>) -> Self {
        Self { name, dimensions: dimensions.into() }
    }

    /// Numbers a row.
    #[must_use]
    pub fn numbers(&self) -> usize {
        self.dimensions.iter().product()
    }
}

/// One row's numbers, a list for each tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// In the order of the shapes.
    pub tensors: Vec<Vec<f32>>,
}

impl Row {
    /// A row of zeros.
    #[must_use]
    pub fn zeros(shapes: &[Shape]) -> Self {
        Self { tensors: shapes.iter().map(|shape| vec![0.0; shape.numbers()]).collect() }
    }

    /// Makes every number zero.
    pub fn clear(&mut self) {
        self.tensors.iter_mut().for_each(|tensor| tensor.fill(0.0));
    }

    /// Puts `values` at the start of a tensor, and says where the first is that is not finite.
    pub(super) fn fill(&mut self, tensor: usize, values: impl Iterator<Item = f32>) -> Result<(), usize> {
        for (at, (target, value)) in self.tensors[tensor].iter_mut().zip(values).enumerate() {
            if !value.is_finite() {
                return Err(at);
            }
            *target = value;
        }
        Ok(())
    }
}
