//! A report of a run made by hand.
