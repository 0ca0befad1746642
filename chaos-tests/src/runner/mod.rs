//! Runs a scenario: starts everything, puts the faults in on time, and takes everything down again.

pub(crate) mod addresses;
mod bootstrap;
pub(crate) mod fleet;
pub(crate) mod folder;
mod kubelet;
mod live;
pub(crate) mod manifests;
pub(crate) mod policy;
pub(crate) mod portolan;
pub(crate) mod process;
pub(crate) mod run;
mod site;
mod steps;
pub mod supervise;

pub use portolan::{AS_PORTOLAN, RunPaths, SUPERVISE};
pub use run::{Options, run};
pub use site::{BackendSite, ClientSite, ControlPlaneSite, Site, place};
