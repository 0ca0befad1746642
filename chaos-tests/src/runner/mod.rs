//! Runs a scenario: starts everything, puts the faults in on time, and takes everything down again.

mod addresses;
mod bootstrap;
mod fleet;
pub(crate) mod folder;
mod kubelet;
mod live;
mod manifests;
mod policy;
mod portolan;
pub(crate) mod process;
mod run;
mod site;
mod steps;
pub mod supervise;

pub use portolan::{AS_PORTOLAN, RunPaths, SUPERVISE};
pub use run::{Options, run};
pub use site::{BackendSite, ClientSite, ControlPlaneSite, Site, place};
