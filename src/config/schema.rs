//! The published JSON Schema (draft 2020-12), and the one that files are checked against: the same.

use std::sync::LazyLock;

use schemars::Schema;
use schemars::transform::transform_subschemas;
use serde_json::{Map, Value};

use super::raw::Config;

static SCHEMA: LazyLock<Value> = LazyLock::new(generate);

/// The JSON Schema of `supervisor_config.json`.
pub fn schema() -> Value {
    SCHEMA.clone()
}

/// The same, borrowed.
pub(super) fn shared() -> &'static Value {
    &SCHEMA
}

fn generate() -> Value {
    let mut schema = schemars::schema_for!(Config);
    plain(&mut schema);
    schema.insert("title".into(), "supervisor_config.json".into());
    Value::from(schema)
}

/// An absent key is not written as `null` in the file: takes `null` out of types and defaults, and the names of Rust's
/// number types with it.
fn plain(schema: &mut Schema) {
    transform_subschemas(&mut plain, schema);
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("format");
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|t| t != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(branches)) = object.get_mut("anyOf") {
        branches.retain(|b| b.get("type").is_none_or(|t| t != "null"));
        if let [Value::Object(only)] = branches.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            object.extend(only);
        }
    }
    match object.get_mut("default") {
        Some(Value::Null) => {
            object.remove("default");
        }
        Some(default) => as_written(default),
        None => {}
    }
}

/// A default as a person would write it.
fn as_written(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, v| !v.is_null());
            object.values_mut().for_each(as_written);
        }
        Value::Number(n) if n.is_f64() => *value = super::effective::number(n.as_f64().unwrap_or_default()),
        _ => {}
    }
}

/// Follows a `$ref` of this schema.
pub(super) fn resolve<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let target = |r: &Value| root.get("$defs")?.get(r.as_str()?.strip_prefix("#/$defs/")?);
    schema.get("$ref").and_then(target).unwrap_or(schema)
}

/// The properties that an object schema names.
pub(super) fn properties<'s>(root: &'s Value, schema: &'s Value) -> Option<&'s Map<String, Value>> {
    resolve(root, schema).get("properties")?.as_object()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything in the schema that is a schema itself.
    fn each(schema: &Value, see: &mut impl FnMut(&Value)) {
        see(schema);
        for (key, inner) in schema.as_object().into_iter().flatten() {
            match key.as_str() {
                "properties" | "$defs" => inner.as_object().unwrap().values().for_each(|s| each(s, see)),
                "items" | "additionalProperties" | "propertyNames" => each(inner, see),
                "anyOf" | "oneOf" => inner.as_array().unwrap().iter().for_each(|s| each(s, see)),
                _ => {}
            }
        }
    }

    #[test]
    fn the_walker_knows_every_word_of_the_schema() {
        let known = [
            "$schema",
            "$defs",
            "$ref",
            "title",
            "description",
            "default",
            "examples",
            "required",
            "allOf",
            "type",
            "properties",
            "additionalProperties",
            "propertyNames",
            "items",
            "enum",
            "const",
            "anyOf",
            "oneOf",
            "pattern",
            "minimum",
            "maximum",
            "minLength",
            "maxLength",
            "minItems",
            "uniqueItems",
        ];
        each(shared(), &mut |schema| {
            for (key, value) in schema.as_object().into_iter().flatten() {
                assert!(known.contains(&key.as_str()), "{key}: {value}");
                if key == "pattern" {
                    assert!(super::super::scalar::rule(value.as_str().unwrap()).is_some(), "{value}");
                }
                if key == "type" {
                    assert!(value.is_string() && value != "null", "{schema}");
                }
            }
        });
    }

    #[test]
    fn every_field_tells_editors_what_it_is_and_its_default() {
        let mut fields = 0;
        each(shared(), &mut |schema| {
            for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                if !field.is_boolean() {
                    fields += 1;
                    assert!(field.get("description").is_some(), "{name}");
                }
            }
        });
        assert!(fields > 60, "{fields}");
        let check = &shared()["$defs"]["HealthCheck"]["properties"];
        assert_eq!(check["interval"]["default"], 30);
        assert_eq!(check["failure_threshold"]["maximum"], 1000);
        let service = &shared()["$defs"]["Service"]["properties"];
        assert_eq!(service["priority"]["default"], 100);
        assert_eq!(service["restart_policy"]["default"]["retry_delay"], 10);
        assert_eq!(service["restart_policy"]["default"].get("max_backoff"), None);
    }
}
