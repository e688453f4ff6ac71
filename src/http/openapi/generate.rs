//! Makes `openapi.json`: schemas from the types that are sent and read, examples from the answers of a router with a
//! made-up loop behind it. `make golden` writes it anew; else a difference is a failure.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::Request;
use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use super::operations::describe;
use crate::core::plan::Id;
use crate::golden::golden;
use crate::http::dto::ProblemDocument;
use crate::http::tests::world;

const BASE: &str = "/api/supervisor";
const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
/// What every route may answer: over TCP who asks is checked first, and a daemon may be on its way down.
const ALWAYS: [u16; 5] = [400, 401, 403, 429, 503];

/// A request, to have its answer as an example.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    method: &'static str,
    path: String,
    body: Option<Value>,
}

impl Asked {
    pub(super) fn post(path: &str) -> Self {
        Self { method: "post", path: format!("{BASE}{path}"), body: None }
    }
}

struct Operation {
    path: String,
    method: &'static str,
    text: Map<String, Value>,
    /// By status that is expected.
    examples: Vec<(Option<u16>, Asked)>,
}

/// The document while it is made.
pub(super) struct Api {
    read: SchemaGenerator,
    written: SchemaGenerator,
    operations: Vec<Operation>,
}

impl Api {
    fn new() -> Self {
        let settings = || {
            let mut settings = SchemaSettings::draft2020_12();
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
            settings
        };
        Self {
            read: settings().for_deserialize().into_generator(),
            written: settings().for_serialize().into_generator(),
            operations: Vec::new(),
        }
    }

    pub(super) fn get(&mut self, path: &str, summary: &str) -> Description<'_> {
        self.route("get", &format!("{BASE}{path}"), summary)
    }

    pub(super) fn post(&mut self, path: &str, summary: &str) -> Description<'_> {
        self.route("post", &format!("{BASE}{path}"), summary)
    }

    /// Begins an operation. `summary` is a sentence.
    pub(super) fn route(&mut self, method: &'static str, path: &str, summary: &str) -> Description<'_> {
        let words = path.trim_start_matches(BASE).replace(['/', '{', '}', '.'], " ");
        let id: Vec<&str> = std::iter::once(method).chain(words.split_whitespace()).collect();
        let id_schema = json!({"type": "string", "pattern": Id::PATTERN});
        let number = json!({"type": "integer", "minimum": 1, "format": "int64"});
        let parameters: Vec<Value> = [("id", id_schema), ("number", number)]
            .into_iter()
            .filter(|(name, _)| path.contains(&format!("{{{name}}}")))
            .map(|(name, schema)| json!({"name": name, "in": "path", "required": true, "schema": schema}))
            .collect();
        let text = json!({
            "operationId": id.join("_"), "summary": summary, "parameters": parameters, "responses": {},
        });
        let Value::Object(text) = text else { unreachable!() };
        self.operations.push(Operation { path: path.into(), method, text, examples: Vec::new() });
        let mut description = Description { api: self };
        description.errors(&ALWAYS);
        description
    }

    /// The schema of what is read.
    pub(super) fn reads<T: JsonSchema>(&mut self) -> Value {
        self.read.subschema_for::<T>().to_value()
    }

    fn document(mut self) -> Value {
        let mut schemas = self.read.take_definitions(true);
        schemas.extend(self.written.take_definitions(true));
        let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for operation in self.operations {
            paths.entry(operation.path).or_default().insert(operation.method.into(), operation.text.into());
        }
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Process Supervisor",
                "version": env!("CARGO_PKG_VERSION"),
                "license": {"name": "MIT", "identifier": "MIT"},
                "description": "Services as systemd units: what they are, why, and orders to them. Times are RFC 3339 \
                    in UTC. Every error is a problem document (RFC 9457) whose `detail` says what to do. Over the Unix \
                    socket the file's mode is the permission; over TCP a bearer token is needed.",
            },
            "servers": [{"url": "http://127.0.0.1:9001"}],
            "security": [{"token": []}, {}],
            "paths": paths,
            "components": {
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
                "schemas": schemas,
            },
        })
    }
}

/// The operation that was begun last, to which more is said.
pub(super) struct Description<'a> {
    api: &'a mut Api,
}

impl Description<'_> {
    fn operation(&mut self) -> &mut Operation {
        self.api.operations.last_mut().unwrap()
    }

    fn parameter(&mut self, parameter: Value) {
        self.operation().text["parameters"].as_array_mut().unwrap().push(parameter);
    }

    /// Each field of `T` is a parameter of the query.
    pub(super) fn query<T: JsonSchema>(&mut self) -> &mut Self {
        let schema = self.api.read.root_schema_for::<T>().to_value();
        for (name, schema) in schema["properties"].as_object().unwrap() {
            let mut parameter = json!({"name": name, "in": "query", "required": false, "schema": schema});
            // A parameter that is there has a value.
            let schema = parameter["schema"].as_object_mut().unwrap();
            let description = schema.remove("description");
            if let Some(Value::Array(kinds)) = schema.get("type").cloned() {
                schema.insert("type".into(), kinds[0].clone());
            }
            if let Some(Value::Array(choices)) = schema.remove("anyOf") {
                schema.extend(choices[0].as_object().unwrap().clone());
            }
            if schema.get("default").is_some_and(Value::is_null) {
                schema.remove("default");
            }
            parameter["description"] = description.unwrap();
            self.parameter(parameter);
        }
        self
    }

    pub(super) fn last_event_id(&mut self, what: &str) -> &mut Self {
        self.parameter(json!({
            "name": "Last-Event-ID", "in": "header", "required": false, "schema": {"type": "string"}, "description": what,
        }));
        self
    }

    /// What is sent, as JSON.
    pub(super) fn body<T: JsonSchema>(&mut self, example: Value) -> &mut Self {
        self.raw_body(|api| api.reads::<T>(), example)
    }

    /// The same with a schema of its own.
    pub(super) fn raw_body(&mut self, schema: impl Fn(&mut Api) -> Value, example: Value) -> &mut Self {
        let schema = schema(self.api);
        let content = json!({JSON: {"schema": schema, "example": example}});
        self.operation().text.insert("requestBody".into(), json!({"required": true, "content": content}));
        self.errors(&[408, 413, 415])
    }

    /// A good answer of type `T`.
    pub(super) fn answers<T: JsonSchema>(&mut self, status: u16, what: &str) -> &mut Self {
        let schema = self.api.written.subschema_for::<T>().to_value();
        self.answers_with(status, JSON, schema);
        self.operation().text["responses"][status.to_string()]["description"] = what.into();
        self
    }

    /// A good answer of another kind.
    pub(super) fn answers_with(&mut self, status: u16, kind: &str, schema: Value) -> &mut Self {
        let responses = self.operation().text["responses"].as_object_mut().unwrap();
        let response = responses.entry(status.to_string());
        let response = response.or_insert_with(|| json!({"description": "It is so.", "content": {}}));
        response["content"][kind] = json!({"schema": schema});
        self
    }

    /// More about it.
    pub(super) fn says(&mut self, what: &str) -> &mut Self {
        self.operation().text.insert("description".into(), what.into());
        self
    }

    /// A type of which it sends values in another format.
    pub(super) fn also<T: JsonSchema>(&mut self) -> &mut Self {
        self.api.written.subschema_for::<T>();
        self
    }

    /// Nothing changed since the `ETag` that was sent.
    pub(super) fn conditional(&mut self) -> &mut Self {
        self.parameter(json!({
            "name": "If-None-Match", "in": "header", "required": false, "schema": {"type": "string"},
            "description": "The ETag of an earlier answer.",
        }));
        self.operation().text["responses"]["304"] = json!({"description": "It is as it was."});
        self
    }

    /// Errors, each a problem document.
    pub(super) fn errors(&mut self, statuses: &[u16]) -> &mut Self {
        let schema = self.api.written.subschema_for::<ProblemDocument>().to_value();
        for status in statuses {
            let responses = self.operation().text["responses"].as_object_mut().unwrap();
            let response = responses.entry(status.to_string());
            let response =
                response.or_insert_with(|| json!({"description": meaning(*status), "content": {}}));
            response["content"][PROBLEM] = json!({"schema": schema});
        }
        self
    }

    /// The example of its good answer.
    pub(super) fn asked(&mut self, path: &str) -> &mut Self {
        let operation = self.operation();
        let body = operation.text.get("requestBody").map(|body| body["content"][JSON]["example"].clone());
        let asked = Asked { method: operation.method, path: format!("{BASE}{path}"), body };
        operation.examples.push((None, asked));
        self
    }

    /// The example of another one.
    pub(super) fn asked_for(&mut self, status: u16, asked: Asked) -> &mut Self {
        self.operation().examples.push((Some(status), asked));
        self
    }
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The path, query, body or a header cannot be understood.",
        401 => "A token is needed, or the one that was sent is not known.",
        403 => "The token, host name or origin does not permit it, or the journal may not be read.",
        404 => "There is no such service, group or alert.",
        408 => "The body did not arrive in time.",
        409 => "It cannot be done now, or did not come to it; the answer says why.",
        413 => "The body is too large.",
        415 => "The body is not JSON.",
        422 => "The content is wrong; nothing was changed or stored.",
        429 => "Too many wrong tokens from this address.",
        500 => "It could not be done; the answer says why.",
        503 => "The supervisor is ending, has too many clients, or cannot read its database or the journal.",
        other => panic!("no words for {other}"),
    }
}

/// An answer of a router of its own, so that none depends on those before it.
async fn answer(asked: &Asked) -> (u16, String, Value) {
    let method = asked.method.to_ascii_uppercase();
    let request = Request::builder().method(method.as_str()).uri(&asked.path);
    let request = match &asked.body {
        Some(body) => request.header("content-type", JSON).body(Body::from(body.to_string())),
        None => request.body(Body::empty()),
    };
    let response = world().router.oneshot(request.unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, kind, fixed(serde_json::from_slice(&body).unwrap()))
}

/// What is another one each time, in every object.
fn fixed(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                *field = match name.as_str() {
                    "uptime_seconds" if !field.is_null() => json!(3600),
                    "pid" if !field.is_null() => json!(1423),
                    "recent_events" | "recent_metrics" | "events" => json!([]),
                    _ => fixed(field.take()),
                };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = fixed(item.take())),
        _ => {}
    }
    value
}

/// Links between items are the documentation's, not the reader's.
fn plain_words(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace("[`", "`").replace("`]", "`").replace("Self::", ""),
        Value::Object(fields) => fields.values_mut().for_each(plain_words),
        Value::Array(items) => items.iter_mut().for_each(plain_words),
        _ => {}
    }
}

async fn generated() -> String {
    let mut api = Api::new();
    describe(&mut api);
    for operation in &mut api.operations {
        for (expected, asked) in operation.examples.clone() {
            let (status, kind, body) = answer(&asked).await;
            assert!(expected.is_none_or(|expected| expected == status), "{asked:?} answers {status}: {body}");
            let response = &mut operation.text["responses"][status.to_string()]["content"][&kind];
            assert!(response.is_object(), "{asked:?} answers {status} {kind}, which is not described");
            response["example"] = body;
        }
    }
    let mut document = api.document();
    plain_words(&mut document["components"]["schemas"]);
    format!("{document:#}\n")
}

#[tokio::test]
async fn the_document_is_that_of_this_code() {
    golden("src/http/openapi/openapi.json", &generated().await);
}

/// The router's own text, because a router does not tell its routes.
#[test]
fn every_route_is_described_and_every_description_is_a_route() {
    let mut api = Api::new();
    describe(&mut api);
    let described: std::collections::BTreeSet<String> =
        api.operations.iter().map(|operation| format!("{} {}", operation.method, operation.path)).collect();
    let (mut routed, mut prefix) = (std::collections::BTreeSet::new(), "");
    for line in include_str!("../mod.rs").lines() {
        prefix = match line.trim() {
            "let service = Router::new()" => "/api/supervisor/services/{id}",
            "let group = Router::new()" => "/api/supervisor/groups/{id}",
            "let api = Router::new()" => BASE,
            "Router::new()" => "",
            _ => prefix,
        };
        let Some((path, handler)) =
            line.trim().strip_prefix(".route(\"").and_then(|rest| rest.split_once("\", "))
        else {
            continue;
        };
        let method = handler.split('(').next().unwrap();
        routed.insert(format!("{method} {prefix}{}", path.trim_end_matches('/')));
    }
    assert!(routed.len() > 20, "{routed:?}");
    assert_eq!(described, routed);
}
