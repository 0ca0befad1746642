//! The scenario file's fields as serde reads them: structure alone, every value with its place. What they mean is
//! checked in [`super::check`].

use std::collections::BTreeMap;
use std::fmt;

use portolan_topology::document::{List, Spanned};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A whole file.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct File {
    pub(super) api_version: Spanned<String>,
    pub(super) kind: Spanned<String>,
    pub(super) metadata: Metadata,
    pub(super) spec: Spec,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Metadata {
    pub(super) name: Spanned<String>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    /// Read before the rest, by [`super::topology_path`].
    #[serde(rename = "topology")]
    pub(super) _topology: Option<String>,
    pub(super) services: Spanned<List<Service>>,
    pub(super) clients: Spanned<List<Clients>>,
    #[serde(default)]
    pub(super) policies: List<Spanned<serde_json::Value>>,
    #[serde(default)]
    pub(super) block: Block,
    pub(super) detect: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) select: BTreeMap<String, Spanned<ScopeText>>,
    #[serde(default)]
    pub(super) steps: List<Spanned<Step>>,
    pub(super) duration: Spanned<String>,
    pub(super) expect: Option<Spanned<List<Spanned<Expectation>>>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Block {
    #[default]
    None,
    Peers,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Service {
    pub(super) name: Spanned<String>,
    pub(super) port: Spanned<u16>,
    pub(super) backends_per_zone: Spanned<u16>,
    pub(super) latency: Option<Spanned<String>>,
    pub(super) within: Option<Spanned<ScopeText>>,
    pub(super) calls: Option<Spanned<String>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Clients {
    pub(super) service: Spanned<String>,
    pub(super) per_zone: Option<Spanned<u16>>,
    pub(super) rate: Spanned<f64>,
    pub(super) timeout: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) retries: bool,
    pub(super) within: Option<Spanned<ScopeText>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Step {
    pub(super) name: Spanned<String>,
    pub(super) at: Spanned<String>,
    pub(super) kill: Option<Kill>,
    pub(super) restart: Option<Restart>,
    pub(super) degrade: Option<Degrade>,
    pub(super) drain: Option<Drain>,
    pub(super) undrain: Option<Undrain>,
    pub(super) policy: Option<Spanned<serde_json::Value>>,
    pub(super) scale: Option<Spanned<Scale>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum What {
    Backends,
    ControlPlane,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Role {
    Leader,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Kill {
    pub(super) scope: Option<Spanned<ScopeText>>,
    pub(super) role: Option<Spanned<Role>>,
    pub(super) what: Option<Spanned<List<What>>>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Restart {
    pub(super) scope: Spanned<ScopeText>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Degrade {
    pub(super) scope: Spanned<ScopeText>,
    pub(super) percent: Spanned<u32>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Drain {
    pub(super) scope: Spanned<ScopeText>,
    pub(super) over: Option<Spanned<String>>,
    pub(super) restore_over: Option<Spanned<String>>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Undrain {
    pub(super) scope: Spanned<ScopeText>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Scale {
    pub(super) service: Spanned<String>,
    pub(super) percent: Option<Spanned<u32>>,
    pub(super) to: Option<Spanned<u16>>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Expectation {
    pub(super) name: Spanned<String>,
    pub(super) from: Option<Spanned<String>>,
    pub(super) until: Option<Spanned<String>>,
    pub(super) after: Option<Spanned<String>>,
    pub(super) clients_in: Option<Spanned<ScopeText>>,
    pub(super) service: Option<Spanned<String>>,
    pub(super) tolerance_points: Option<Spanned<f64>>,
    pub(super) in_zone_share_percent: Option<Spanned<Bounds>>,
    pub(super) region_shares: Option<Spanned<SharesText>>,
    pub(super) cluster_shares: Option<Spanned<SharesText>>,
    pub(super) moved_within: Option<Spanned<String>>,
    pub(super) failed: Option<Spanned<Failed>>,
    pub(super) ramps_back_over: Option<Ramp>,
    pub(super) p99_within: Option<P99>,
    pub(super) process_gone: Option<Spanned<bool>>,
    pub(super) writes_within: Option<Spanned<String>>,
    pub(super) history_kept: Option<Spanned<bool>>,
    pub(super) max_over_mean: Option<MaxOverMean>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Bounds {
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failed {
    #[serde(default)]
    pub(super) max_in_flight_at_kill: bool,
    pub(super) max: Option<usize>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Ramp {
    pub(super) min: Spanned<String>,
    pub(super) steps: Option<Spanned<usize>>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct P99 {
    pub(super) factor: Spanned<f64>,
    pub(super) of: Spanned<WindowText>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct WindowText {
    pub(super) from: Spanned<String>,
    pub(super) until: Spanned<String>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct MaxOverMean {
    pub(super) service: Spanned<String>,
    pub(super) max: Spanned<f64>,
    pub(super) within: Option<Spanned<String>>,
}

/// `$role`, `all`, or `{region: first}` and the like.
#[derive(Debug)]
pub(super) enum ScopeText {
    Text(String),
    Fields(Vec<(String, String)>),
}

/// `topology`, or parts by name.
#[derive(Debug)]
pub(super) enum SharesText {
    Text(String),
    Parts(Vec<(String, f64)>),
}

macro_rules! text_or_mapping {
    ($name:ident, $mapping:ident, $value:ty, $expecting:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Reader;
                impl<'de> Visitor<'de> for Reader {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }

                    fn visit_str<E>(self, text: &str) -> Result<$name, E> {
                        Ok($name::Text(text.to_owned()))
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<$name, A::Error> {
                        let mut all = Vec::new();
                        while let Some(entry) = entries.next_entry::<String, $value>()? {
                            all.push(entry);
                        }
                        Ok($name::$mapping(all))
                    }
                }
                deserializer.deserialize_any(Reader)
            }
        }
    };
}

text_or_mapping!(ScopeText, Fields, String, "`$role`, `all` or one of `region`, `cluster`, `zone` with a name");
text_or_mapping!(SharesText, Parts, f64, "`topology` or a part for each name");
