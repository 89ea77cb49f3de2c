//! Threads and memory for the kernels: who runs a piece of work, in what scratch, and where it may write.
//!
//! Must not know convolutions. The threads are ONNX Runtime's own; scratch is kept from run to run, a piece for each
//! thread that ever worked at the same time.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

/// Working memory of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    first: Aligned,
    second: Aligned,
}

impl Scratch {
    /// Two buffers of at least so many floats; what they hold is left from before.
    pub fn two(&mut self, first: usize, second: usize) -> (&mut [f32], &mut [f32]) {
        (self.first.floats(first), self.second.floats(second))
    }

    /// One buffer of at least so many floats.
    pub fn one(&mut self, floats: usize) -> &mut [f32] {
        self.first.floats(floats)
    }
}

/// Floats that begin on a line of the cache.
#[derive(Default)]
struct Aligned(Vec<Line>);

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl Aligned {
    fn floats(&mut self, count: usize) -> &mut [f32] {
        if self.0.len() * 16 < count {
            self.0.resize(count.div_ceil(16), Line([0.0; 16]));
        }
        // SAFETY: a `Line` is exactly sixteen floats without padding, and floats may be aligned more strictly than they need.
        let all = unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast::<f32>(), self.0.len() * 16) };
        &mut all[..count]
    }
}

/// Scratch that outlives a run.
#[derive(Default)]
pub(super) struct ScratchPool(Mutex<Vec<Scratch>>);

/// Runs a piece of work for each number below a count.
type Spread<'a> = dyn Fn(usize, &(dyn Fn(usize) + Sync)) + 'a;

/// Runs pieces of work in the threads at hand.
pub(super) struct Workers<'a> {
    pub scratch: &'a ScratchPool,
    /// Runs `f(0)`, ..., `f(count - 1)` in any order on any threads, and returns when all are done.
    pub spread: &'a Spread<'a>,
}

impl Workers<'_> {
    /// Runs `work(0..count)`, each piece with scratch of its own.
    pub fn each(&self, count: usize, work: &(dyn Fn(usize, &mut Scratch) + Sync)) {
        let lock = || self.scratch.0.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = |index: usize| {
            let mut scratch = lock().pop().unwrap_or_default();
            work(index, &mut scratch);
            lock().push(scratch);
        };
        if count == 1 { piece(0) } else { (self.spread)(count, &piece) }
    }
}

/// A buffer that several threads fill, each its own parts.
pub(super) struct SharedOutput<'a> {
    floats: *mut f32,
    length: usize,
    lent: PhantomData<&'a UnsafeCell<[f32]>>,
}

// SAFETY: only `range` reaches the buffer, and its callers promise that no two threads ask for overlapping ranges.
unsafe impl Sync for SharedOutput<'_> {}

impl<'a> SharedOutput<'a> {
    pub fn new(out: &'a mut [f32]) -> Self {
        Self { floats: out.as_mut_ptr(), length: out.len(), lent: PhantomData }
    }

    /// Where it begins, and how many floats it has.
    pub fn parts(&self) -> (*mut f32, usize) {
        (self.floats, self.length)
    }

    /// # Safety
    /// While the slice lives, nobody asks for a range that overlaps it.
    #[expect(clippy::mut_from_ref, reason = "disjoint ranges of one buffer, which the caller promises")]
    pub unsafe fn range(&self, start: usize, length: usize) -> &mut [f32] {
        assert!(start.checked_add(length).is_some_and(|end| end <= self.length));
        // SAFETY: inside of the buffer, which is lent mutably for 'a; not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.floats.add(start), length) }
    }
}
