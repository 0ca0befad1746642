//! Loopback addresses of a run's own, so that two runs side by side do not meet and every process has an address.
//!
//! Each process gets an address in a block of 127.0.0.0/8 that is drawn at random; where only 127.0.0.1 can be bound,
//! everything uses that, each with ports of its own. Ports are looked for below the range from which kernels take the
//! ports of outgoing connections: a restarted process finds its own again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::sockets;

/// Addresses in a /24 that are used: neither .0 nor .255.
const PER_BLOCK: u16 = 250;
/// Where ports are looked for.
const PORTS: std::ops::Range<u16> = 10_000..32_000;
/// After so many ports in use, something else is wrong.
const TRIES: usize = 1_000;

/// Hands out addresses.
#[derive(Debug)]
pub struct Addresses {
    /// The second and third number of the first block; `None`: only 127.0.0.1 can be bound.
    block: Option<(u8, u8)>,
    /// How many hosts were handed out.
    hosts: u16,
    /// Ports handed out at the shared address.
    taken: Vec<u16>,
    random: StdRng,
}

impl Addresses {
    /// Draws a block; `seed` should differ from run to run.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(seed, sockets::has(Ipv4Addr::new(127, 0, 0, 2).into()))
    }

    fn with(seed: u64, many: bool) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        // Four blocks are enough for the largest scenario.
        let block = many.then(|| (random.random_range(16..240), random.random_range(1..250)));
        Self { block, hosts: 0, taken: Vec::new(), random }
    }

    /// An address for one more process.
    pub fn host(&mut self) -> IpAddr {
        let Some((second, third)) = self.block else { return Ipv4Addr::LOCALHOST.into() };
        let [block, host] =
            [self.hosts / PER_BLOCK, self.hosts % PER_BLOCK].map(|part| u8::try_from(part).unwrap_or(0));
        self.hosts += 1;
        Ipv4Addr::new(127, second, third.saturating_add(block), host + 1).into()
    }

    /// A free port at `host`: `wanted` if that is free there and not handed out before.
    pub fn port(&mut self, host: IpAddr, wanted: Option<u16>) -> io::Result<SocketAddr> {
        let shared = self.block.is_none();
        let drawn = std::iter::repeat_with(|| self.random.random_range(PORTS)).take(TRIES);
        for port in wanted.into_iter().chain(drawn) {
            let address = SocketAddr::new(host, port);
            if !(shared && self.taken.contains(&port)) && sockets::is_free(address) {
                if shared {
                    self.taken.push(port);
                }
                return Ok(address);
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no free port at {host}")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_process_has_an_address_of_its_own_where_there_are_many() {
        let mut addresses = Addresses::with(1, true);
        let hosts: HashSet<_> = (0..600).map(|_| addresses.host()).collect();
        assert_eq!(hosts.len(), 600);
        assert!(hosts.iter().all(IpAddr::is_loopback));
    }

    #[test]
    fn two_runs_draw_different_blocks() {
        let blocks: HashSet<_> = (0..20).map(|seed| Addresses::with(seed, true).host()).collect();
        assert!(blocks.len() > 15, "{blocks:?}");
    }

    #[test]
    fn with_one_address_every_port_is_handed_out_once() {
        let mut addresses = Addresses::with(7, false);
        let host = addresses.host();
        assert_eq!(host, IpAddr::from(Ipv4Addr::LOCALHOST));
        let first = addresses.port(host, None).unwrap();
        let second = addresses.port(host, Some(first.port())).unwrap();
        assert_ne!(first, second, "the wanted port was handed out before");
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let held = StdHeld::new();
        let mut addresses = Addresses::with(7, false);
        let given = addresses.port(held.0.ip(), Some(held.0.port())).unwrap();
        assert_ne!(given, held.0);
    }

    struct StdHeld(SocketAddr, #[expect(dead_code, reason = "held open")] std::net::TcpListener);

    impl StdHeld {
        fn new() -> Self {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            Self(listener.local_addr().unwrap(), listener)
        }
    }
}
