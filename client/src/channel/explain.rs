//! Why the last call went where it went.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Picked;
use crate::balancer::{LocalityShare, Pick};
use crate::connection::Slot;

/// Where a channel's calls go, and why the last one went where it went. Printed, it is a table and a sentence.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The service.
    pub service: Arc<str>,
    /// What each locality takes; empty before the first assignment.
    pub localities: Vec<LocalityShare>,
    /// The last pick, if there was one.
    pub last: Option<LastPick>,
    /// Why nothing can be picked now, if nothing can.
    pub nothing: Option<String>,
}

/// One pick.
#[derive(Debug, Clone, PartialEq)]
pub struct LastPick {
    /// The endpoint.
    pub picked: Picked,
    /// Its requests in flight then, this one among them.
    pub in_flight: u32,
    /// The endpoint that it was compared with and preferred to, and that one's requests in flight.
    pub preferred_to: Option<(SocketAddr, u32)>,
}

impl LastPick {
    pub(super) fn new(pick: &Pick<Slot>, picked: Picked) -> Self {
        let other = pick.preferred_to().map(|other| (other.address(), other.in_flight()));
        Self { picked, in_flight: pick.endpoint().in_flight(), preferred_to: other }
    }
}

impl fmt::Display for LastPick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { picked: Picked { address, locality, priority, attempts }, in_flight, preferred_to } = self;
        write!(f, "{address} in {locality}, priority {priority}, attempt {attempts}: {in_flight} in flight there")?;
        match preferred_to {
            Some((other, theirs)) => write!(f, "; preferred to {other} with {theirs} in flight"),
            None => write!(f, "; compared with no other"),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.service)?;
        let names: Vec<String> = self.localities.iter().map(|line| line.locality.to_string()).collect();
        let width = names.iter().map(String::len).max().unwrap_or(0).max("LOCALITY".len());
        if !names.is_empty() {
            writeln!(f, "{:>8}  {:<width$}  {:>9}  {:>6}  BECAUSE", "PRIORITY", "LOCALITY", "USABLE", "SHARE")?;
        }
        for (line, name) in self.localities.iter().zip(names) {
            let usable = format!("{}/{}", line.usable, line.healthy);
            let (priority, share, because) = (line.priority, line.share * 100.0, line.because);
            writeln!(f, "{priority:>8}  {name:<width$}  {usable:>9}  {share:>5.1}%  {because}")?;
        }
        if let Some(why) = &self.nothing {
            writeln!(f, "nothing can be picked: {why}")?;
        }
        match &self.last {
            Some(last) => write!(f, "last pick: {last}"),
            None => write!(f, "nothing was picked yet"),
        }
    }
}
