//! `/openapi.json`: the API for programs, which has to be the API that there is.

use crate::{
    asking::{keys, texts},
    gateway::Gateway,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

async fn document(gateway: &Gateway) -> Value {
    let answer = gateway.get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
    answer.json()
}

/// Every path with its methods, in capitals.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    operations
}

/// What a schema says against a value, as far as the schemas here go.
fn objections(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(reference.strip_prefix('#').unwrap());
        return objections(document, target.unwrap_or_else(|| panic!("{reference} leads nowhere")), value, at);
    }
    let choices = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
    if let Some(choices) = choices {
        let all: Vec<_> = choices.iter().map(|choice| objections(document, choice, value, at)).collect();
        return if all.iter().any(Vec::is_empty) { Vec::new() } else { all.concat() };
    }
    let fits = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    };
    let kinds =
        schema["type"].as_str().map(|kind| vec![kind]).or(schema["type"].is_array().then(|| texts(&schema["type"])));
    if kinds.is_some_and(|kinds| !kinds.into_iter().any(fits)) {
        return vec![format!("{at} is no {}", schema["type"])];
    }
    let mut found = Vec::new();
    if let (Some(number), Some(max)) = (value.as_u64(), schema["maximum"].as_u64()) {
        found.extend((number > max).then(|| format!("{at} is above {max}")));
    }
    if let (Some(list), Some(max)) = (value.as_array(), schema["maxItems"].as_u64()) {
        found.extend((list.len() as u64 > max).then(|| format!("{at} has more than {max}")));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(objections(document, &schema["items"], item, &format!("{at}/{index}")));
    }
    if let Some(members) = value.as_object() {
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            found.extend((!members.contains_key(required)).then(|| format!("{at}/{required} is missing")));
        }
        for (name, member) in members {
            match &schema["properties"][name] {
                Value::Null if schema["additionalProperties"] == false => found.push(format!("{at}/{name} is unknown")),
                property => found.extend(objections(document, property, member, &format!("{at}/{name}"))),
            }
        }
    }
    found
}

/// The same paths as those that somebody is told who has lost the way.
#[tokio::test]
async fn it_names_the_paths_that_a_404_names() {
    let gateway = Gateway::start().await;
    let document = document(&gateway).await;
    let hint = gateway.get("/nowhere").await.refuses(404, "Not found")["hint"].as_str().unwrap().to_owned();
    let told: BTreeSet<_> = hint.split_whitespace().filter(|word| word.starts_with('/')).collect();
    assert_eq!(keys(&document["paths"]), told);
    for path in
        ["/ws", "/websocket", "/ws/{code}", "/connect", "/api/send", "/sse/push", "/api/debug/sockets", "/health"]
    {
        assert!(told.contains(path), "{path}");
    }
}

#[tokio::test]
async fn every_operation_that_it_names_is_there() {
    let gateway = Gateway::start().await;
    for (method, path, _) in operations(&document(&gateway).await) {
        let mut target = path.replace("{code}", "Ab3x9").replace(['{', '}'], "");
        if path == "/api/events" {
            // What it answers has no end, so what it refuses.
            target.push_str("?scope=none");
        }
        let answer = gateway.request(&method, &target).await;
        let lost = answer.status == 405 || answer.text().contains(r#""title":"Not found""#);
        assert!(!lost, "{method} {path}: {}", answer.text());
    }
}

#[tokio::test]
async fn every_operation_is_described() {
    let gateway = Gateway::start().await;
    let document = document(&gateway).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert_eq!(document["info"]["version"], gateway.get("/health").await.json()["version"]);
    let mut names = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let name = operation["operationId"].as_str().unwrap().to_owned();
        assert!(names.insert(name.clone()), "{name} stands there twice");
        assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{method} {path}");
        assert!(!keys(&operation["responses"]).is_empty(), "{method} {path}");
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let declared: BTreeSet<_> =
            parameters.filter(|one| one["in"] == "path").map(|one| one["name"].as_str().unwrap()).collect();
        let written: BTreeSet<_> = path.split(['{', '}']).skip(1).step_by(2).collect();
        assert_eq!(declared, written, "{method} {path}");
        let server = !path.starts_with("/health")
            && (path.starts_with("/api/s")
                || (path.starts_with("/sse") && path != "/sse/stream")
                || path == "/metrics");
        assert!(!server || operation["security"].is_array(), "{method} {path} wants a token");
    }
    let problem = gateway.get("/websocket").await.json();
    let schema = json!({ "$ref": "#/components/schemas/Problem" });
    assert_eq!(objections(&document, &schema, &problem, ""), [""; 0]);
}

/// Whatever the gateway takes fits the schema, and the schema says what it does not take.
#[tokio::test]
async fn the_schemas_take_what_the_gateway_takes() {
    let gateway = Gateway::start().await;
    let document = document(&gateway).await;
    let send = json!({ "userId": "u", "event": "e", "data": { "a": [1.5, null] }, "exceptSocketId": "ws_123", "timeoutMs": 5000 });
    let examples = [
        ("/api/send", json!({ "socketId": "ws_123", "data": 1 }), 404),
        ("/api/send", send.clone(), 200),
        ("/api/send", json!({ "storeId": "s" }), 200),
        ("/api/send", json!({ "roomId": "r", "data": null }), 200),
        ("/api/send", json!({ "all": true, "data": "x" }), 200),
        ("/api/send", json!({ "to": { "userId": "u" }, "data": 1, "durable": false }), 200),
        ("/api/send", json!({ "userId": 3 }), 422),
        ("/api/send", json!({ "userId": "u", "hello": "world" }), 422),
        ("/api/send", json!({ "userId": "u", "timeoutMs": 600_001 }), 422),
        ("/api/send", json!([]), 422),
        ("/api/call", json!({ "socketId": "ws_123", "event": "e", "data": [1], "fallback": "store" }), 404),
        ("/api/call", json!({ "to": { "userId": "u" }, "event": "e", "timeoutMs": 5 }), 404),
        ("/api/call", json!({ "socketId": "ws_123" }), 422),
        ("/api/sync/{kind}", json!({ "storeId": "s", "whatever": { "a": 1 } }), 404),
        ("/api/sync/{kind}", json!({ "storeId": 3 }), 422),
        ("/api/shopify/sync-{kind}", json!({ "socketId": "ws_123" }), 404),
        ("/api/rooms/{room}/send", json!({}), 200),
        ("/api/rooms/{room}/send", json!({ "event": "e", "data": 1 }), 200),
        ("/api/rooms/{room}/send", json!({ "event": 1 }), 422),
        ("/api/send/batch", json!({ "messages": [send] }), 200),
        ("/api/send/batch", json!({ "messages": [] }), 200),
        ("/api/send/batch", json!({}), 422),
        ("/sse/push", json!({ "user_id": "u", "data": {}, "event_type": "e" }), 200),
        ("/sse/push", json!({ "user_id": "u", "data": "x" }), 200),
        ("/sse/push", json!({ "user_id": "u" }), 422),
        ("/sse/send", json!({ "user_id": "u", "data": {}, "event_type": "e" }), 404),
        ("/sse/send", json!({ "user_id": "u" }), 422),
        ("/sse/push/batch", json!([{ "user_id": "u", "data": 1 }]), 200),
        ("/sse/push/batch", json!([]), 200),
        ("/sse/push/batch", json!({ "user_id": "u", "data": 1 }), 422),
        ("/api/tickets", json!({ "userId": "u", "stores": ["s"] }), 409),
        ("/api/instances/{name}/drain", json!({}), 404),
        ("/api/instances/{name}/drain", json!({ "force": true }), 404),
        ("/api/instances/{name}/drain", json!({ "force": "yes" }), 422),
    ];
    for (path, body, status) in &examples {
        let target = path.replace("{room}", "r").replace("{kind}", "orders").replace("{name}", "web9");
        let answer = gateway.post(&target, body).await;
        assert_eq!(answer.status, *status, "{path} {body}: {}", answer.text());
        let schema = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{path} has a body, and no schema for it");
        let objections = objections(&document, schema, body, "");
        assert_eq!(objections.is_empty(), *status != 422, "{path} {body}: {objections:?}");
    }
    let described: BTreeSet<_> = examples.iter().map(|(path, ..)| *path).collect();
    let posts = operations(&document).into_iter().filter(|(method, ..)| method == "POST").map(|(_, path, _)| path);
    for path in posts {
        assert!(described.contains(path.as_str()), "{path} has no example here");
    }
}
