//! One server per connection, as kube-proxy gives a client that keeps its connection: drawn when it connects, and again
//! only when the connection breaks.

use crate::draws::Draws;
use crate::policy::{Connected, Outcome, Policy};

pub(crate) struct Connection {
    connected: Connected,
    draws: Draws,
    server: Option<usize>,
}

impl Connection {
    pub(crate) fn new(servers: usize, draws: Draws) -> Self {
        Self { connected: Connected::new(servers), draws, server: None }
    }
}

impl Policy for Connection {
    fn pick(&mut self, _: f64, _: u32) -> Option<usize> {
        if self.server.is_none() && !self.connected.all().is_empty() {
            self.server = Some(self.connected.all()[self.draws.below(self.connected.all().len())]);
        }
        self.server
    }

    fn finished(&mut self, _: f64, _: u32, _: usize, _: Outcome) {}

    fn connected(&mut self, _: f64, server: usize, up: bool) {
        self.connected.set(server, up);
        if !up && self.server == Some(server) {
            self.server = None;
        }
    }
}
