//! Policy objects as people write them: YAML or JSON, one or many, to and from the checked types.
//!
//! A field whose behaviour does not exist yet is refused as such, never ignored. What a server adds (`status`, the
//! metadata that Kubernetes fills in) is accepted and dropped, so that what `get -o yaml` prints applies again.

mod drain;
mod traffic;
mod write;

use std::collections::BTreeSet;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::PolicyObject;
use crate::diagnostic::{Diagnostics, Report, Span, one_of};
use crate::document::{self, Document, Fields, Spanned};
use crate::names::{check_label, check_subdomain};
use crate::topology::{API_VERSION, Topology};

/// Reads and checks all policy objects of a text; `file` is its name in messages. With a topology, the regions, zones
/// and clusters that they name must exist in it.
pub fn parse(file: &str, text: &str, topology: Option<&Topology>) -> Result<Vec<PolicyObject>, Diagnostics> {
    let documents: Vec<_> = document::parse(file, text)?.into_iter().flat_map(Document::items).collect();
    let mut objects = Vec::new();
    let mut refused: Option<Diagnostics> = None;
    let mut keys = BTreeSet::new();
    for document in &documents {
        let mut report = document.report();
        let object = Checks { report: &mut report, topology }.object(document);
        if let Some(object) = &object
            && !keys.insert(object.key())
        {
            report.error(document.span(), format!("{} stands in this text twice", object.key()));
        }
        match (report.finish(), object) {
            (Ok(_), Some(object)) => objects.push(object),
            (Ok(_), None) => return Err(document.refuse("the object could not be read")),
            (Err(mistakes), _) => match &mut refused {
                Some(refused) => refused.append(mistakes),
                None => refused = Some(mistakes),
            },
        }
    }
    match refused {
        Some(refused) => Err(refused),
        None => Ok(objects),
    }
}

/// Whether everything that `object` names exists in `topology`. Places are those in the object as it writes itself.
pub fn check_against(object: &PolicyObject, topology: &Topology) -> Result<(), Diagnostics> {
    parse(&object.key(), &object.to_yaml(), Some(topology)).map(drop)
}

/// `metadata`, with what only a server writes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Spanned<String>,
    namespace: Option<Spanned<String>>,
    #[serde(rename = "uid")]
    _uid: Option<IgnoredAny>,
    #[serde(rename = "resourceVersion")]
    _resource_version: Option<IgnoredAny>,
    #[serde(rename = "creationTimestamp")]
    _creation_timestamp: Option<IgnoredAny>,
    #[serde(rename = "generation")]
    _generation: Option<IgnoredAny>,
    #[serde(rename = "managedFields")]
    _managed_fields: Option<IgnoredAny>,
    #[serde(rename = "labels")]
    _labels: Option<IgnoredAny>,
    #[serde(rename = "annotations")]
    _annotations: Option<IgnoredAny>,
}

/// An object of our own kinds around its `spec`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object<S> {
    #[serde(rename = "apiVersion")]
    _api_version: Option<IgnoredAny>,
    #[serde(rename = "kind")]
    _kind: Option<IgnoredAny>,
    metadata: Metadata,
    spec: S,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

/// The checks of one object.
struct Checks<'a> {
    report: &'a mut Report,
    topology: Option<&'a Topology>,
}

impl Checks<'_> {
    fn object(&mut self, document: &Document) -> Option<PolicyObject> {
        match document.text_at(&["apiVersion"]) {
            None => {
                self.report
                    .error(document.span(), "the field `apiVersion` is missing")
                    .expected(format!("`{API_VERSION}`"));
            }
            Some(given) if given.value != API_VERSION => {
                self.report
                    .error(given.span, format!("`apiVersion` is `{}`", given.value))
                    .expected(format!("`{API_VERSION}`"))
                    .nearest(given.value, [API_VERSION]);
            }
            Some(_) => {}
        }
        let kinds = ["TrafficPolicy", "Drain"];
        match document.text_at(&["kind"]) {
            None => {
                self.report.error(document.span(), "the field `kind` is missing").expected(one_of(kinds));
                None
            }
            Some(Spanned { value: "TrafficPolicy", .. }) => {
                let object: Object<traffic::Spec> = document.read_into(Fields::Known, self.report)?;
                let (name, namespace) = self.namespaced(&object.metadata);
                Some(PolicyObject::TrafficPolicy(Box::new(self.traffic_policy(name, namespace, object.spec))))
            }
            Some(Spanned { value: "Drain", .. }) => {
                let object: Object<drain::Spec> = document.read_into(Fields::Known, self.report)?;
                let name = self.cluster_scoped(&object.metadata);
                self.drain(name, object.spec).map(PolicyObject::Drain)
            }
            Some(other) => {
                self.report
                    .error(other.span, format!("`{}` is not a policy object", other.value))
                    .expected(one_of(kinds))
                    .nearest(other.value, kinds);
                None
            }
        }
    }

    fn name(&mut self, metadata: &Metadata) -> String {
        if let Err(error) = check_subdomain("object", &metadata.name) {
            self.report.error(metadata.name.span, error.to_string());
        }
        metadata.name.value.clone()
    }

    fn namespaced(&mut self, metadata: &Metadata) -> (String, String) {
        let name = self.name(metadata);
        match &metadata.namespace {
            None => {
                let message = "a TrafficPolicy is in a namespace, that of what it targets";
                self.report.error(metadata.name.span, message).expected("the field `namespace` beside the name");
                (name, String::new())
            }
            Some(namespace) => {
                if let Err(error) = check_label("namespace", namespace) {
                    self.report.error(namespace.span, error.to_string());
                }
                (name, namespace.value.clone())
            }
        }
    }

    fn cluster_scoped(&mut self, metadata: &Metadata) -> String {
        if let Some(namespace) = &metadata.namespace {
            self.report.error(namespace.span, "a Drain is in no namespace; its name is unique in the federation");
        }
        self.name(metadata)
    }

    fn not_yet(&mut self, field: &str, place: Option<Span>) {
        if let Some(place) = place {
            self.report.error(place, format!("`spec.{field}` is not supported yet"));
        }
    }

    fn range(&mut self, field: &str, given: Spanned<u32>, least: u32, most: u32) -> u32 {
        if !(least..=most).contains(&given.value) {
            let message = format!("`{field}` is {}", given.value);
            self.report.error(given.span, message).expected(format!("a whole number from {least} to {most}"));
        }
        given.value
    }

    /// Tells a name that the topology does not have.
    fn known<'n>(&mut self, kind: &str, given: &str, place: Span, names: impl Fn(&Topology) -> Vec<String> + 'n) {
        let Some(topology) = self.topology else { return };
        let names = names(topology);
        if !names.iter().any(|name| name == given) {
            let known = || names.iter().map(String::as_str);
            let diagnostic = self.report.error(place, format!("unknown {kind} `{given}`")).nearest(given, known());
            // A federation may have hundreds of zones: the nearest then says more than all of them.
            if names.len() <= 10 {
                diagnostic.expected(one_of(known()));
            }
        }
    }

    fn known_region(&mut self, given: &str, place: Span) {
        self.known("region", given, place, |topology| {
            topology.regions.iter().map(|region| region.name.to_string()).collect()
        });
    }

    fn known_cluster(&mut self, given: &str, place: Span) {
        self.known("cluster", given, place, |topology| {
            topology.clusters().map(|cluster| cluster.name.to_string()).collect()
        });
    }

    fn known_zone(&mut self, given: &str, place: Span) {
        self.known("zone", given, place, |topology| {
            topology.regions.iter().flat_map(|region| &region.zones).map(ToString::to_string).collect()
        });
    }
}

#[cfg(test)]
mod tests;
