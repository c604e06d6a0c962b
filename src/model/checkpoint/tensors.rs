//! Where the tensors of a file are: what a reader of any format makes of the file's header.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

/// What a file of weights is read from.
pub(super) trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

/// By name.
pub(super) type Tensors = BTreeMap<String, Extent>;

/// Where a tensor is in its file. What is there was checked: the file has all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) element: Element,
    pub(super) shape: Vec<usize>,
    /// Elements from one place to the next along each axis. `None`: row-major, without gaps.
    pub(super) strides: Option<Vec<usize>>,
    /// Byte of the file at which its first element begins.
    pub(super) start: u64,
}

/// Type of the elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Element {
    F32,
    F16,
    Bf16,
    /// One that no weight has.
    Other(String),
}

impl Extent {
    /// Elements from its first to behind its last. `None`: more than can be counted.
    pub(super) fn span(shape: &[usize], strides: &[usize]) -> Option<usize> {
        if shape.contains(&0) {
            return Some(0);
        }
        let last = shape
            .iter()
            .zip(strides)
            .try_fold(0_usize, |last, (&size, &stride)| last.checked_add((size - 1).checked_mul(stride)?))?;
        last.checked_add(1)
    }

    /// What row-major elements without gaps have. `None`: more than can be counted.
    pub(super) fn row_major(shape: &[usize]) -> Option<Vec<usize>> {
        let mut strides = vec![1_usize; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis].checked_mul(shape[axis].max(1))?;
        }
        Some(strides)
    }
}
