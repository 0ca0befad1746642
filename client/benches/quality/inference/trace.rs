//! Conversations: sessions of a few popular applications, each turn's prompt being all that was said before and more.

use crate::draws::Draws;

/// Applications, by a popularity of 1/rank; all sessions of one begin with its system prompt.
const APPLICATIONS: usize = 20;
/// The most tokens that a conversation grows to.
const LONGEST: u32 = 16_000;
/// The mean number of further turns, and the mean pause before one in seconds.
const TURNS: f64 = 4.0;
const PAUSE: f64 = 8.0;

/// A prompt.
#[derive(Debug, Clone)]
pub(crate) struct Prompt {
    /// Its ever longer beginnings: hash, and length in tokens. The last is the whole.
    pub(crate) prefixes: Vec<(u64, u32)>,
    /// The tokens of its answer.
    pub(crate) answer: u32,
}

impl Prompt {
    pub(crate) fn tokens(&self) -> u32 {
        self.prefixes.last().map_or(0, |(_, tokens)| *tokens)
    }
}

/// What was said so far, as prefixes.
type Session = Vec<(u64, u32)>;

pub(crate) struct Trace {
    /// Arrivals apart from contents, and contents in the order of arrivals: every strategy gets the same sessions.
    arrivals: Draws,
    seed: u64,
    wait: f64,
    sessions: Vec<(Draws, Session)>,
}

/// Long-tailed: the median, and how many times that the 84th percentile is.
fn lengths(draws: &mut Draws, median: f64, spread: f64, most: u32) -> u32 {
    (median * spread.powf(draws.normal(0.0, 1.0))).clamp(1.0, f64::from(most)) as u32
}

impl Trace {
    pub(crate) fn new(seed: u64, sessions_per_second: f64) -> Self {
        Self { arrivals: Draws::new(seed, 1), seed, wait: 1.0 / sessions_per_second, sessions: Vec::new() }
    }

    pub(crate) fn next_session(&mut self) -> f64 {
        self.arrivals.wait(self.wait)
    }

    /// A session begins with its application's system prompt.
    pub(crate) fn begin(&mut self) -> usize {
        let number = self.sessions.len();
        let mut draws = Draws::new(self.seed, 10_000 + number as u64);
        let total: f64 = (1..=APPLICATIONS).map(|rank| 1.0 / rank as f64).sum();
        let mut at = draws.fraction() * total;
        let application = (1..=APPLICATIONS).find(|rank| {
            at -= 1.0 / *rank as f64;
            at <= 0.0
        });
        let application = application.unwrap_or(APPLICATIONS) as u64;
        let mut its = Draws::new(self.seed, 100 + application);
        let system = (its.bits(), lengths(&mut its, 1200.0, 2.0, 6000));
        self.sessions.push((draws, vec![system]));
        number
    }

    /// The session's next prompt: what was said, and a question.
    pub(crate) fn prompt(&mut self, session: usize) -> Prompt {
        let (draws, said) = &mut self.sessions[session];
        let question = lengths(draws, 80.0, 3.0, 4000);
        let mut prefixes = said.clone();
        let before = prefixes.last().map_or(0, |(_, tokens)| *tokens);
        prefixes.push((draws.bits(), before + question));
        Prompt { prefixes, answer: lengths(draws, 150.0, 2.5, 2000) }
    }

    /// The prompt was answered. When the session goes on, in seconds from now.
    pub(crate) fn answered(&mut self, session: usize, prompt: &Prompt) -> Option<f64> {
        let (draws, said) = &mut self.sessions[session];
        said.clone_from(&prompt.prefixes);
        said.push((draws.bits(), prompt.tokens() + prompt.answer));
        let goes_on = draws.chance(TURNS / (TURNS + 1.0)) && prompt.tokens() + prompt.answer < LONGEST;
        goes_on.then(|| draws.wait(PAUSE))
    }
}
