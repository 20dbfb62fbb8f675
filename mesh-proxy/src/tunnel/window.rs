//! Window: how much a peer may send on one stream before it is read, by how much its pod has open. It must not count bytes.

use super::limits::{POD_WINDOWS, STREAM_WINDOW, STREAM_WINDOW_MIN};
use mesh_core::fault::Fault;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What one workload has open: connections, tunnels and requests that it was delivered, up to a bound, and streams that it asked peers for.
#[derive(Debug)]
pub struct Open {
    places: Arc<Semaphore>,
    most: usize,
    streams: AtomicUsize,
}

impl Open {
    /// Nothing yet, and never more than `most` beside the streams, which are bounded by their connections.
    pub fn new(most: u32) -> Arc<Self> {
        let most = most as usize;
        Arc::new(Self { places: Arc::new(Semaphore::new(most)), most, streams: AtomicUsize::new(0) })
    }

    /// Takes a place for as long as the permit lives.
    pub fn place(&self) -> Result<OwnedSemaphorePermit, Fault> {
        self.places.clone().try_acquire_owned().map_err(|_| Fault::Limit)
    }

    /// Bytes that a peer may have on its way to one stream of the workload.
    pub fn window(&self) -> u32 {
        let places = self.most.saturating_sub(self.places.available_permits());
        share(places + self.streams.load(Ordering::Relaxed))
    }

    pub(super) fn stream_begins(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stream_ended(&self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A fair share of what one pod may make us hold, as a power of two: a change is a frame to the peer, so changes must be few.
fn share(open: usize) -> u32 {
    let share = POD_WINDOWS / open.max(1);
    let power = if share == 0 { 0 } else { 1usize << share.ilog2() };
    u32::try_from(power).unwrap_or(STREAM_WINDOW).clamp(STREAM_WINDOW_MIN, STREAM_WINDOW)
}

/// What a connection whose streams have the window `now` should change it to. Smaller at once; larger only when much has ended, or every
/// stream that comes and goes at a border would cost a frame.
pub(super) fn change(now: u32, wanted: u32) -> Option<u32> {
    (wanted < now || wanted / 4 >= now).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pod_can_make_us_hold_stays_within_a_few_times_its_share() {
        assert_eq!(share(0), STREAM_WINDOW);
        assert_eq!(share(256), STREAM_WINDOW, "most pods never see a smaller one");
        assert_eq!(share(257), STREAM_WINDOW / 2);
        assert_eq!(share(1_000_000), STREAM_WINDOW_MIN);
        for open in [1, 100, 256, 257, 1000, 4096, 4097, 20_000] {
            let held = open * share(open) as usize;
            assert!(held <= POD_WINDOWS.max(open * STREAM_WINDOW_MIN as usize), "{open}: {held}");
        }
        // Each stream with the window that was right when it began, and nobody reads: the worst there is.
        let worst: usize = (1..=20_000).map(|open| share(open) as usize).sum();
        assert!(worst < 5 * POD_WINDOWS, "{worst}");
    }

    #[test]
    fn a_window_shrinks_at_once_and_grows_when_much_has_ended() {
        assert_eq!(change(STREAM_WINDOW, STREAM_WINDOW), None);
        assert_eq!(change(STREAM_WINDOW, STREAM_WINDOW / 2), Some(STREAM_WINDOW / 2));
        assert_eq!(change(STREAM_WINDOW / 2, STREAM_WINDOW), None);
        assert_eq!(change(STREAM_WINDOW / 4, STREAM_WINDOW), Some(STREAM_WINDOW));
        assert_eq!(change(STREAM_WINDOW / 8, STREAM_WINDOW / 4), None);
    }

    #[test]
    fn a_place_comes_back_with_its_permit() {
        let open = Open::new(1);
        let place = open.place().unwrap();
        assert_eq!(open.place().err(), Some(Fault::Limit));
        drop(place);
        assert!(open.place().is_ok());
    }
}
