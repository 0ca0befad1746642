//! The scenarios that the binary carries, with the topology that they name.

/// A scenario in the binary.
#[derive(Debug, Clone, Copy)]
pub struct Builtin {
    /// Its name.
    pub name: &'static str,
    /// Its file's text.
    pub text: &'static str,
}

/// The topology that all of them name.
pub const TOPOLOGY: &str = include_str!("../../../examples/three-regions/topology.yaml");
/// Where that file is in the repository.
pub const TOPOLOGY_FILE: &str = "examples/three-regions/topology.yaml";

macro_rules! builtin {
    ($($name:literal),*) => {
        &[$(Builtin { name: $name, text: include_str!(concat!("../../scenarios/", $name, ".yaml")) }),*]
    };
}

/// All of them, the simplest first.
pub const ALL: &[Builtin] = builtin![
    "zone-loss",
    "zone-degraded",
    "region-loss",
    "region-loss-retries",
    "control-plane-loss",
    "leader-loss",
    "drain-region",
    "policy-shift",
    "scale-down"
];

impl Builtin {
    /// Where its file is in the repository.
    #[must_use]
    pub fn file(&self) -> String {
        format!("chaos-tests/scenarios/{}.yaml", self.name)
    }

    /// What it is about: the comment at the file's head.
    #[must_use]
    pub fn about(&self) -> String {
        let comment = self.text.lines().map_while(|line| line.strip_prefix('#'));
        comment.map(str::trim).collect::<Vec<_>>().join(" ")
    }
}

/// A scenario by name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Builtin> {
    ALL.iter().find(|builtin| builtin.name == name)
}
