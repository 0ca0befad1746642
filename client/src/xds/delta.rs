//! The client's end of delta xDS for one type: what is subscribed, what is held, and what to answer.
//!
//! Resources stay opaque: whoever drives this says whether one is valid, and keeps it. Nothing here does I/O.

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;

use super::sotw::INVALID_ARGUMENT;

/// A client of one type's delta stream.
#[derive(Debug)]
pub struct DeltaClient {
    type_url: String,
    node: Node,
    wanted: BTreeSet<String>,
    /// Versions of the resources that the driver holds.
    known: BTreeMap<String, String>,
    stream: Stream,
}

/// What was said on the stream so far.
#[derive(Debug, PartialEq, Eq)]
enum Stream {
    Down,
    /// It is up, but nothing was wanted yet: an empty first request would ask for everything.
    Silent,
    Speaking,
}

/// What a response changes.
#[derive(Debug, Clone, PartialEq)]
pub enum DeltaEvent {
    /// A resource is new or changed. Its wrapper has its name, version and metadata; its body is there and valid.
    Updated(Box<Resource>),
    /// The server says that there is no such resource.
    Removed {
        /// Its name.
        name: String,
    },
    /// A resource is invalid; what was held stays.
    Rejected {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
}

impl DeltaClient {
    /// A client that wants nothing yet.
    #[must_use]
    pub fn new(type_url: impl Into<String>, node: Node) -> Self {
        Self { type_url: type_url.into(), node, wanted: BTreeSet::new(), known: BTreeMap::new(), stream: Stream::Down }
    }

    /// Takes a resource for held that was kept from an earlier life, so that it is not sent again unless it changed.
    pub fn assume_held(&mut self, name: impl Into<String>, version: impl Into<String>) {
        self.known.insert(name.into(), version.into());
    }

    /// The versions of the resources that are held.
    #[must_use]
    pub fn known_versions(&self) -> &BTreeMap<String, String> {
        &self.known
    }

    /// The names that are subscribed.
    #[must_use]
    pub fn subscribed(&self) -> &BTreeSet<String> {
        &self.wanted
    }

    /// Subscribes; the request to send now, if the stream is up and something is new.
    pub fn subscribe<N: Into<String>>(&mut self, names: impl IntoIterator<Item = N>) -> Option<DeltaDiscoveryRequest> {
        let added: Vec<String> =
            names.into_iter().map(Into::into).filter(|name| self.wanted.insert(name.clone())).collect();
        match self.stream {
            Stream::Down => None,
            Stream::Silent => self.first_request(),
            Stream::Speaking if added.is_empty() => None,
            Stream::Speaking => Some(DeltaDiscoveryRequest { resource_names_subscribe: added, ..self.request() }),
        }
    }

    /// Unsubscribes and forgets the versions; the request to send now, if the stream is up and something was subscribed.
    pub fn unsubscribe<N: AsRef<str>>(&mut self, names: impl IntoIterator<Item = N>) -> Option<DeltaDiscoveryRequest> {
        let mut gone = Vec::new();
        for name in names {
            self.known.remove(name.as_ref());
            gone.extend(self.wanted.take(name.as_ref()));
        }
        (self.stream == Stream::Speaking && !gone.is_empty())
            .then(|| DeltaDiscoveryRequest { resource_names_unsubscribe: gone, ..self.request() })
    }

    /// A stream is up. Returns its first request, unless nothing is wanted: then the first subscription makes it.
    pub fn connected(&mut self) -> Option<DeltaDiscoveryRequest> {
        self.stream = Stream::Silent;
        self.first_request()
    }

    /// The stream broke. What is held stays.
    pub fn disconnected(&mut self) {
        self.stream = Stream::Down;
    }

    /// Takes a response. Returns what it changes and the ACK or NACK. `validate` is asked about each body that is wanted.
    pub fn received(
        &mut self,
        response: DeltaDiscoveryResponse,
        mut validate: impl FnMut(&str, &Any) -> Result<(), String>,
    ) -> (Vec<DeltaEvent>, Option<DeltaDiscoveryRequest>) {
        if response.type_url != self.type_url || self.stream != Stream::Speaking {
            return (Vec::new(), None);
        }
        let mut events = Vec::new();
        let mut errors = Vec::new();
        for resource in response.resources {
            if !self.wanted.contains(&resource.name) {
                continue;
            }
            let verdict = match &resource.resource {
                None => Err("the resource has no body".to_owned()),
                Some(any) if any.type_url != self.type_url => Err(format!("unexpected type `{}`", any.type_url)),
                Some(any) => validate(&resource.name, any),
            };
            match verdict {
                Ok(()) => {
                    self.known.insert(resource.name.clone(), resource.version.clone());
                    events.push(DeltaEvent::Updated(Box::new(resource)));
                }
                Err(reason) => {
                    errors.push(format!("{}: {reason}", resource.name));
                    events.push(DeltaEvent::Rejected { name: resource.name, reason });
                }
            }
        }
        for name in response.removed_resources {
            if self.wanted.contains(&name) {
                self.known.remove(&name);
                events.push(DeltaEvent::Removed { name });
            }
        }
        let error_detail = (!errors.is_empty()).then(|| Status {
            code: INVALID_ARGUMENT,
            message: format!("xDS response validation errors: [{}]", errors.join("; ")),
            details: Vec::new(),
        });
        let reply = DeltaDiscoveryRequest { response_nonce: response.nonce, error_detail, ..self.request() };
        (events, Some(reply))
    }

    fn first_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        if self.wanted.is_empty() {
            return None;
        }
        self.stream = Stream::Speaking;
        let held = self.known.iter().filter(|(name, _)| self.wanted.contains(*name));
        Some(DeltaDiscoveryRequest {
            node: Some(self.node.clone()),
            resource_names_subscribe: self.wanted.iter().cloned().collect(),
            initial_resource_versions: held.map(|(name, version)| (name.clone(), version.clone())).collect(),
            ..self.request()
        })
    }

    fn request(&self) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest { type_url: self.type_url.clone(), ..DeltaDiscoveryRequest::default() }
    }
}

#[cfg(test)]
mod tests;
