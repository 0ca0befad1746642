//! A model server: prompts are read one after another, answers are written side by side, and what was read stays in a cache
//! while there is room. An answer is read again with the prompt that follows it.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::trace::Prompt;

/// Tokens of a prompt read in a second, one prompt at a time.
const READ: f64 = 8000.0;
/// Seconds for a token of every answer that is being written, and more for each of these.
const STEP: f64 = 0.012;
const STEP_EACH: f64 = 0.000_5;
/// Answers written at once; further prompts wait.
const BATCH: usize = 48;
/// Tokens that the cache holds.
const CACHE: u64 = 150_000;

/// What a step brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Done {
    FirstToken(u64),
    Answer(u64),
}

#[derive(Debug)]
struct Waiting {
    request: u64,
    unread: u32,
    answer: u32,
}

/// An answer that is being written.
#[derive(Debug)]
struct Writing {
    request: u64,
    /// It ends when a token of every answer has been written so many times.
    until: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Server {
    waiting: VecDeque<Waiting>,
    /// When the first of `waiting` has been read; `None`: there is none, or no room to write its answer.
    read: Option<f64>,
    writing: Vec<Writing>,
    /// Tokens written of an answer that was always there.
    written: f64,
    now: f64,
    version: u64,
    cache: Cache,
}

impl Server {
    /// Changes with everything that changes [`Server::next_step`].
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Takes a prompt; returns how many of its tokens were in the cache.
    pub(crate) fn ask(&mut self, now: f64, request: u64, prompt: &Prompt) -> u32 {
        self.advance(now);
        let cached = self.cache.read(prompt);
        self.waiting.push_back(Waiting { request, unread: prompt.tokens() - cached, answer: prompt.answer });
        self.begin_reading(now);
        cached
    }

    fn begin_reading(&mut self, now: f64) {
        self.version += 1;
        if self.read.is_none() && self.writing.len() < BATCH {
            self.read = self.waiting.front().map(|first| now + f64::from(first.unread.max(1)) / READ);
        }
    }

    /// Tokens of each answer in a second.
    fn rate(&self) -> f64 {
        1.0 / (STEP + STEP_EACH * self.writing.len() as f64)
    }

    fn advance(&mut self, now: f64) {
        self.written += (now - self.now) * self.rate();
        self.now = now;
    }

    fn next_answer(&self) -> Option<(f64, usize)> {
        let first = self.writing.iter().enumerate().min_by(|a, b| a.1.until.total_cmp(&b.1.until));
        first.map(|(at, writing)| (self.now + (writing.until - self.written).max(0.0) / self.rate(), at))
    }

    /// When something is done, if nothing comes before.
    pub(crate) fn next_step(&self) -> Option<f64> {
        let answer = self.next_answer().map(|(at, _)| at);
        [self.read, answer].into_iter().flatten().min_by(f64::total_cmp)
    }

    /// What is done now. Asked at the time that [`Server::next_step`] told.
    pub(crate) fn step(&mut self, now: f64) -> Option<Done> {
        let answer = self.next_answer().filter(|(at, _)| self.read.is_none_or(|read| *at < read));
        self.advance(now);
        let done = if let Some((_, at)) = answer {
            Done::Answer(self.writing.swap_remove(at).request)
        } else {
            let Waiting { request, answer, .. } = self.waiting.pop_front()?;
            self.read = None;
            self.writing.push(Writing { request, until: self.written + f64::from(answer) });
            Done::FirstToken(request)
        };
        self.begin_reading(now);
        Some(done)
    }
}

/// What prompts were read, the least recently used forgotten first.
#[derive(Debug, Default)]
struct Cache {
    /// By hash: tokens beyond the next shorter prefix, and when it was used.
    held: HashMap<u64, (u32, u64)>,
    by_use: BTreeMap<u64, u64>,
    tokens: u64,
    uses: u64,
}

impl Cache {
    /// How many tokens of a prompt it holds, from the beginning; from now on it holds all.
    fn read(&mut self, prompt: &Prompt) -> u32 {
        let known = prompt.prefixes.iter().take_while(|(hash, _)| self.held.contains_key(hash)).count();
        let cached = known.checked_sub(1).map_or(0, |last| prompt.prefixes[last].1);
        // The longest first, so that beginnings, which others share, are forgotten last.
        let before = |at: usize| at.checked_sub(1).map_or(0, |at| prompt.prefixes[at].1);
        for (at, (hash, length)) in prompt.prefixes.iter().enumerate().rev() {
            self.hold(*hash, length - before(at));
        }
        while self.tokens > CACHE {
            let Some((_, hash)) = self.by_use.pop_first() else { break };
            self.tokens -= self.held.remove(&hash).map_or(0, |(tokens, _)| u64::from(tokens));
        }
        cached
    }

    fn hold(&mut self, hash: u64, tokens: u32) {
        self.uses += 1;
        if let Some((held, used)) = self.held.insert(hash, (tokens, self.uses)) {
            self.by_use.remove(&used);
            self.tokens -= u64::from(held);
        }
        self.by_use.insert(self.uses, hash);
        self.tokens += u64::from(tokens);
    }
}
