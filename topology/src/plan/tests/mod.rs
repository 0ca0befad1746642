//! The planner's tests: scenarios whose arithmetic was done by hand, and properties with the bugs that they catch.

mod cases;
mod pace_properties;
mod pacing;
mod scenarios;
mod target_properties;
mod world;
