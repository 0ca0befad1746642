//! Runs made by hand, and their verdicts.
