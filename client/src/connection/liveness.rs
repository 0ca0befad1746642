//! When a silent peer is asked whether it lives, and when it is given up. Pure: time is handed in.
//!
//! The rule: one PING when an answer is owed and nothing came for 1 s; dead if nothing comes within 1 s of it. gRPC
//! servers punish clients that ping often without need (three pings within five minutes without data between them, and
//! they close the connection), so a silence is not pinged again, but for two cases: a request was opened since and a
//! minute has passed; or five minutes have.

use std::time::Duration;

use tokio::time::Instant;

/// Silence that brings the PING.
const SILENCE: Duration = Duration::from_secs(1);
/// How long the PING may stay unanswered.
const ANSWER: Duration = Duration::from_secs(1);
/// Between two PINGs of one silence, if a request was opened since the first.
const AGAIN_FOR_REQUEST: Duration = Duration::from_secs(60);
/// Between two PINGs of one silence. Just above what gRPC servers allow.
const AGAIN: Duration = Duration::from_secs(310);

/// What was seen of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Streams that are open.
    pub(crate) open: usize,
    /// When the last bytes came.
    pub(crate) heard: Instant,
    /// When the first request was opened since then; older than `heard` if there was none.
    pub(crate) asked: Instant,
    /// When the last request was opened.
    pub(crate) last_asked: Instant,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// No answer is owed: look again when a request is opened.
    Rest,
    /// Look again then.
    Until(Instant),
    /// Send a PING, and look again after its time.
    Ping,
    /// Give the connection up.
    Dead,
}

/// The PINGs of one connection.
#[derive(Debug, Default)]
pub(crate) struct Liveness {
    last: Option<Ping>,
}

#[derive(Debug, Clone, Copy)]
struct Ping {
    sent: Instant,
    answered: Option<Instant>,
}

impl Liveness {
    /// The PING was answered.
    pub(crate) fn answered(&mut self, now: Instant) {
        if let Some(ping) = &mut self.last {
            ping.answered.get_or_insert(now);
        }
    }

    /// What to do now.
    pub(crate) fn step(&mut self, now: Instant, seen: Seen) -> Step {
        if let Some(Ping { sent, answered: None }) = self.last {
            if seen.heard > sent {
                // Bytes are as good as the answer, which will follow them.
                self.answered(seen.heard);
            } else {
                return if now >= sent + ANSWER { Step::Dead } else { Step::Until(sent + ANSWER) };
            }
        }
        // Callers that gave up do not make the peer any more alive: what was asked stays owed until something comes.
        if seen.open == 0 && seen.asked <= seen.heard {
            return Step::Rest;
        }
        let mut due = seen.heard.max(seen.asked) + SILENCE;
        if let Some(Ping { sent, answered: Some(answered) }) = self.last
            && seen.heard <= answered
        {
            // Nothing but the answer to our PING has come: it is the same silence.
            let again = if seen.last_asked > sent { AGAIN_FOR_REQUEST } else { AGAIN };
            due = due.max(sent + again);
        }
        if now < due {
            return Step::Until(due);
        }
        self.last = Some(Ping { sent: now, answered: None });
        Step::Ping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// One request opened at `asked` seconds, still open; the last bytes came at `heard`.
    fn seen(start: Instant, heard: f64, asked: f64) -> Seen {
        Seen { open: 1, heard: start + s(heard), asked: start + s(asked), last_asked: start + s(asked) }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_left_alone() {
        let start = Instant::now();
        let idle = Seen { open: 0, ..seen(start, 5.0, 1.0) };
        assert_eq!(Liveness::default().step(start + s(10_000.0), idle), Step::Rest);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_asked_after_a_second_and_dead_after_two() {
        let start = Instant::now();
        let (mut liveness, owed) = (Liveness::default(), seen(start, 0.0, 5.0));
        assert_eq!(liveness.step(start + s(5.0), owed), Step::Until(start + s(6.0)));
        assert_eq!(liveness.step(start + s(6.0), owed), Step::Ping);
        assert_eq!(liveness.step(start + s(6.1), owed), Step::Until(start + s(7.0)));
        assert_eq!(liveness.step(start + s(7.0), owed), Step::Dead);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_who_give_up_do_not_hide_a_dead_peer() {
        let start = Instant::now();
        let (mut liveness, owed) = (Liveness::default(), Seen { open: 0, ..seen(start, 0.0, 5.0) });
        assert_eq!(liveness.step(start + s(6.0), owed), Step::Ping);
        assert_eq!(liveness.step(start + s(7.0), owed), Step::Dead);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_is_asked_for_once() {
        let start = Instant::now();
        let mut liveness = Liveness::default();
        assert_eq!(liveness.step(start + s(1.0), seen(start, 0.0, 0.0)), Step::Ping);
        liveness.answered(start + s(1.1));
        let silent = seen(start, 1.1, 0.0);
        assert_eq!(liveness.step(start + s(2.5), silent), Step::Until(start + s(311.0)));
        assert_eq!(liveness.step(start + s(311.0), silent), Step::Ping);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_request_in_an_old_silence_is_asked_for_after_a_minute() {
        let start = Instant::now();
        let mut liveness = Liveness::default();
        assert_eq!(liveness.step(start + s(1.0), seen(start, 0.0, 0.0)), Step::Ping);
        liveness.answered(start + s(1.1));
        assert_eq!(liveness.step(start + s(4.0), seen(start, 1.1, 3.0)), Step::Until(start + s(61.0)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_the_silence_and_the_next_is_a_new_one() {
        let start = Instant::now();
        let mut liveness = Liveness::default();
        assert_eq!(liveness.step(start + s(1.0), seen(start, 0.0, 0.0)), Step::Ping);
        // Data came instead of the answer to the PING, and later more.
        assert_eq!(liveness.step(start + s(2.0), seen(start, 1.2, 1.5)), Step::Until(start + s(61.0)));
        assert_eq!(liveness.step(start + s(3.0), seen(start, 2.5, 2.7)), Step::Until(start + s(3.7)));
        assert_eq!(liveness.step(start + s(3.7), seen(start, 2.5, 2.7)), Step::Ping);
    }
}
