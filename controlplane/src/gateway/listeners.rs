//! The listeners of a Gateway, judged one by one and against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::conditions::{Condition, Fault, ListenerStatus, condition};
use super::grants::Grants;
use super::hostname::Hostname;
use super::objects::{Certificate, Class, GROUP, GatewaySpec, Listener, ObjectName, RouteKind};

/// A certificate, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateState {
    /// It can be used.
    Usable(Arc<Certificate>),
    /// It cannot, for this reason; the last that could still counts.
    Broken(String, Option<Arc<Certificate>>),
}

/// Certificates by Secret.
pub type Certificates = BTreeMap<ObjectName, CertificateState>;

/// A listener, judged.
#[derive(Debug)]
pub(super) struct Judged<'a> {
    pub(super) listener: &'a Listener,
    pub(super) hostname: Hostname,
    pub(super) tls: bool,
    pub(super) kinds: BTreeSet<RouteKind>,
    /// Whether routes of other namespaces may attach.
    pub(super) from_all: bool,
    pub(super) certificates: BTreeMap<ObjectName, Arc<Certificate>>,
    /// Of how many routes.
    pub(super) attached: u32,
    accepted: Option<Fault>,
    resolved: Option<Fault>,
    conflict: Option<Fault>,
}

impl Judged<'_> {
    /// Whether it is served.
    pub(super) fn is_programmed(&self) -> bool {
        self.accepted.is_none() && self.conflict.is_none() && (!self.tls || !self.certificates.is_empty())
    }

    /// Whether it stands as it was written.
    pub(super) fn is_valid(&self) -> bool {
        self.is_programmed() && self.resolved.is_none()
    }

    pub(super) fn status(&self) -> ListenerStatus {
        let programmed = (!self.is_programmed()).then(|| Fault::new("Invalid", "see the other conditions"));
        let conflicted = match &self.conflict {
            None => Condition { status: false, ..Condition::holds("Conflicted", "NoConflicts") },
            Some(Fault { reason, message }) => {
                Condition { message: message.clone(), ..Condition::holds("Conflicted", reason) }
            }
        };
        ListenerStatus {
            name: self.listener.name.clone(),
            supported_kinds: self.kinds.iter().map(|kind| kind.name().to_owned()).collect(),
            attached_routes: self.attached,
            conditions: vec![
                condition("Accepted", self.accepted.as_ref()),
                conflicted,
                condition("ResolvedRefs", self.resolved.as_ref()),
                condition("Programmed", programmed.as_ref()),
            ],
        }
    }
}

/// What a Gateway as a whole asks for: the address that it is bound to, if it names one.
pub(super) fn whole(spec: &GatewaySpec, class: Class) -> Result<Option<IpAddr>, Fault> {
    if class.parameters {
        let message = format!("`parametersRef` of the GatewayClass {} is not supported", spec.gateway_class_name);
        return Err(Fault::new("InvalidParameters", message));
    }
    for (field, given) in [
        ("tls", &spec.tls),
        ("backendTLS", &spec.backend_tls),
        ("allowedListeners", &spec.allowed_listeners),
        ("infrastructure", &spec.infrastructure),
    ] {
        if given.is_some() {
            return Err(Fault::unsupported(&format!("`{field}` of a Gateway")));
        }
    }
    match spec.addresses.as_slice() {
        [] => Ok(None),
        [address] => {
            let kind = address.r#type.as_deref().unwrap_or("IPAddress");
            let value = address.value.as_deref().unwrap_or_default();
            match value.parse() {
                Ok(address) if kind == "IPAddress" => Ok(Some(address)),
                _ => Err(Fault::new("UnsupportedAddress", format!("the {kind} `{value}`: expected an IPAddress"))),
            }
        }
        _ => Err(Fault::new("UnsupportedAddress", "several addresses are not supported yet")),
    }
}

/// The listeners of the Gateway `name`.
pub(super) fn judge<'a>(
    name: &ObjectName,
    spec: &'a GatewaySpec,
    certificates: &Certificates,
    grants: &Grants<'_>,
) -> Vec<Judged<'a>> {
    let mut judged: Vec<Judged<'a>> = Vec::new();
    for listener in &spec.listeners {
        let mut this = alone(name, listener, certificates, grants);
        let earlier = judged.iter().filter(|other| other.conflict.is_none() && other.listener.port == listener.port);
        for other in earlier {
            let of = &other.listener.name;
            if other.tls != this.tls {
                let message = format!("port {} speaks the protocol of listener {of}", listener.port);
                this.conflict = Some(Fault::new("ProtocolConflict", message));
            } else if other.hostname == this.hostname {
                let message = format!("the host name is that of listener {of}, on the same port");
                this.conflict = Some(Fault::new("HostnameConflict", message));
            }
        }
        judged.push(this);
    }
    judged
}

fn alone<'a>(
    gateway: &ObjectName,
    listener: &'a Listener,
    certificates: &Certificates,
    grants: &Grants<'_>,
) -> Judged<'a> {
    let mut judged = Judged {
        listener,
        hostname: Hostname::Any,
        tls: listener.protocol == "HTTPS",
        kinds: BTreeSet::new(),
        from_all: false,
        certificates: BTreeMap::new(),
        attached: 0,
        accepted: None,
        resolved: None,
        conflict: None,
    };
    match Hostname::read(listener.hostname.as_deref()) {
        Ok(hostname) => judged.hostname = hostname,
        Err(message) => judged.accepted = Some(Fault::new("UnsupportedValue", message)),
    }
    match listener.protocol.as_str() {
        "HTTP" if listener.tls.is_some() => {
            judged.accepted = Some(Fault::new("UnsupportedValue", "`tls` of a listener that speaks HTTP"));
        }
        "HTTP" => {}
        "HTTPS" => judge_tls(gateway, &mut judged, certificates, grants),
        other => {
            let message = format!("the protocol `{other}` is not supported yet: expected HTTP or HTTPS");
            judged.accepted = Some(Fault::new("UnsupportedProtocol", message));
        }
    }
    let namespaces = listener.allowed_routes.namespaces.as_ref();
    match namespaces.and_then(|namespaces| namespaces.from.as_deref()).unwrap_or("Same") {
        "Same" => {}
        "All" => judged.from_all = true,
        other => judged.accepted = Some(Fault::unsupported(&format!("allowing routes from namespaces by `{other}`"))),
    }
    judge_kinds(&mut judged);
    judged
}

fn judge_kinds(judged: &mut Judged<'_>) {
    let known = [RouteKind::Http, RouteKind::Grpc];
    let wanted = &judged.listener.allowed_routes.kinds;
    if wanted.is_empty() {
        judged.kinds = known.into();
    }
    for kind in wanted {
        let ours = kind.group.as_deref().is_none_or(|group| group == GROUP);
        match known.into_iter().find(|known| ours && known.name() == kind.kind) {
            Some(known) => drop(judged.kinds.insert(known)),
            None => {
                let message = format!("routes of the kind `{}` cannot attach", kind.kind);
                judged.resolved = Some(Fault::new("InvalidRouteKinds", message));
            }
        }
    }
}

fn judge_tls(gateway: &ObjectName, judged: &mut Judged<'_>, certificates: &Certificates, grants: &Grants<'_>) {
    let Some(tls) = &judged.listener.tls else {
        judged.resolved = Some(Fault::new("InvalidCertificateRef", "a listener that speaks HTTPS needs `tls`"));
        return;
    };
    if let Some(mode) = tls.mode.as_deref().filter(|mode| *mode != "Terminate") {
        judged.accepted = Some(Fault::unsupported(&format!("the TLS mode `{mode}`")));
    }
    if tls.frontend_validation.is_some() {
        judged.accepted = Some(Fault::unsupported("`frontendValidation`"));
    }
    if let Some(option) = tls.options.keys().next() {
        judged.accepted = Some(Fault::unsupported(&format!("the TLS option `{option}`")));
    }
    if tls.certificate_refs.is_empty() {
        judged.resolved = Some(Fault::new("InvalidCertificateRef", "`certificateRefs` names no Secret"));
    }
    for reference in &tls.certificate_refs {
        let group = reference.group.as_deref().unwrap_or_default();
        let kind = reference.kind.as_deref().unwrap_or("Secret");
        let namespace = reference.namespace.as_deref().unwrap_or(&gateway.namespace);
        let name = ObjectName::new(namespace, &reference.name);
        let invalid = |message: String| Fault::new("InvalidCertificateRef", message);
        let fault = if !group.is_empty() || kind != "Secret" {
            Some(invalid(format!("certificates come from Secrets, not from a {kind}")))
        } else if !grants.allow((GROUP, "Gateway", &gateway.namespace), ("", "Secret", &name)) {
            let message = format!("no ReferenceGrant lets this Gateway use the Secret {name}");
            Some(Fault::new("RefNotPermitted", message))
        } else {
            match certificates.get(&name) {
                None => Some(invalid(format!("there is no Secret {name} of the type kubernetes.io/tls"))),
                Some(CertificateState::Usable(certificate)) => {
                    judged.certificates.insert(name, certificate.clone());
                    None
                }
                Some(CertificateState::Broken(why, last)) => {
                    let fault = invalid(format!("the Secret {name}: {why}"));
                    judged.certificates.extend(last.clone().map(|last| (name, last)));
                    Some(fault)
                }
            }
        };
        judged.resolved = judged.resolved.take().or(fault);
    }
}
