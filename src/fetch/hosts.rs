//! The limit on connections to one host.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hosts remembered before those that are idle are forgotten.
const REMEMBERED: usize = 4096;

/// A place at a host for each of its connections.
#[derive(Debug)]
pub(super) struct Hosts {
    each: usize,
    places: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Hosts {
    pub(super) fn new(each: usize) -> Self {
        Self { each: each.clamp(1, Semaphore::MAX_PERMITS), places: Mutex::default() }
    }

    /// Waits for a place at `host`.
    pub(super) async fn enter(&self, host: &str) -> Option<OwnedSemaphorePermit> {
        let place = {
            let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
            if places.len() >= REMEMBERED && !places.contains_key(host) {
                places.retain(|_, place| Arc::strong_count(place) > 1);
            }
            Arc::clone(places.entry(host.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.each))))
        };
        // A semaphore that nobody closes gives a permit in the end.
        place.acquire_owned().await.ok()
    }

    #[cfg(test)]
    fn remembered(&self) -> usize {
        self.places.lock().unwrap().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_has_its_places_and_no_more() {
        let hosts = Hosts::new(2);
        let (first, _second) = (hosts.enter("a").await, hosts.enter("a").await);
        assert!(hosts.enter("b").await.is_some(), "another host is not concerned");
        let third = hosts.enter("a");
        tokio::pin!(third);
        tokio::select! {
            biased;
            _ = &mut third => panic!("a third place at a host of two"),
            () = tokio::task::yield_now() => {}
        }
        drop(first);
        assert!(third.await.is_some());
    }

    #[tokio::test]
    async fn idle_hosts_are_forgotten() {
        let hosts = Hosts::new(1);
        let _busy = hosts.enter("busy").await;
        for at in 0..3 * REMEMBERED {
            drop(hosts.enter(&at.to_string()).await);
        }
        assert!(hosts.remembered() <= REMEMBERED);
        assert!(hosts.places.lock().unwrap().contains_key("busy"));
    }
}
