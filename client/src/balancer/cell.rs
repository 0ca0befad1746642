//! What picks read of each endpoint, packed closely: every pick looks at two of them at random, among thousands perhaps.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

const CHUNK: usize = 256;
const WHOLE: u32 = 1 << 16;
const ONE_AT_A_TIME: u32 = 1 << 31;

/// How much of its part of the traffic an endpoint may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission(u32);

impl Admission {
    /// Nothing.
    pub const CLOSED: Self = Self(0);
    /// All of it.
    pub const OPEN: Self = Self(WHOLE);
    /// One request at a time: until it has shown that it can answer.
    pub const ONE_AT_A_TIME: Self = Self(WHOLE | ONE_AT_A_TIME);

    /// This fraction of what its weight would give it: its weight is so much smaller, in draws and in comparisons. At
    /// most 1; what is not above 0 is the least that is.
    #[must_use]
    pub fn fraction(of_one: f64) -> Self {
        Self(((of_one * f64::from(WHOLE)) as u32).clamp(1, WHOLE))
    }

    /// This fraction, as [`Admission::fraction`] has it, and one request at a time.
    #[must_use]
    pub fn probing(of_one: f64) -> Self {
        Self(Self::fraction(of_one).0 | ONE_AT_A_TIME)
    }

    /// The part of its weight that counts: 0 to 1.
    #[must_use]
    pub fn factor(self) -> f64 {
        f64::from(self.0 & !ONE_AT_A_TIME) / f64::from(WHOLE)
    }

    /// It has yet to show that it can answer.
    #[inline]
    pub(super) fn is_probing(self) -> bool {
        self.0 & ONE_AT_A_TIME != 0
    }

    /// Whether a request may go there while so many are in flight.
    #[inline]
    pub(super) fn admits(self, in_flight: u32) -> bool {
        self.0 != 0 && (self.0 & ONE_AT_A_TIME == 0 || in_flight == 0)
    }

    /// Whether a draw that chance (0 to 2³²-1) decides stays here.
    #[inline]
    pub(super) fn accepts(self, chance: u32, in_flight: u32) -> bool {
        self.admits(in_flight) && (chance >> 16) < (self.0 & !ONE_AT_A_TIME)
    }
}

/// One endpoint's.
#[derive(Debug)]
pub(super) struct Cell {
    /// Published requests. Below 0 for a moment, when an end overtakes its beginning on the way here.
    in_flight: AtomicI32,
    admission: AtomicU32,
    /// `f32` bits.
    slowness: AtomicU32,
}

impl Cell {
    #[inline]
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed).max(0) as u32
    }

    #[inline]
    pub(super) fn add(&self, requests: i32) {
        self.in_flight.fetch_add(requests, Relaxed);
    }

    #[inline]
    pub(super) fn admission(&self) -> Admission {
        Admission(self.admission.load(Relaxed))
    }

    /// How many times slower it is than its peers are by and large: 1 or more.
    #[inline]
    pub(super) fn slowness(&self) -> f32 {
        f32::from_bits(self.slowness.load(Relaxed))
    }

    pub(super) fn slow(&self, slowness: f32) {
        self.slowness.store(slowness.to_bits(), Relaxed);
    }

    pub(super) fn admit(&self, admission: Admission) {
        self.admission.store(admission.0, Relaxed);
    }
}

#[derive(Debug)]
pub(super) struct Chunk([Cell; CHUNK]);

impl Chunk {
    fn new() -> Self {
        let closed = |_| Cell {
            in_flight: AtomicI32::new(0),
            admission: AtomicU32::new(0),
            slowness: AtomicU32::new(1f32.to_bits()),
        };
        Self(std::array::from_fn(closed))
    }
}

/// Cells by number, as far as they went when somebody asked.
pub(super) type Chunks = Vec<Arc<Chunk>>;

/// The cell of a number.
#[inline]
pub(super) fn cell(chunks: &[Arc<Chunk>], number: u32) -> &Cell {
    &chunks[number as usize / CHUNK].0[number as usize % CHUNK]
}

/// All cells of a balancer. They are numbered, never move, and are used again.
#[derive(Debug, Default)]
pub(super) struct Cells {
    chunks: ArcSwap<Chunks>,
    free: Arc<Mutex<Vec<u32>>>,
}

impl Cells {
    /// A cell for an endpoint, closed.
    pub(super) fn seat(&self) -> Seat {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let number = free.pop().unwrap_or_else(|| {
            let mut chunks = Chunks::clone(&self.chunks.load());
            let first = (chunks.len() * CHUNK) as u32;
            chunks.push(Arc::new(Chunk::new()));
            self.chunks.store(Arc::new(chunks));
            free.extend((first + 1..first + CHUNK as u32).rev());
            first
        });
        let chunk = Arc::clone(&self.chunks.load()[number as usize / CHUNK]);
        let seat = Seat { chunk, number, free: Arc::clone(&self.free) };
        seat.cell().admit(Admission::CLOSED);
        seat.cell().slow(1.0);
        seat
    }

    /// All there are now.
    pub(super) fn chunks(&self) -> Arc<Chunks> {
        self.chunks.load_full()
    }

    /// Counts one more request at a cell.
    pub(super) fn publish(&self, number: u32) {
        cell(&self.chunks.load(), number).add(1);
    }
}

/// An endpoint's hold on its cell. Whoever counts at a cell holds its endpoint, so that a cell is at 0 when it is given
/// back, or on its way there: it is never set to 0.
#[derive(Debug)]
pub(super) struct Seat {
    chunk: Arc<Chunk>,
    number: u32,
    free: Arc<Mutex<Vec<u32>>>,
}

impl Seat {
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    #[inline]
    pub(super) fn cell(&self) -> &Cell {
        &self.chunk.0[self.number as usize % CHUNK]
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_used_again_and_found_by_number() {
        let cells = Cells::default();
        let mut seats: Vec<_> = (0..600).map(|_| cells.seat()).collect();
        let chunks = cells.chunks();
        assert_eq!(chunks.len(), 3);
        for (i, seat) in seats.iter().enumerate() {
            seat.cell().add(i as i32);
        }
        assert!(seats.iter().enumerate().all(|(i, seat)| cell(&chunks, seat.number()).in_flight() == i as u32));
        let gone = seats.swap_remove(17);
        gone.cell().admit(Admission::OPEN);
        let number = gone.number();
        drop(gone);
        let next = cells.seat();
        assert_eq!((next.number(), next.cell().admission()), (number, Admission::CLOSED));
    }

    #[test]
    fn admissions_admit_what_they_say() {
        assert!(!Admission::CLOSED.admits(0));
        assert!(Admission::OPEN.admits(9) && Admission::OPEN.accepts(u32::MAX, 9));
        assert!(Admission::ONE_AT_A_TIME.admits(0) && !Admission::ONE_AT_A_TIME.admits(1));
        let tenth = Admission::fraction(0.1);
        let kept = (0..1000u32).filter(|i| tenth.accepts(i * (u32::MAX / 1000), 3)).count();
        assert!((95..=105).contains(&kept), "{kept}");
        assert_eq!(Admission::fraction(2.0), Admission::OPEN);
        assert_eq!(Admission::probing(1.0), Admission::ONE_AT_A_TIME);
        assert_eq!(Admission::probing(0.25).factor(), 0.25);
        assert!(!Admission::probing(0.25).admits(1));
        assert!(Admission::probing(0.25).is_probing() && !Admission::fraction(0.25).is_probing());
        assert!(!Admission::OPEN.is_probing() && !Admission::CLOSED.is_probing());
        assert!(Admission::fraction(0.0).factor() > 0.0);
    }
}
