//! Runs a scenario: starts everything, puts the faults in on time, and takes everything down again.

mod addresses;
mod folder;
mod manifests;
mod process;
mod site;
