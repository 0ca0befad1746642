//! The serde types that only a [`super::Document`] can fill: a value with its place, and a list that is read to its end.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use crate::diagnostic::Span;

/// The name by which the reader knows that a place is wanted.
pub(super) const SPANNED: &str = "$portolan::Spanned";

/// A value and where it stands, so that a later check can point at it.
///
/// Only [`super::Document::read`] fills it, and not below `#[serde(flatten)]` or in an untagged enum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub span: Span,
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Spanned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
            type Value = Spanned<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value of a document")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Spanned<T>, A::Error> {
                let missing = || A::Error::custom("a place can only be read from a document");
                let value = parts.next_element()?.ok_or_else(missing)?;
                let mut number = || parts.next_element()?.ok_or_else(missing);
                Ok(Spanned { value, span: Span { line: number()?, column: number()?, length: number()? } })
            }
        }

        deserializer.deserialize_struct(SPANNED, &["value", "line", "column", "length"], Parts(PhantomData))
    }
}

/// A list of which every item is read, so that a bad item does not hide the mistakes of the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> IntoIterator for List<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Every<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Every<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<List<T>, A::Error> {
                let mut list = Vec::new();
                loop {
                    match items.next_element() {
                        Ok(Some(item)) => list.push(item),
                        Ok(None) => return Ok(List(list)),
                        Err(error) => {
                            // The rest is read for its mistakes alone. Other formats may repeat an error for ever.
                            for _ in 0..items.size_hint().unwrap_or(0) {
                                let _ = items.next_element::<T>();
                            }
                            return Err(error);
                        }
                    }
                }
            }
        }

        deserializer.deserialize_seq(Every(PhantomData))
    }
}
