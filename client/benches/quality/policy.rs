//! What the simulation asks of a client's load balancing.

use super::server::{Probe, Report};

/// How an attempt ended, as its client sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) success: bool,
    /// Since the attempt was sent, in seconds.
    pub(crate) latency: f64,
}

/// One client's balancing. Times are seconds since the start; servers are numbered.
pub(crate) trait Policy {
    /// The server of a request; `None`: there is none.
    fn pick(&mut self, now: f64, request: u32) -> Option<usize>;

    fn finished(&mut self, now: f64, request: u32, server: usize, outcome: Outcome);

    /// What the server said with a response; it may come late.
    fn reported(&mut self, _now: f64, _server: usize, _report: Report) {}

    /// The servers to probe beside the request that was just picked for.
    fn probes(&mut self, _now: f64) -> Vec<usize> {
        Vec::new()
    }

    fn probed(&mut self, _now: f64, _server: usize, _probe: Probe) {}

    /// The connection to a server broke, or is up again.
    fn connected(&mut self, now: f64, server: usize, up: bool);

    /// The server was replaced by a new one.
    fn replaced(&mut self, now: f64, server: usize) {
        self.connected(now, server, false);
        self.connected(now, server, true);
    }

    /// Every tenth of a second.
    fn tick(&mut self, _now: f64) {}
}

/// The servers that are connected, for the baselines.
#[derive(Debug, Clone)]
pub(crate) struct Connected {
    up: Vec<usize>,
}

impl Connected {
    pub(crate) fn new(servers: usize) -> Self {
        Self { up: (0..servers).collect() }
    }

    pub(crate) fn set(&mut self, server: usize, up: bool) {
        match (self.up.binary_search(&server), up) {
            (Err(at), true) => self.up.insert(at, server),
            (Ok(at), false) => {
                self.up.remove(at);
            }
            _ => {}
        }
    }

    pub(crate) fn all(&self) -> &[usize] {
        &self.up
    }
}
