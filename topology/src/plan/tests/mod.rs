//! The planner's tests: scenarios whose arithmetic was done by hand, and properties with the bugs that they catch.

mod pacing;
mod scenarios;
mod world;
