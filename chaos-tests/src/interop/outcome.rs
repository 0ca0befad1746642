//! What the suite found: lines for people while it runs, a report, and one JSON line for each client and version.

use std::collections::BTreeMap;

use serde::Serialize;

use super::subject::Subject;

/// One check of one subject.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Check {
    /// What was to hold.
    pub name: &'static str,
    /// Whether it did.
    pub passed: bool,
    /// What was seen.
    pub detail: String,
}

/// Everything of one subject.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Outcome {
    /// Its name.
    pub client: &'static str,
    /// What people call it.
    pub title: String,
    /// The version that it said it has; the one that was to be installed if it never ran.
    pub version: String,
    /// How many of its calls were answered.
    pub calls: u64,
    /// What was checked.
    pub checks: Vec<Check>,
}

/// Fewer answered calls prove nothing.
pub(super) const CALLS_AT_LEAST: u64 = 1_000;

impl Outcome {
    /// Of a subject that could not be had or did not run.
    pub(super) fn never_ran(subject: &Subject, error: String) -> Self {
        let check = Check { name: "can be had", passed: false, detail: error };
        Self {
            client: subject.client,
            title: subject.title(),
            version: subject.version.to_owned(),
            calls: 0,
            checks: vec![check],
        }
    }
}

/// The last lines: one for each client and version, whatever protocols it was run with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Summary {
    client: &'static str,
    version: String,
    calls: u64,
    passed: usize,
    failed: usize,
}

impl Summary {
    /// Of all outcomes, in their order.
    pub(super) fn all(outcomes: &[Outcome]) -> Vec<Self> {
        let mut places = BTreeMap::new();
        let mut summaries: Vec<Self> = Vec::new();
        for outcome in outcomes {
            let place = *places.entry((outcome.client, &outcome.version)).or_insert_with(|| {
                let (client, version) = (outcome.client, outcome.version.clone());
                summaries.push(Self { client, version, calls: 0, passed: 0, failed: 0 });
                summaries.len() - 1
            });
            let passed = outcome.checks.iter().filter(|check| check.passed).count();
            summaries[place].calls += outcome.calls;
            summaries[place].passed += passed;
            summaries[place].failed += outcome.checks.len() - passed;
        }
        summaries
    }

    /// Whether everything held.
    pub(super) fn held(&self) -> bool {
        self.failed == 0 && self.passed > 0 && self.calls >= CALLS_AT_LEAST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(client: &'static str, calls: u64, passed: &[bool]) -> Outcome {
        let check = |passed: &bool| Check { name: "holds", passed: *passed, detail: String::new() };
        Outcome {
            client,
            title: client.to_owned(),
            version: "1.0".to_owned(),
            calls,
            checks: passed.iter().map(check).collect(),
        }
    }

    #[test]
    fn a_client_has_one_line_whatever_its_protocols() {
        let outcomes =
            [outcome("envoy", 600, &[true, true]), outcome("grpc-go", 2_000, &[true]), outcome("envoy", 700, &[true])];
        let summaries = Summary::all(&outcomes);
        let lines: Vec<_> = summaries.iter().map(|summary| serde_json::to_string(summary).unwrap()).collect();
        assert_eq!(
            lines,
            [
                r#"{"client":"envoy","version":"1.0","calls":1300,"passed":3,"failed":0}"#,
                r#"{"client":"grpc-go","version":"1.0","calls":2000,"passed":1,"failed":0}"#,
            ]
        );
        assert!(summaries.iter().all(Summary::held));
    }

    #[test]
    fn a_failed_check_or_too_few_calls_fail_a_client() {
        for failing in
            [outcome("grpcio", 5_000, &[true, false]), outcome("grpcio", 0, &[true]), outcome("a", 9_999, &[])]
        {
            assert!(!Summary::all(&[failing])[0].held());
        }
    }
}
