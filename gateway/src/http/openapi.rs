//! `/openapi.json`, made from the table of routes and the shapes of their bodies.

use super::{
    Answer, Call, ok,
    plane::Plane,
    routes::{ROUTES, Route},
};
use crate::gateway::VERSION;
use serde_json::{Map, Value, json};

/// The document.
pub async fn document(_: Call) -> Answer {
    Ok(ok(&describe()))
}

fn describe() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Holdfast", "version": VERSION, "license": { "name": "MIT OR Apache-2.0" } },
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": { "Problem": problem() },
        },
    })
}

fn operation(route: &Route) -> Value {
    let values = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<_> = values
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    let problem = json!({
        "description": "a problem that names its cause and the fix",
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    });
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "parameters": parameters,
        "responses": { "200": { "description": "done" }, "default": problem },
    });
    if let Some(body) = route.body {
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": body.schema() } } });
    }
    if route.plane != Plane::Client {
        operation["security"] = json!([{ "token": [] }]);
    }
    operation
}

fn operation_id(route: &Route) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let method = route.method.as_str().to_ascii_lowercase();
    std::iter::once(method.as_str()).chain(words).collect::<Vec<_>>().join("_")
}

fn problem() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "error", "code", "hint", "requestId"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "error": { "type": "string" },
            "code": { "type": "string" },
            "detail": { "type": "string" },
            "hint": { "type": "string" },
            "requestId": { "type": "string" },
            "errors": { "type": "array", "items": {
                "type": "object",
                "properties": { "pointer": { "type": "string" }, "detail": { "type": "string" } },
            } },
            "verdict": { "type": "object" },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_once() {
        let document = describe();
        let operations: usize =
            document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
        assert_eq!(operations, ROUTES.len());
        assert_eq!(
            document["paths"]["/sse/push"]["post"]["requestBody"]["content"]["application/json"]["schema"]["required"],
            json!(["user_id", "data"])
        );
    }
}
