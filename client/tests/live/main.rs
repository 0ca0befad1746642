//! The channel against live servers on loopback: balance, failover, dead and departing peers, retries.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail")]

mod balance;
mod deaths;
mod hashing;
mod hedges;
mod http;
mod restarts;
mod retries;
mod routes;
mod stopped;
mod streams;
mod subsets;
mod support;
mod tls;
mod wire;
