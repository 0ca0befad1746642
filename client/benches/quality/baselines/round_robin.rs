//! Each server in turn, from a random start.

use crate::draws::Draws;
use crate::policy::{Connected, Outcome, Policy};

pub(crate) struct RoundRobin {
    connected: Connected,
    next: usize,
}

impl RoundRobin {
    pub(crate) fn new(servers: usize, mut draws: Draws) -> Self {
        Self { connected: Connected::new(servers), next: draws.below(servers) }
    }
}

impl Policy for RoundRobin {
    fn pick(&mut self, _: f64, _: u32) -> Option<usize> {
        let up = self.connected.all();
        self.next = (self.next + 1) % up.len().max(1);
        up.get(self.next).copied()
    }

    fn finished(&mut self, _: f64, _: u32, _: usize, _: Outcome) {}

    fn connected(&mut self, _: f64, server: usize, up: bool) {
        self.connected.set(server, up);
    }
}
