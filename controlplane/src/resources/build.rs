//! One resource of one kind for one class of client, from what the catalog serves.

use std::sync::Arc;

use prost::Message;

use super::class::ClientClass;
use super::name::ResourceName;
use super::{Encoded, Kind, Lookup, cluster, endpoints, listener, route};
use crate::catalog::served::{Served, ServedService};

/// The resource `asked` of `kind`. `name` is `asked`, read; `None` if it could not be: such a name is known not to exist.
#[must_use]
pub fn build(kind: Kind, asked: &Arc<str>, name: Option<&ResourceName>, served: &Served, class: ClientClass) -> Lookup {
    match (name, served) {
        (None, _) | (_, Served::Absent) => absent(kind, asked, class),
        (Some(_), Served::NotYet) => Lookup::Unknown,
        (Some(name), Served::Present(service)) => Lookup::Present(present(kind, asked, name, service, class)),
    }
}

/// What stands for a resource that does not exist. Only a Cluster is left out: no route leads to it.
#[must_use]
pub fn absent(kind: Kind, asked: &Arc<str>, class: ClientClass) -> Lookup {
    let bytes = match kind {
        Kind::Cds => return Lookup::Absent,
        Kind::Eds => endpoints::absent(asked).encode_to_vec(),
        Kind::Lds => listener::absent(asked, class).encode_to_vec(),
        Kind::Rds => route::absent(asked, class).encode_to_vec(),
    };
    Lookup::Present(Encoded::new(kind, asked.clone(), bytes))
}

fn present(kind: Kind, asked: &Arc<str>, name: &ResourceName, service: &ServedService, class: ClientClass) -> Encoded {
    let canonical = || name.canonical(service.port).to_string();
    let bytes = match kind {
        Kind::Cds => cluster::present(asked, &service.policy, class),
        Kind::Eds => endpoints::present(asked, service).encode_to_vec(),
        Kind::Lds => listener::present(asked, canonical()).encode_to_vec(),
        Kind::Rds => route::present(asked, canonical(), &service.policy, class).encode_to_vec(),
    };
    Encoded::new(kind, asked.clone(), bytes)
}
