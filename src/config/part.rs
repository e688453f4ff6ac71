//! Reads the parts of a checked file into their types, past what the check found wrong.

use std::collections::HashSet;

use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::json::{Node, Value};

/// Nodes of one file that are wrong, by their place in the text.
pub(super) type Bad = HashSet<usize>;

/// The part as its type. The schema that it was checked against came from this type, so that it fits.
pub(super) fn read<T: DeserializeOwned>(node: &Node, bad: &Bad) -> Result<T, Error> {
    T::deserialize(Part { node, bad })
}

#[derive(Clone, Copy)]
struct Part<'n> {
    node: &'n Node,
    bad: &'n Bad,
}

impl<'n> IntoDeserializer<'n, Error> for Part<'n> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Part<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let good = |node: &&Node| !self.bad.contains(&node.start);
        let part = |node| Part { node, bad: self.bad };
        match &self.node.value {
            Value::Null | Value::Broken => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(list) => visitor.visit_seq(SeqDeserializer::new(list.iter().filter(good).map(part))),
            Value::Object(members) => {
                let members = members.iter().filter(|m| good(&&m.value));
                visitor.visit_map(MapDeserializer::new(members.map(|m| (m.key.as_str(), part(&m.value)))))
            }
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(whole), ..) => visitor.visit_i64(whole),
                (_, Some(whole), _) => visitor.visit_u64(whole),
                // 5.0 is an integer to JSON Schema, but not to serde.
                #[expect(clippy::cast_possible_truncation, reason = "whole and exact up to 2^53")]
                (.., Some(float)) if float.fract() == 0.0 && float.abs() < 9e15 => {
                    visitor.visit_i64(float as i64)
                }
                (.., float) => visitor.visit_f64(float.unwrap_or_default()),
            },
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => Err(serde::de::Error::custom("not a word")),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}
