//! Portolan's control plane: sources, catalog, planning, the xDS server, the admin interface and the command line.

pub mod catalog;
pub mod lrs;
pub mod resources;
pub mod source;
pub mod xds;
