//! Where everything lies in a shard: the safetensors header, written and read.
//!
//! Knows bytes, not files or maps. The header is written by hand, with the order of everything fixed, because the shards
//! of two runs must be equal byte for byte; it is read with the safetensors crate, so that any valid header will do.

use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::TensorInfo;
use serde_json::Value;

use crate::ColumnPlan;
use crate::error::ShardError;

/// The rows' bytes start at a multiple of this in the file, and so in memory.
const ALIGNMENT: usize = 64;
/// Bytes of a content hash.
pub(crate) const CONTENT_BYTES: usize = 16;

/// One tensor of a shard: row `r` is `row_bytes` bytes at `offset + r * row_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub offset: usize,
    pub row_bytes: usize,
}

impl Region {
    /// The bytes of `rows` rows from `row` on.
    pub(crate) fn range(self, row: u32, rows: u32) -> std::ops::Range<usize> {
        let start = self.offset + row as usize * self.row_bytes;
        start..start + rows as usize * self.row_bytes
    }
}

/// A shard's layout. Rows are counted within the shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardLayout {
    pub rows: u32,
    /// In the order of the plan.
    pub tensors: Vec<Region>,
    pub content: Region,
    pub status: Region,
    pub file_bytes: usize,
}

impl ShardLayout {
    /// Every region: what is synced, copied and digested for a range of rows.
    pub(crate) fn regions(&self) -> impl Iterator<Item = Region> {
        self.tensors.iter().copied().chain([self.content, self.status])
    }

    /// The header of shard `shard` with `rows` rows, length field included, and the layout it describes.
    pub(crate) fn write(plan: &ColumnPlan, shard: usize, rows: u32) -> (Vec<u8>, Self) {
        // Wider elements first keeps every element aligned, as safetensors has no holes.
        let mut order: Vec<usize> = (0..plan.tensors.len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(plan.tensors[at].dtype.size_bytes()));
        let mut header = HeaderText::new(plan, shard, rows);
        let mut tensors = vec![Region { offset: 0, row_bytes: 0 }; plan.tensors.len()];
        for at in order {
            let tensor = &plan.tensors[at];
            tensors[at] =
                header.tensor(&tensor.name, tensor.dtype.safetensors_name(), &tensor.row_shape, tensor.row_bytes());
        }
        let content = header.tensor("content", "U8", &[CONTENT_BYTES], CONTENT_BYTES);
        let status = header.tensor("status", "U8", &[], 1);
        let data_bytes = header.data_bytes;
        let header = header.finish();
        let mut layout = Self { rows, tensors, content, status, file_bytes: header.len() + data_bytes };
        for region in layout.tensors.iter_mut().chain([&mut layout.content, &mut layout.status]) {
            region.offset += header.len();
        }
        (header, layout)
    }

    /// Reads and checks the header of a whole shard. Without `rows`, as many as the shard says that it has.
    pub(crate) fn read(
        path: &Path,
        bytes: &[u8],
        plan: &ColumnPlan,
        shard: usize,
        rows: Option<u32>,
    ) -> Result<Self, ShardError> {
        let header = SafeTensors::read_metadata(bytes);
        let (length, metadata) = header.map_err(|source| ShardError::Header { path: path.to_owned(), source })?;
        let start = length + 8;
        if !start.is_multiple_of(ALIGNMENT) {
            return Err(ShardError::Alignment { path: path.to_owned(), offset: start as u64 });
        }
        check_identity(path, metadata.metadata().as_ref(), plan, shard)?;
        let check = HeaderCheck { path, start, tensors: metadata.tensors() };
        let rows = rows.map_or_else(|| check.rows(), Ok)?;
        let tensors = plan.tensors.iter().map(|tensor| {
            check.region(&tensor.name, tensor.dtype.safetensors(), rows, &tensor.row_shape, tensor.row_bytes())
        });
        let tensors = tensors.collect::<Result<Vec<_>, _>>()?;
        let content = check.region("content", safetensors::Dtype::U8, rows, &[CONTENT_BYTES], CONTENT_BYTES)?;
        let status = check.region("status", safetensors::Dtype::U8, rows, &[], 1)?;
        Ok(Self { rows, tensors, content, status, file_bytes: bytes.len() })
    }
}

/// Bytes of a shard's file.
pub(crate) fn shard_bytes(plan: &ColumnPlan, shard: usize) -> u64 {
    ShardLayout::write(plan, shard, plan.shard_rows(shard)).1.file_bytes as u64
}

struct HeaderText {
    json: String,
    rows: u32,
    data_bytes: usize,
}

impl HeaderText {
    fn new(plan: &ColumnPlan, shard: usize, rows: u32) -> Self {
        let members = identity(plan, shard).map(|(name, value)| format!("\"{name}\":{}", Value::from(value)));
        Self { json: format!("{{\"__metadata__\":{{{}}}", members.join(",")), rows, data_bytes: 0 }
    }

    fn tensor(&mut self, name: &str, dtype: &str, row_shape: &[usize], row_bytes: usize) -> Region {
        let shape: Vec<String> = [self.rows as usize].iter().chain(row_shape).map(ToString::to_string).collect();
        let (start, end) = (self.data_bytes, self.data_bytes + self.rows as usize * row_bytes);
        let (name, shape) = (Value::from(name), shape.join(","));
        let member = format!(",{name}:{{\"dtype\":\"{dtype}\",\"shape\":[{shape}],\"data_offsets\":[{start},{end}]}}");
        self.json.push_str(&member);
        self.data_bytes = end;
        Region { offset: start, row_bytes }
    }

    /// Length field, JSON, and spaces up to the alignment.
    fn finish(mut self) -> Vec<u8> {
        self.json.push('}');
        let length = (8 + self.json.len()).next_multiple_of(ALIGNMENT) - 8;
        let mut header = (length as u64).to_le_bytes().to_vec();
        header.extend(self.json.bytes());
        header.resize(8 + length, b' ');
        header
    }
}

/// What a shard says of itself, so that one put in another's place is noticed.
fn identity(plan: &ColumnPlan, shard: usize) -> [(&'static str, String); 4] {
    [
        ("column", plan.name.clone()),
        ("first_row", plan.first_row(shard).to_string()),
        ("icecap_format", plan.format().to_string()),
        ("key", plan.key_digest.clone()),
    ]
}

fn check_identity(
    path: &Path,
    metadata: Option<&HashMap<String, String>>,
    plan: &ColumnPlan,
    shard: usize,
) -> Result<(), ShardError> {
    for (field, expected) in identity(plan, shard) {
        let found = metadata.and_then(|members| members.get(field)).cloned().unwrap_or_default();
        if found != expected {
            return Err(ShardError::Identity { path: path.to_owned(), field, expected, found });
        }
    }
    Ok(())
}

struct HeaderCheck<'a> {
    path: &'a Path,
    start: usize,
    tensors: HashMap<String, &'a TensorInfo>,
}

impl HeaderCheck<'_> {
    fn info(&self, tensor: &str) -> Result<&TensorInfo, ShardError> {
        let missing = || ShardError::NoTensor { path: self.path.to_owned(), tensor: tensor.to_owned() };
        self.tensors.get(tensor).copied().ok_or_else(missing)
    }

    /// Rows by the shape of `status`.
    fn rows(&self) -> Result<u32, ShardError> {
        let shape = &self.info("status")?.shape;
        shape.first().and_then(|&rows| u32::try_from(rows).ok()).ok_or_else(|| ShardError::TensorShape {
            path: self.path.to_owned(),
            tensor: "status".to_owned(),
            expected: vec![0],
            found: shape.clone(),
        })
    }

    fn region(
        &self,
        tensor: &str,
        dtype: safetensors::Dtype,
        rows: u32,
        row_shape: &[usize],
        row_bytes: usize,
    ) -> Result<Region, ShardError> {
        let info = self.info(tensor)?;
        if info.dtype != dtype {
            return Err(ShardError::TensorDtype {
                path: self.path.to_owned(),
                tensor: tensor.to_owned(),
                expected: format!("{dtype:?}"),
                found: format!("{:?}", info.dtype),
            });
        }
        let expected: Vec<usize> = [rows as usize].iter().chain(row_shape).copied().collect();
        if info.shape != expected {
            let (path, tensor, found) = (self.path.to_owned(), tensor.to_owned(), info.shape.clone());
            return Err(ShardError::TensorShape { path, tensor, expected, found });
        }
        // The safetensors crate has checked that the offsets fit the shape, follow each other and end with the file.
        Ok(Region { offset: self.start + info.data_offsets.0, row_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ColumnSpec, Dtype, Key};
    use proptest::prelude::*;

    fn plan() -> ColumnPlan {
        let spec = ColumnSpec::new("avgpool", Key::new().with("encoder", "x"), Dtype::F16, [3]);
        let spec = spec.with_tensor("boxes", Dtype::F32, [2, 4]).with_batch_rows(2).with_rows_per_shard(4);
        spec.plan(7, None).unwrap()
    }

    /// A shard of zeros behind a header, which `change` may replace.
    fn shard(change: impl FnOnce(&str) -> String) -> Vec<u8> {
        let (header, layout) = ShardLayout::write(&plan(), 1, 3);
        let json = change(std::str::from_utf8(&header[8..]).unwrap());
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.bytes());
        bytes.resize(bytes.len() + layout.file_bytes - header.len(), 0);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<ShardLayout, ShardError> {
        ShardLayout::read(Path::new("00001.safetensors"), bytes, &plan(), 1, Some(3))
    }

    /// Replaces text in the header by text of the same length.
    fn swapped(from: &str, to: &str) -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        shard(|json| {
            assert!(json.contains(from));
            json.replacen(from, to, 1)
        })
    }

    #[test]
    fn the_header_is_this_text() {
        let (header, layout) = ShardLayout::write(&plan(), 1, 3);
        assert_eq!(header.len() % 64, 0);
        insta::assert_snapshot!(std::str::from_utf8(&header[8..]).unwrap().trim_end(), @r#"{"__metadata__":{"column":"avgpool","first_row":"4","icecap_format":"1","key":"166e657f0a15aeab7dfff0ad3d495a6d33164d2fc43255151305c92d2a70cd26"},"boxes":{"dtype":"F32","shape":[3,2,4],"data_offsets":[0,96]},"embedding":{"dtype":"F16","shape":[3,3],"data_offsets":[96,114]},"content":{"dtype":"U8","shape":[3,16],"data_offsets":[114,162]},"status":{"dtype":"U8","shape":[3],"data_offsets":[162,165]}}"#);
        assert_eq!(layout.file_bytes, header.len() + 165);
        assert_eq!(layout.tensors[1].offset, header.len());
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        assert_eq!(read(&shard(str::to_owned)).unwrap(), ShardLayout::write(&plan(), 1, 3).1);
    }

    #[test]
    fn other_space_and_more_metadata_are_allowed() {
        let bytes =
            shard(|json| json.replace(r#""__metadata__":{"#, r#""__metadata__":{"more":"x", "#) + &" ".repeat(52));
        assert_eq!(read(&bytes).unwrap().rows, 3);
    }

    #[test]
    fn a_short_file_is_no_shard() {
        insta::assert_snapshot!(read(&[0; 7]).unwrap_err(), @"shard `00001.safetensors` has no valid safetensors header");
        assert!(matches!(read(&shard(str::to_owned)[..200]), Err(ShardError::Header { .. })));
    }

    #[test]
    fn a_header_length_beyond_the_file_is_refused() {
        let mut bytes = shard(str::to_owned);
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(read(&bytes), Err(ShardError::Header { .. })));
    }

    #[test]
    fn bytes_missing_at_the_end_are_refused() {
        let mut bytes = shard(str::to_owned);
        bytes.pop();
        assert!(matches!(read(&bytes), Err(ShardError::Header { .. })));
    }

    #[test]
    fn offsets_that_overlap_are_refused() {
        assert!(matches!(read(&swapped("[96,114]", "[95,113]")), Err(ShardError::Header { .. })));
    }

    #[test]
    fn a_missing_tensor_is_named() {
        let error = read(&swapped("\"status\"", "\"statue\"")).unwrap_err();
        insta::assert_snapshot!(error, @"shard `00001.safetensors` has no tensor `status`");
    }

    #[test]
    fn another_dtype_is_named() {
        let error = read(&swapped(r#""dtype":"F16""#, r#""dtype":"I16""#)).unwrap_err();
        insta::assert_snapshot!(error, @"tensor `embedding` of shard `00001.safetensors` is `I16` where `F16` is recorded");
    }

    #[test]
    fn another_shape_is_named() {
        let error = read(&swapped("[3,2,4]", "[3,4,2]")).unwrap_err();
        insta::assert_snapshot!(error, @"tensor `boxes` of shard `00001.safetensors` has the shape `[3, 4, 2]` where `[3, 2, 4]` is recorded");
        let rows = ShardLayout::read(Path::new("s"), &shard(str::to_owned), &plan(), 1, Some(4)).unwrap_err();
        assert!(matches!(rows, ShardError::TensorShape { .. }));
    }

    #[test]
    fn a_shard_in_anothers_place_is_noticed() {
        let error = read(&swapped(r#""first_row":"4""#, r#""first_row":"8""#)).unwrap_err();
        insta::assert_snapshot!(error, @"shard `00001.safetensors` says that its `first_row` is `8` where `4` is recorded");
        let anonymous = swapped("__metadata__", "__netadata__");
        assert!(read(&anonymous).is_err());
    }

    #[test]
    fn unaligned_data_is_refused() {
        let error = read(&shard(|json| format!("{json} "))).unwrap_err();
        assert!(matches!(error, ShardError::Alignment { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn any_damage_to_a_header_is_an_error_or_the_same_layout(at in 0usize..300, byte: u8) {
            let good = shard(str::to_owned);
            let mut bad = good.clone();
            bad[at] = byte;
            if let Ok(layout) = read(&bad) {
                for region in layout.regions() {
                    prop_assert!(region.range(0, 3).end <= bad.len());
                }
            }
        }
    }
}
