//! `/openapi.json`, made from the table of routes and the shapes of their bodies.

use super::{
    Answer, Request, ok,
    plane::Plane,
    routes::{ROUTES, Repeats, Route},
    shape::Body,
};
use crate::gateway::VERSION;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Statuses that say what became of a socket, and the codes that tell them apart.
const GONE: &[(u16, &str)] = &[(404, "socket_never_seen, socket_forgotten"), (410, "socket_gone")];
/// The fleet cannot be asked. Nothing was written, and nobody is known to be offline.
const UNKNOWN: &[(u16, &str)] = &[(503, "registry_unavailable, registry_rebuilding")];
/// The same, for what goes to one named socket.
const UNREACHED: &[(u16, &str)] = &[(503, "registry_unavailable, registry_rebuilding, owner_unreachable")];
/// The instance that holds the socket did not say in time what it did.
const SILENT: &[(u16, &str)] = &[(504, "no_reply")];
/// Somebody was asked, and this came of it.
const CALLED: &[(u16, &str)] = &[
    (404, "no_live_socket"),
    (409, "call_failed"),
    (502, "owner_lost, socket_lost, instance_ended"),
    (503, "draining, too_many_calls_wait"),
];
/// The request has an Idempotency-Key.
const KEYED: &[(u16, &str)] = &[
    (400, "invalid_idempotency_key"),
    (409, "idempotency_key_reused"),
    (502, "owner_lost"),
    (503, "registry_unavailable"),
    (504, "no_reply"),
];
/// Somebody has to stay, and it has to be known who is meant.
const DRAINED: &[(u16, &str)] = &[
    (202, "it drains"),
    (404, "no_such_instance"),
    (409, "last_instance, several_instances_of_that_name"),
    (503, "registry_unavailable, owner_unreachable"),
];
/// Nobody is there, and the call is to be kept.
const QUEUED: &[(u16, &str)] = &[(202, "queued; Location says where to ask what came of it"), (429, "queue_full")];
const TICKET: &[(u16, &str)] = &[(201, "made"), (409, "nobody_wants_a_ticket"), (503, "credentials_cannot_be_checked")];
const BUSY: &[(u16, &str)] = &[(429, "socket_busy")];
const UNAUTHORIZED: &str = "invalid_api_key, api_key_expired, invalid_session_token, unauthorized_please_log_in";
/// What everybody who says who it is may be told, at a door or where the doors only tell.
const KNOCKED: &[(u16, &str)] = &[
    (400, "a name is missing or wrong, conflicting_credentials"),
    (401, UNAUTHORIZED),
    (403, "origin_not_allowed, credential_without_scope_connect, not_your_user_id, not_your_store, not_your_room"),
    (429, "too_fast; see Retry-After"),
    (503, "credentials_cannot_be_checked; see Retry-After"),
];
/// No room, or not any more.
const SHUT: &[(u16, &str)] = &[(503, "draining, full")];
/// The application is asked.
const HOOKED: &[(u16, &str)] = &[(403, "refused_by_the_application"), (503, "connect_hook_failed")];
const UPGRADED: &[(u16, &str)] = &[
    (101, "switching to WebSocket"),
    (400, "a header is missing or wrong"),
    (426, "no upgrade, or not to version 13"),
];
const LISTENED: &[(u16, &str)] = &[(409, "already_connected"), (429, "cooling_down")];

/// What a route answers beside 200 and faults of the request itself.
fn statuses(route: &Route) -> Vec<&'static [(u16, &'static str)]> {
    match (route.method.as_str(), route.path) {
        (_, "/ws" | "/ws/{code}" | "/websocket" | "/connect") => vec![UPGRADED, SHUT, HOOKED, KNOCKED],
        (_, "/sse/stream") => vec![LISTENED, SHUT, HOOKED, KNOCKED],
        (_, "/api/handshake") => vec![&[(404, "not_found")], SHUT, KNOCKED],
        (_, "/api/auth/session") => vec![KNOCKED],
        (_, "/problems/{code}") => vec![&[(404, "unknown_code")]],
        (_, "/api/events") => vec![&[(400, "no_such_scope")]],
        (_, "/health/ready") => vec![&[(503, "draining, registry_unavailable, deaf")]],
        ("GET", "/api/sockets/{id}") => vec![GONE, UNREACHED],
        (_, "/api/sockets/{id}" | "/api/sockets/{id}/rooms/{room}") => vec![GONE, UNREACHED, SILENT],
        (_, "/api/send") => vec![GONE, BUSY, UNREACHED, SILENT],
        (_, "/api/call") => vec![QUEUED, CALLED, GONE, BUSY, UNREACHED, SILENT],
        (_, "/api/sync/{kind}" | "/api/shopify/sync-{kind}") => vec![CALLED, GONE, BUSY, UNREACHED, SILENT],
        ("GET", "/api/calls/{id}") => {
            vec![&[(404, "call_unknown"), (409, "call_failed"), (502, "outcome_unreadable")], UNKNOWN, SILENT]
        }
        (_, "/api/calls/{id}") => vec![&[(404, "call_unknown"), (409, "call_done")], UNKNOWN],
        (_, "/sse/send") => vec![CALLED, BUSY, UNREACHED, SILENT],
        (_, "/api/rooms/{room}/send" | "/sse/push") => vec![UNKNOWN],
        (_, "/api/instances/{name}/drain") => vec![DRAINED, SILENT],
        (_, "/api/tickets") => vec![TICKET],
        (_, "/api/sockets" | "/api/instances" | "/api/debug/sockets") => vec![UNKNOWN],
        (_, "/api/users/{name}" | "/api/stores/{name}" | "/api/rooms/{name}") => vec![UNKNOWN],
        _ => Vec::new(),
    }
}

/// The document.
pub async fn document(_: Request) -> Answer {
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
    let values = route.path.split('/').filter_map(|part| part.split_once('{')?.1.strip_suffix('}'));
    let mut parameters: Vec<_> = values
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if route.repeats != Repeats::Anew {
        parameters.push(json!({
            "name": "Idempotency-Key",
            "in": "header",
            "required": false,
            "description": "a repeat within 24 h gets the first outcome, with Idempotency-Replayed: true; of a stream, its last event",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$" },
        }));
    }
    let problem = |description: &str| {
        json!({
            "description": description,
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
        })
    };
    let mut codes_of = BTreeMap::<u16, Vec<&str>>::new();
    for (status, codes) in statuses(route).into_iter().flatten() {
        codes_of.entry(*status).or_default().push(codes);
    }
    if route.repeats != Repeats::Anew {
        for (status, codes) in KEYED {
            codes_of.entry(*status).or_default().push(codes);
        }
    }
    let mut responses = Map::new();
    for (status, codes) in codes_of {
        let codes = codes.join(", ");
        let described = if status < 400 { json!({ "description": codes }) } else { problem(&codes) };
        responses.insert(status.to_string(), described);
    }
    if route.plane != Plane::Client {
        responses.insert("401".into(), problem("invalid_api_token, protected_mode"));
    }
    if !responses.contains_key("101") {
        responses.insert("200".into(), json!({ "description": "done" }));
    }
    responses.insert("default".into(), problem("a problem that names its cause and the fix"));
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = route.body {
        let is_required = !matches!(body, Body::Optional(_));
        operation["requestBody"] =
            json!({ "required": is_required, "content": { "application/json": { "schema": body.schema() } } });
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
            "type": { "type": "string", "format": "uri-reference" },
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
            "action": { "type": "string" },
            "delivered": { "type": ["boolean", "string"], "enum": [true, false, "unknown"] },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes are words that programs compare, so each stands where the contract has it.
    #[test]
    fn what_a_send_may_answer_is_told_by_status_and_code() {
        let send = &describe()["paths"]["/api/send"]["post"]["responses"];
        for (status, code) in [
            ("401", "invalid_api_token"),
            ("404", "socket_never_seen"),
            ("410", "socket_gone"),
            ("429", "socket_busy"),
            ("503", "owner_unreachable"),
            ("504", "no_reply"),
        ] {
            assert!(send[status]["description"].as_str().is_some_and(|said| said.contains(code)), "{status}: {send}");
        }
    }

    /// Those that only tell refuse as the doors do.
    #[test]
    fn whoever_knocks_is_told_by_status_and_code() {
        let document = describe();
        for path in
            ["/ws", "/ws/{code}", "/websocket", "/connect", "/sse/stream", "/api/handshake", "/api/auth/session"]
        {
            let said = |status: &str| {
                let description = &document["paths"][path]["get"]["responses"][status]["description"];
                description.as_str().unwrap_or_default().to_owned()
            };
            for (status, code) in [
                ("400", "conflicting_credentials"),
                ("401", "api_key_expired"),
                ("403", "origin_not_allowed"),
                ("429", "too_fast"),
                ("503", "credentials_cannot_be_checked"),
            ] {
                assert!(said(status).contains(code), "{path} {status}: {}", said(status));
            }
            let is_door = !path.starts_with("/api");
            assert_eq!(said("503").contains("connect_hook_failed"), is_door, "{path}");
        }
    }

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
