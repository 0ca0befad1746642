//! Documents that people write, YAML or JSON, read into serde types with a place for every value.
//!
//! Hostile text (endless aliases, deep nesting, sheer size) is refused, never a panic. What is wrong comes back as
//! [`Diagnostics`]: a type's structure is checked here, and what it means is checked by whoever owns the type, who adds
//! to the same [`Report`].
//!
//! ```
//! use portolan_topology::document::{self, Fields, Spanned};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(rename_all = "camelCase")]
//! struct Harbour {
//!     name: Spanned<String>,
//!     #[serde(default)]
//!     depth_metres: u32,
//! }
//!
//! let text = "name: Palma\ndepthMeters: 12\n";
//! let documents = document::parse("harbour.yaml", text).unwrap();
//! let mut report = documents[0].report();
//! if let Some(harbour) = documents[0].read_into::<Harbour>(Fields::Known, &mut report) {
//!     if harbour.name.len() < 6 {
//!         report.error(harbour.name.span, format!("`{}` is too short", *harbour.name)).expected("six letters");
//!     }
//! }
//! let refused = report.finish().unwrap_err();
//! assert_eq!(
//!     refused.to_string(),
//!     "harbour.yaml:1:7: `Palma` is too short; expected six letters
//!   1 | name: Palma
//!     |       ^^^^^
//! harbour.yaml:2:1: unknown field `depthMeters`; expected `name` or `depthMetres`; did you mean `depthMetres`?
//!   2 | depthMeters: 12
//!     | ^^^^^^^^^^^"
//! );
//! ```

mod de;
mod node;
mod spanned;

use std::cell::RefCell;

use serde::de::DeserializeOwned;
use serde_saphyr::{MessageFormatter, UserMessageFormatter};

pub use self::spanned::{List, Spanned};
use crate::diagnostic::{Diagnostics, Report, Source, Span};

use self::de::{NodeReader, Reading};
use self::node::{Node, Value};

/// The longest text that is read: 32 MiB.
pub const MAX_BYTES: usize = 32 << 20;

/// What to do with fields that the type does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fields {
    /// Each is a mistake: for our own objects.
    Known,
    /// They are ignored, and a field that is `null` counts as absent: for Kubernetes' objects, as `kubectl` prints them.
    Any,
}

/// One document of a file, or one item of a `List`.
#[derive(Debug, Clone)]
pub struct Document {
    source: Source,
    root: Node,
}

/// Parses all documents of a text. Empty ones are left out.
pub fn parse(file: &str, text: &str) -> Result<Vec<Document>, Diagnostics> {
    let source = Source::new(file, text);
    if text.len() > MAX_BYTES {
        return Err(source.refuse(Span::default(), format!("the file is larger than {} MiB", MAX_BYTES >> 20)));
    }
    let options = serde_saphyr::options! {
        with_snippet: false,
        // `no` is a country to people who write YAML 1.2, and to Kubernetes' printer a text in quotes.
        strict_booleans: true,
        // An anchor may be used often, but what its copies add up to stays small.
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
        budget: serde_saphyr::budget! {
            // The parser recurses, in a debug build with 40 KB a level, and a thread's stack may be 2 MB.
            max_depth: 24,
            max_documents: 100_000,
            max_events: 8_000_000,
            max_nodes: 4_000_000,
        },
    };
    let roots: Vec<Node> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let span = error.location().map(node::span_of).unwrap_or_default();
        source.refuse(span, UserMessageFormatter.format_message(error.without_snippet()))
    })?;
    Ok(roots.into_iter().map(|root| Document { source: source.clone(), root }).collect())
}

/// Reads a text that holds exactly one document.
pub fn read_one<T: DeserializeOwned>(file: &str, text: &str, fields: Fields) -> Result<T, Diagnostics> {
    parse_one(file, text)?.read(fields)
}

/// Parses a text that holds exactly one document.
pub fn parse_one(file: &str, text: &str) -> Result<Document, Diagnostics> {
    let mut documents = parse(file, text)?.into_iter();
    match (documents.next(), documents.next()) {
        (Some(document), None) => Ok(document),
        (None, _) => Err(Source::new(file, text).refuse(Span::default(), "the file is empty; expected one document")),
        (Some(_), Some(second)) => {
            Err(second.source.refuse(second.root.span, "a second document; expected only one in this file"))
        }
    }
}

impl Document {
    /// Where it begins.
    #[must_use]
    pub fn span(&self) -> Span {
        self.root.span
    }

    /// Refuses it as a whole.
    pub fn refuse(&self, message: impl Into<String>) -> Diagnostics {
        self.source.refuse(self.root.span, message)
    }

    /// A report for checks of this document.
    #[must_use]
    pub fn report(&self) -> Report {
        Report::new(self.source.clone())
    }

    /// The text at a path of fields, and its place: `document.text_at(&["metadata", "name"])`.
    #[must_use]
    pub fn text_at(&self, path: &[&str]) -> Option<Spanned<&str>> {
        let node = path.iter().try_fold(&self.root, |node, key| node.get(key))?;
        Some(Spanned { value: node.text()?, span: node.span })
    }

    /// Its `kind`.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.text_at(&["kind"]).map(|kind| kind.value)
    }

    /// Reads it, without further checks.
    pub fn read<T: DeserializeOwned>(&self, fields: Fields) -> Result<T, Diagnostics> {
        let mut report = self.report();
        let value = self.read_into(fields, &mut report);
        report.finish()?;
        value.ok_or_else(|| self.refuse("the document could not be read"))
    }

    /// Reads it for further checks: mistakes go to `report`. There is a value only if the structure is right; even so
    /// the report may hold mistakes (unknown fields), so that it must be finished before the value is used.
    pub fn read_into<T: DeserializeOwned>(&self, fields: Fields, report: &mut Report) -> Option<T> {
        let shared = RefCell::new(std::mem::replace(report, self.report()));
        let reading = Reading { fields, report: &shared };
        let result = T::deserialize(NodeReader { node: &self.root, reading: &reading });
        *report = shared.into_inner();
        result.map_err(|mistake| mistake.tell(report)).ok()
    }

    /// The items of a Kubernetes `List` (or `ServiceList` and the like), each a document; anything else is itself.
    #[must_use]
    pub fn items(self) -> Vec<Self> {
        let is_list = self.kind().is_some_and(|kind| kind.ends_with("List"));
        match self.root.value {
            Value::Mapping(entries) if is_list => {
                let items = entries.into_iter().find(|(key, _)| key.name() == "items").map(|(_, node)| node.value);
                let Some(Value::List(items)) = items else { return Vec::new() };
                items.into_iter().map(|root| Self { source: self.source.clone(), root }).collect()
            }
            value => vec![Self { root: Node { value, span: self.root.span }, source: self.source }],
        }
    }
}

#[cfg(test)]
mod tests;
