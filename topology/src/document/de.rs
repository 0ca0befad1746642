//! Reads serde types from a [`Node`]: every error has a place, unknown fields are all found, and a bad list item does
//! not hide what is wrong with the next one.

use std::cell::RefCell;
use std::fmt::{self, Display};

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};

use super::Fields;
use super::node::{Key, Node, Value};
use super::spanned::SPANNED;
use crate::diagnostic::{Report, Span, nearest, one_of};

/// What is wrong, and where as soon as that is known.
#[derive(Debug)]
pub(super) struct Mistake {
    span: Option<Span>,
    field: Option<String>,
    message: String,
    expected: Option<String>,
    suggestion: Option<String>,
    /// Already in the report: it only ends the reading.
    told: bool,
}

impl Mistake {
    fn new(message: impl Display) -> Self {
        let message = message.to_string();
        Self { span: None, field: None, message, expected: None, suggestion: None, told: false }
    }

    /// The innermost place wins: it is set first.
    fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }

    fn in_field(mut self, key: &Key) -> Self {
        if self.field.is_none() {
            self.field = Some(key.name().to_owned());
        }
        self
    }

    pub(super) fn tell(self, report: &mut Report) {
        if self.told {
            return;
        }
        let message = match self.field {
            Some(field) => format!("`{field}`: {}", self.message),
            None => self.message,
        };
        let diagnostic = report.error(self.span.unwrap_or_default(), message);
        diagnostic.expected = self.expected;
        diagnostic.suggestion = self.suggestion;
    }
}

impl Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Mistake {}

impl de::Error for Mistake {
    fn custom<T: Display>(message: T) -> Self {
        Self::new(message)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self { expected: Some(expected.to_string()), ..Self::new(format!("found {found}")) }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self {
            expected: Some(one_of(expected.iter().copied())),
            suggestion: nearest(variant, expected.iter().copied()).map(str::to_owned),
            ..Self::new(format!("unknown value `{variant}`"))
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the field `{field}` is missing"))
    }
}

/// What is shared while one document is read.
pub(super) struct Reading<'a> {
    pub(super) fields: Fields,
    pub(super) report: &'a RefCell<Report>,
}

impl Reading<'_> {
    fn tell(&self, mistake: Mistake) {
        mistake.tell(&mut self.report.borrow_mut());
    }
}

/// Reads one node.
#[derive(Clone, Copy)]
pub(super) struct NodeReader<'a> {
    pub(super) node: &'a Node,
    pub(super) reading: &'a Reading<'a>,
}

impl<'a> NodeReader<'a> {
    fn of(self, node: &'a Node) -> Self {
        Self { node, ..self }
    }

    fn wrong(&self, expected: impl Into<String>) -> Mistake {
        let mistake = Mistake::new(format!("found {}", self.node.value.found()));
        Mistake { expected: Some(expected.into()), ..mistake }.at(self.node.span)
    }

    fn text(&self, expected: &str) -> Result<&'a str, Mistake> {
        self.node.text().ok_or_else(|| match self.node.value {
            Value::Bool(_) | Value::Signed(_) | Value::Unsigned(_) | Value::Float(_) => {
                self.wrong(format!("{expected}: put it in quotes"))
            }
            _ => self.wrong(expected),
        })
    }

    fn entries(&self, expected: impl FnOnce() -> String) -> Result<&'a [(Key, Node)], Mistake> {
        match &self.node.value {
            Value::Mapping(entries) => Ok(entries),
            _ => Err(self.wrong(expected())),
        }
    }

    fn integer(&self, least: i64, most: u64) -> Result<Integer, Mistake> {
        match self.node.value {
            Value::Unsigned(value) if value <= most => Ok(Integer::Unsigned(value)),
            Value::Signed(value) if value >= least => Ok(Integer::Signed(value)),
            _ => Err(self.wrong(format!("a whole number from {least} to {most}"))),
        }
    }
}

enum Integer {
    Signed(i64),
    Unsigned(u64),
}

macro_rules! integers {
    ($($method:ident $type:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
            #[allow(clippy::unnecessary_cast, clippy::cast_lossless, reason = "one macro for every number: some casts do nothing")]
            match self.integer(<$type>::MIN as i64, <$type>::MAX as u64)? {
                Integer::Signed(value) => visitor.visit_i64(value),
                Integer::Unsigned(value) => visitor.visit_u64(value),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for NodeReader<'_> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_str(value),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Mapping(_) => self.deserialize_map(visitor),
        }
        .map_err(|mistake: Mistake| mistake.at(self.node.span))
    }

    integers! {
        deserialize_i8 i8, deserialize_i16 i16, deserialize_i32 i32, deserialize_i64 i64,
        deserialize_u8 u8, deserialize_u16 u16, deserialize_u32 u32, deserialize_u64 u64,
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.node.value {
            Value::Bool(value) => visitor.visit_bool(value),
            _ => Err(self.wrong("`true` or `false`")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.node.value {
            Value::Float(value) => visitor.visit_f64(value),
            Value::Signed(value) => visitor.visit_i64(value),
            Value::Unsigned(value) => visitor.visit_u64(value),
            _ => Err(self.wrong("a number")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_str(self.text("text")?).map_err(|mistake: Mistake| mistake.at(self.node.span))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self).map_err(|mistake| mistake.at(self.node.span))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.value {
            Value::List(items) => visitor.visit_seq(Items { reader: self, items: items.iter() }),
            _ => Err(self.wrong("a list")),
        }
        .map_err(|mistake: Mistake| mistake.at(self.node.span))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.value {
            // A tuple without one of its items would be a second, misleading mistake.
            Value::List(items) if items.len() == length => {
                visitor.visit_seq(Items { reader: self, items: items.iter() })
            }
            Value::List(items) => {
                let found = Mistake::new(format!("found a list of {}", items.len()));
                Err(Mistake { expected: Some(format!("a list of {length}")), ..found })
            }
            _ => Err(self.wrong(format!("a list of {length}"))),
        }
        .map_err(|mistake: Mistake| mistake.at(self.node.span))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        let entries = self.entries(|| "a mapping".to_owned())?;
        visitor
            .visit_map(Entries { reader: self, entries: entries.iter(), known: None, value: None })
            .map_err(|mistake| mistake.at(self.node.span))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        if name == SPANNED {
            let Span { line, column, length } = self.node.span;
            return visitor.visit_seq(SpannedParts { value: Some(self), place: [line, column, length].into_iter() });
        }
        let entries = self.entries(|| format!("a mapping with the fields {}", one_of(known.iter().copied())))?;
        if self.reading.fields == Fields::Known {
            for (key, _) in entries.iter().filter(|(key, _)| !known.contains(&key.name())) {
                let unknown = Mistake::new(format!("unknown field `{}`", key.name()));
                let expected = Some(one_of(known.iter().copied()));
                let suggestion = nearest(key.name(), known.iter().copied()).map(str::to_owned);
                self.reading.tell(Mistake { expected, suggestion, ..unknown }.at(key.span()));
            }
        }
        visitor
            .visit_map(Entries { reader: self, entries: entries.iter(), known: Some(known), value: None })
            .map_err(|mistake| mistake.at(self.node.span))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_enum(StrDeserializer::new(text)),
            Value::Mapping(entries) if let [(key, value)] = entries.as_slice() => {
                visitor.visit_enum(Variant { key, content: self.of(value) })
            }
            _ => Err(self.wrong(one_of(variants.iter().copied()))),
        }
        .map_err(|mistake: Mistake| mistake.at(self.node.span))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i128 u128 bytes byte_buf unit unit_struct tuple_struct
    }
}

struct Items<'a> {
    reader: NodeReader<'a>,
    items: std::slice::Iter<'a, Node>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Mistake;

    /// After a bad item the next one can still be asked for; [`super::List`] does, to find every mistake.
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mistake> {
        let Some(item) = self.items.next() else { return Ok(None) };
        seed.deserialize(self.reader.of(item)).map(Some).map_err(|mistake| {
            self.reader.reading.tell(mistake.at(item.span));
            Mistake { told: true, ..Mistake::new("a bad list item") }
        })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries<'a> {
    reader: NodeReader<'a>,
    entries: std::slice::Iter<'a, (Key, Node)>,
    /// The fields of the struct that is read; others were dealt with before.
    known: Option<&'static [&'static str]>,
    value: Option<(&'a Key, &'a Node)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Mistake;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mistake> {
        let lenient = self.reader.reading.fields == Fields::Any;
        for (key, value) in self.entries.by_ref() {
            let skipped = self.known.is_some_and(|known| {
                // Kubernetes prints an empty list as `null`: there it means that the field is absent.
                !known.contains(&key.name()) || (lenient && value.value == Value::Null)
            });
            if !skipped {
                self.value = Some((key, value));
                return seed.deserialize(self.reader.of(&key.0)).map(Some).map_err(|mistake| mistake.at(key.span()));
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Mistake> {
        let (key, value) = self.value.take().ok_or_else(|| Mistake::new("a value was read before its key"))?;
        seed.deserialize(self.reader.of(value)).map_err(|mistake| match mistake.span {
            // A mistake further inside has a field of its own.
            Some(span) if span != value.span => mistake,
            _ => mistake.at(value.span).in_field(key),
        })
    }
}

struct Variant<'a> {
    key: &'a Key,
    content: NodeReader<'a>,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Mistake;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Mistake> {
        let key_reader: StrDeserializer<'_, Mistake> = self.key.name().into_deserializer();
        let variant = seed.deserialize(key_reader).map_err(|mistake| mistake.at(self.key.span()))?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Mistake;

    fn unit_variant(self) -> Result<(), Mistake> {
        match self.content.node.value {
            Value::Null => Ok(()),
            _ => Err(self.content.wrong("nothing")),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Mistake> {
        seed.deserialize(self.content).map_err(|mistake| mistake.at(self.content.node.span).in_field(self.key))
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Mistake> {
        self.content.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Mistake> {
        self.content.deserialize_struct("", fields, visitor)
    }
}

/// The parts of a [`super::Spanned`], in the order in which it reads them.
struct SpannedParts<'a> {
    value: Option<NodeReader<'a>>,
    place: std::array::IntoIter<u32, 3>,
}

impl<'de> SeqAccess<'de> for SpannedParts<'_> {
    type Error = Mistake;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mistake> {
        if let Some(value) = self.value.take() {
            return seed.deserialize(value).map(Some);
        }
        match self.place.next() {
            Some(part) => seed.deserialize(part.into_deserializer()).map(Some),
            None => Ok(None),
        }
    }
}
