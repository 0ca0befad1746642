//! ReferenceGrants: who may refer to an object in another namespace.

use super::objects::{GatewayObjects, ObjectName};

/// All grants.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grants<'a>(pub(super) &'a GatewayObjects);

impl Grants<'_> {
    /// Whether an object (its group, kind and namespace) may refer to another (its group, kind and name). Within a
    /// namespace it may.
    pub(super) fn allow(&self, from: (&str, &str, &str), to: (&str, &str, &ObjectName)) -> bool {
        let (group, kind, namespace) = from;
        let (to_group, to_kind, name) = to;
        if namespace == &*name.namespace {
            return true;
        }
        let grants = self.0.grants.iter().filter(|(grant, _)| grant.namespace == name.namespace);
        grants.map(|(_, grant)| &grant.spec).any(|grant| {
            let from = grant.from.iter().any(|it| it.group == group && it.kind == kind && it.namespace == namespace);
            let names = |wanted: Option<&str>| wanted.is_none_or(|wanted| wanted == &*name.name);
            let mut to = grant.to.iter();
            from && to.any(|it| it.group == to_group && it.kind == to_kind && names(it.name.as_deref()))
        })
    }
}
