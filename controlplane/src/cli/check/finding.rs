//! What a check found: one line each, with its mend.

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// It holds.
    Good,
    /// It does not hold, or could not be looked at, and portolan works without.
    Warning,
    /// Portolan does not work as long as this is so.
    Bad,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) mark: Mark,
    /// What was looked at.
    pub(super) what: &'static str,
    /// What was seen.
    pub(super) seen: String,
    /// What to do about it.
    pub(super) mend: Option<String>,
}

impl Finding {
    pub(super) fn good(what: &'static str, seen: impl Into<String>) -> Self {
        Self { mark: Mark::Good, what, seen: seen.into(), mend: None }
    }

    pub(super) fn warning(what: &'static str, seen: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { mark: Mark::Warning, what, seen: seen.into(), mend: Some(mend.into()) }
    }

    pub(super) fn bad(what: &'static str, seen: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { mark: Mark::Bad, what, seen: seen.into(), mend: Some(mend.into()) }
    }
}

/// The findings as lines, and a closing line.
pub(super) fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { mark, what, seen, mend } in findings {
        let sign = match mark {
            Mark::Good => '✓',
            Mark::Warning => '!',
            Mark::Bad => '✗',
        };
        // One line a check, whatever an error says.
        let seen = seen.split_whitespace().collect::<Vec<_>>().join(" ");
        let mend = mend.as_ref().map_or(String::new(), |mend| format!(" → {mend}"));
        text.push_str(&format!("{sign} {what:<width$}  {seen}{mend}\n"));
    }
    let count = |mark| findings.iter().filter(|finding| finding.mark == mark).count();
    text.push_str(&format!(
        "{} good, {} to look at, {} to mend\n",
        count(Mark::Good),
        count(Mark::Warning),
        count(Mark::Bad)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_check_with_its_mend() {
        let findings = [
            Finding::good("API server", "Kubernetes 1.37.2"),
            Finding::warning("zones", "n1 has no zone", "kubectl label node n1 topology.kubernetes.io/zone=ZONE"),
            Finding::bad("CRDs", "none\n  is there", "helm upgrade"),
        ];
        assert_eq!(
            text(&findings),
            "✓ API server  Kubernetes 1.37.2\n\
             ! zones       n1 has no zone → kubectl label node n1 topology.kubernetes.io/zone=ZONE\n\
             ✗ CRDs        none is there → helm upgrade\n\
             1 good, 1 to look at, 1 to mend\n"
        );
    }
}
