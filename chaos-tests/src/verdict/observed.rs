//! Everything that a run showed, times since its time 0.

use std::time::Duration;

use crate::measure::Record;

/// What was seen.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// The calls.
    pub record: Record,
    /// When each of the scenario's steps happened, by its place there.
    pub steps: Vec<StepTime>,
    /// The processes that were killed.
    pub ended: Vec<Ended>,
    /// The policy writes that were tried all the time, if any were.
    pub writes: Vec<Write>,
    /// The revisions in the policy's history at the end; `None` if nobody asked or it could not be read.
    pub history: Option<Vec<u64>>,
    /// What the scenario asked for and did not get: policies, drains.
    pub troubles: Vec<Trouble>,
    /// When the last call began, or later.
    pub duration: Duration,
}

/// When a step happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepTime {
    /// When it began.
    pub began: Duration,
    /// When it was done.
    pub done: Duration,
}

/// The end of a killed process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The step that killed it.
    pub step: usize,
    /// What people call it.
    pub name: String,
    /// From SIGKILL to the end.
    pub took: Duration,
    /// Whether it ended by the signal.
    pub by_kill: bool,
    /// Whether somebody still accepts connections where it listened.
    pub still_answers: bool,
}

/// A policy write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// When it was asked for.
    pub asked: Duration,
    /// When it was acknowledged, and with which revision.
    pub acknowledged: Option<(Duration, u64)>,
}

/// A command of the scenario's own that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What was to be done.
    pub what: String,
    /// Why it was not.
    pub message: String,
}
