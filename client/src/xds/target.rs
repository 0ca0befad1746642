//! What a caller dials: `xds:///checkout.shop`, with a port's number or name behind a colon if the service has several.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A name to resolve over xDS: at once the Listener's name and the host that its virtual hosts are matched against.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(Arc<str>);

impl Target {
    /// The name, such as `checkout.shop:grpc`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "xds:///{}", self.0)
    }
}

/// Why a target cannot be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Another scheme, or none.
    #[error("`{0}` is not an xDS target; write `xds:///SERVICE.NAMESPACE`")]
    Scheme(String),
    /// `xds://authority/name`.
    #[error("`{0}` names an xdstp authority, which is not supported yet; write `xds:///SERVICE.NAMESPACE`")]
    Authority(String),
    /// Nothing behind the scheme.
    #[error("`{0}` names no service; write `xds:///SERVICE.NAMESPACE`")]
    Empty(String),
    /// A character that no name has, or a broken escape.
    #[error("`{0}` has a character that cannot stand in a name: {1:?}")]
    Character(String, char),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let rest = text.strip_prefix("xds:").ok_or_else(|| TargetError::Scheme(text.to_owned()))?;
        let path = match rest.strip_prefix("//") {
            None => rest,
            Some(rest) => match rest.strip_prefix('/') {
                Some(path) => path,
                None => return Err(TargetError::Authority(text.to_owned())),
            },
        };
        if path.is_empty() {
            return Err(TargetError::Empty(text.to_owned()));
        }
        // `%` as well: an escape would make two spellings of one name.
        match path.chars().find(|c| c.is_whitespace() || c.is_control() || "/?#%@".contains(*c)) {
            Some(c) => Err(TargetError::Character(text.to_owned(), c)),
            None => Ok(Self(path.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_name() {
        for (text, name) in [
            ("xds:///checkout.shop", "checkout.shop"),
            ("xds:checkout.shop", "checkout.shop"),
            ("xds:///checkout.shop:8080", "checkout.shop:8080"),
            ("xds:///checkout.shop.svc.clusterset.local:grpc", "checkout.shop.svc.clusterset.local:grpc"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().name(), name);
        }
        let target: Target = "xds:///checkout.shop".parse().unwrap();
        assert_eq!(target.to_string(), "xds:///checkout.shop");
    }

    #[test]
    fn anything_else_is_refused_with_its_mend() {
        for (text, problem) in [
            ("checkout.shop", "is not an xDS target"),
            ("dns:///checkout.shop", "is not an xDS target"),
            ("", "is not an xDS target"),
            ("xds://authority/checkout.shop", "not supported yet"),
            ("xds://", "not supported yet"),
            ("xds:///", "names no service"),
            ("xds:", "names no service"),
            ("xds:///a b", "' '"),
            ("xds:///a/b", "'/'"),
            ("xds:///a%20b", "'%'"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
