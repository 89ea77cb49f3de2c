//! How much may be in flight: URLs, and bytes that are held for those who will take them.
//!
//! A group is only of use when it is complete, so files of many groups are held while each waits for its slowest. Decision: where
//! nothing complete waits to be taken, the oldest group is not kept waiting. Whatever the limits, it gets its last file, is handed
//! out, and leaves its room to the others: nothing can lock up, and memory exceeds the limit by one group at most.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// What a file is taken to have before one was seen.
const FIRST_GUESS_BYTES: usize = 128 << 10;

/// The room that is shared by all that is in flight.
#[derive(Debug)]
pub(super) struct Room {
    most_places: usize,
    most_bytes: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    places: usize,
    /// Places that hold no bytes yet.
    empty: usize,
    bytes: usize,
    /// Groups that are begun and not complete.
    open: BTreeSet<u64>,
    /// Files of complete groups that nobody has taken yet.
    ready: usize,
    /// What a file has, on average of late.
    usual_bytes: f64,
}

/// The room of one URL, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<Room>,
    group: u64,
    bytes: usize,
}

impl Room {
    pub(super) fn new(most_places: usize, most_bytes: usize) -> Arc<Self> {
        let usual_bytes = FIRST_GUESS_BYTES as f64;
        let state = State { places: 0, empty: 0, bytes: 0, open: BTreeSet::new(), ready: 0, usual_bytes };
        Arc::new(Self { most_places, most_bytes, state: Mutex::new(state), changed: Notify::new() })
    }

    /// Waits until one more URL of `group` may be begun.
    pub(super) async fn enter(self: &Arc<Self>, group: u64) -> Place {
        self.when(|room, state| {
            let expected = state.empty as f64 * state.usual_bytes + state.bytes as f64;
            let is_free = state.places < room.most_places && expected < room.most_bytes as f64;
            let is_oldest = state.open.first().is_none_or(|oldest| *oldest >= group);
            let may_exceed = is_oldest && state.ready == 0;
            if !(is_free || may_exceed) {
                return false;
            }
            state.open.insert(group);
            state.places += 1;
            state.empty += 1;
            true
        })
        .await;
        Place { room: Arc::clone(self), group, bytes: 0 }
    }

    /// Says that `group` is complete, with `files` files.
    pub(super) fn leave(&self, group: u64, files: usize) {
        let mut state = self.lock();
        state.open.remove(&group);
        state.ready += files;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Learns from a file of `bytes` what the next ones will have.
    pub(super) fn learn(&self, bytes: usize) {
        let mut state = self.lock();
        state.usual_bytes += (bytes as f64 - state.usual_bytes) / 64.0;
    }

    /// Waits until `act`, tried at every change, succeeds.
    async fn when(&self, mut act: impl FnMut(&Self, &mut State) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Listens from here on, so that no change between the try and the wait is missed.
            changed.as_mut().enable();
            if act(self, &mut self.lock()) {
                return;
            }
            changed.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self, most_bytes: usize, group: u64, bytes: usize) -> bool {
        self.bytes.saturating_add(bytes) <= most_bytes || (self.ready == 0 && self.open.first() == Some(&group))
    }
}

impl Place {
    /// Makes room for `bytes` in all, at once or not at all.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let mut state = self.room.lock();
        if more > 0 && !state.has_room(self.room.most_bytes, self.group, more) {
            return false;
        }
        state.bytes += more;
        let is_first = self.bytes == 0 && more > 0;
        state.empty -= usize::from(is_first);
        drop(state);
        self.bytes += more;
        if is_first {
            // It may have fewer than was expected.
            self.room.changed.notify_waiters();
        }
        true
    }

    /// Gives back what it has over `bytes`.
    pub(super) fn fit(&mut self, bytes: usize) {
        if bytes == 0 {
            self.empty();
        } else if bytes < self.bytes {
            self.room.lock().bytes -= self.bytes - bytes;
            self.bytes = bytes;
            self.room.changed.notify_waiters();
        }
    }

    /// Gives its bytes back.
    pub(super) fn empty(&mut self) {
        if self.bytes > 0 {
            let mut state = self.room.lock();
            state.bytes -= self.bytes;
            state.empty += 1;
            drop(state);
            self.bytes = 0;
            self.room.changed.notify_waiters();
        }
    }

    /// Gives its bytes back and waits until there is room for `bytes`, which it then has.
    pub(super) async fn wait_for(&mut self, bytes: usize) {
        self.empty();
        let group = self.group;
        let room = Arc::clone(&self.room);
        room.when(|room, state| {
            if !state.has_room(room.most_bytes, group, bytes) {
                return false;
            }
            state.bytes += bytes;
            state.empty -= usize::from(bytes > 0);
            true
        })
        .await;
        self.bytes = bytes;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.room.lock();
        state.places -= 1;
        state.bytes -= self.bytes;
        state.empty -= usize::from(self.bytes == 0);
        state.ready -= usize::from(!state.open.contains(&self.group));
        drop(state);
        self.room.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `future` is ready without anything else happening.
    async fn is_ready<F: Future + Unpin>(future: &mut F) -> bool {
        tokio::select! {
            biased;
            _ = future => true,
            () = tokio::task::yield_now() => false,
        }
    }

    #[tokio::test]
    async fn a_full_room_keeps_younger_groups_waiting_and_not_the_oldest() {
        let room = Room::new(2, 1 << 30);
        let first = room.enter(0).await;
        let second = room.enter(0).await;
        let mut younger = Box::pin(room.enter(1));
        assert!(!is_ready(&mut younger).await, "two places are taken");
        let third = room.enter(0).await;
        drop(first);
        assert!(!is_ready(&mut younger).await, "two places are still taken");
        room.leave(0, 2);
        assert!(!is_ready(&mut younger).await, "what is complete is not taken yet");
        drop((second, third));
        assert!(is_ready(&mut younger).await, "the younger one is the oldest now");
    }

    #[tokio::test]
    async fn bytes_are_limited_but_for_the_oldest_group() {
        let room = Room::new(100, 1 << 20);
        let mut old = room.enter(0).await;
        let mut young = room.enter(1).await;
        assert!(young.grow(1 << 20) && !young.grow((1 << 20) + 1));
        assert!(old.grow(5 << 20), "the oldest is never kept waiting");
        let mut waiting = Box::pin(young.wait_for(1 << 19));
        assert!(!is_ready(&mut waiting).await);
        room.leave(0, 1);
        assert!(!is_ready(&mut waiting).await);
        drop(old);
        assert!(is_ready(&mut waiting).await);
        drop(waiting);
        room.leave(1, 1);
        drop(young);
        let state = room.lock();
        assert_eq!((state.places, state.empty, state.bytes, state.ready), (0, 0, 0, 0));
    }

    #[tokio::test]
    async fn large_files_seen_keep_new_ones_from_being_begun() {
        let room = Room::new(1000, 100 << 20);
        for _ in 0..1000 {
            room.learn(50 << 20);
        }
        let mut places = [room.enter(0).await, room.enter(0).await, room.enter(1).await];
        let mut more = Box::pin(room.enter(2));
        assert!(!is_ready(&mut more).await, "three files of 50 MiB are expected");
        assert!(places.iter_mut().all(|place| place.grow(1000)));
        assert!(is_ready(&mut more).await, "they turned out small");
    }
}
