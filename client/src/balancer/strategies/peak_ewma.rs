//! Peak EWMA under two choices, as Finagle and linkerd have it: `load = estimate × (in flight + 1)`.
//!
//! A latency above the estimate replaces it; one below moves it by `1 − e^(−t/decay)`, `t` since the last sample. So one
//! slow answer repels at once and is forgiven slowly. Unlike the rest of the balancer it reads tokio's clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::super::{End, Member, Outcome, RequestInfo, Strategy};

/// The strategy.
#[derive(Debug, Clone, Copy)]
pub struct PeakEwma {
    decay: Duration,
    unknown: Duration,
    start: Instant,
}

impl PeakEwma {
    /// An estimate falls to 1/e of what it was above the samples in `decay`; an endpoint without samples counts as
    /// answering in `unknown`.
    #[must_use]
    pub fn new(decay: Duration, unknown: Duration) -> Self {
        Self { decay: decay.max(Duration::from_millis(1)), unknown, start: Instant::now() }
    }

    /// Milliseconds since the start; they last for 49 days and then go on from 0, which costs one estimate its age.
    fn now(&self) -> u32 {
        self.start.elapsed().as_millis() as u32
    }

    fn after(&self, seconds: f32, sample: f32, passed: u32) -> f32 {
        if sample > seconds {
            return sample;
        }
        let old = (-(passed as f32) / 1e3 / self.decay.as_secs_f32()).exp();
        seconds * old + sample * (1.0 - old)
    }
}

impl Default for PeakEwma {
    /// Linkerd's: ten seconds, and 30 ms.
    fn default() -> Self {
        Self::new(Duration::from_secs(10), Duration::from_millis(30))
    }
}

fn pack(seconds: f32, at: u32) -> u64 {
    u64::from(seconds.to_bits()) << 32 | u64::from(at)
}

fn unpack(word: u64) -> (f32, u32) {
    (f32::from_bits((word >> 32) as u32), word as u32)
}

impl Strategy for PeakEwma {
    /// Seconds as `f32` bits above, and when they were so, below.
    type Node = Arc<AtomicU64>;
    type Table = ();

    fn node(&self, _: SocketAddr) -> Self::Node {
        Arc::new(AtomicU64::new(pack(self.unknown.as_secs_f32(), self.now())))
    }

    fn table(&self, _: &[Member<Self::Node>]) {}

    fn load(&self, node: &Self::Node, in_flight: u32, _: &RequestInfo<'_>) -> f64 {
        let (seconds, at) = unpack(node.load(Relaxed));
        f64::from(self.after(seconds, 0.0, self.now().wrapping_sub(at))) * (f64::from(in_flight) + 1.0)
    }

    fn ended(&self, node: &Self::Node, end: &End<'_>) {
        let Some(latency) = end.latency.filter(|_| end.outcome != Outcome::Cancelled) else { return };
        let (seconds, at) = unpack(node.load(Relaxed));
        let now = self.now();
        // Two threads at once may lose a sample, and nothing else.
        node.store(pack(self.after(seconds, latency.as_secs_f32(), now.wrapping_sub(at)), now), Relaxed);
    }
}
