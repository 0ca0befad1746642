//! What is said of gateways and routes: conditions by the names and reasons of the Gateway API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::objects::{ObjectName, ParentRef, RouteKind};

/// A condition of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What it is about: `Accepted`, `ResolvedRefs`, `Programmed`, `Conflicted`.
    pub r#type: String,
    /// Whether it holds.
    pub status: bool,
    /// Why, in one word of the API.
    pub reason: String,
    /// Why, in words; empty where nothing is amiss.
    pub message: String,
}

impl Condition {
    /// It holds.
    #[must_use]
    pub fn holds(r#type: &str, reason: &str) -> Self {
        Self { r#type: r#type.to_owned(), status: true, reason: reason.to_owned(), message: String::new() }
    }

    /// Whether something is amiss. `Conflicted` is the one that should not hold.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        self.status == (self.r#type == "Conflicted")
    }
}

/// Why something does not hold: a reason of the API, and words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The reason.
    pub reason: &'static str,
    /// The words.
    pub message: String,
}

impl Fault {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// A field that has no effect here.
    pub(super) fn unsupported(what: &str) -> Self {
        Self::new("UnsupportedValue", format!("{what} is not supported yet"))
    }
}

/// `type` as a condition: it holds, for a reason of the same name, or not for this one.
pub(super) fn condition(r#type: &str, fault: Option<&Fault>) -> Condition {
    match fault {
        None => Condition::holds(r#type, r#type),
        Some(Fault { reason, message }) => Condition {
            r#type: r#type.to_owned(),
            status: false,
            reason: (*reason).to_owned(),
            message: message.clone(),
        },
    }
}

/// What is said of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// The edit of the Gateway that it is about, if its source counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Of the whole.
    pub conditions: Vec<Condition>,
    /// Of each listener, in its order.
    pub listeners: Vec<ListenerStatus>,
}

/// What is said of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// The kinds of route that may attach.
    pub supported_kinds: Vec<String>,
    /// How many routes are attached.
    pub attached_routes: u32,
    /// What holds of it.
    pub conditions: Vec<Condition>,
}

/// What is said of a route, for one of its parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentStatus {
    /// The parent, as the route names it.
    pub parent: ParentRef,
    /// The edit of the route that it is about, if its source counts them.
    pub observed_generation: Option<i64>,
    /// What holds.
    pub conditions: Vec<Condition>,
}

/// Everything that is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statuses {
    /// Whether anything was planned: until then absence means nothing.
    pub synced: bool,
    /// Of each Gateway of our class.
    pub gateways: BTreeMap<ObjectName, GatewayStatus>,
    /// Of each route with a parent that is such a Gateway.
    pub routes: BTreeMap<(RouteKind, ObjectName), Vec<ParentStatus>>,
}

/// Something that is amiss with an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The object, and the part of it.
    pub object: String,
    /// What does not hold.
    #[serde(flatten)]
    pub condition: Condition,
}

impl Statuses {
    /// All that is amiss, by object.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let mut look = |object: String, conditions: &[Condition]| {
            let amiss = conditions.iter().filter(|condition| condition.is_trouble());
            troubles.extend(amiss.map(|condition| Trouble { object: object.clone(), condition: condition.clone() }));
        };
        for (name, gateway) in &self.gateways {
            look(format!("Gateway {name}"), &gateway.conditions);
            for listener in &gateway.listeners {
                look(format!("Gateway {name} listener {}", listener.name), &listener.conditions);
            }
        }
        for ((kind, name), parents) in &self.routes {
            for parent in parents {
                look(format!("{} {name}", kind.name()), &parent.conditions);
            }
        }
        troubles.dedup();
        troubles
    }
}
