//! How the instance is: for people, load balancers and Prometheus.

use super::{Answer, Body, Call, ok};
use crate::{clock::timestamp, gateway::VERSION, problem::Problem};
use hyper::{
    Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
};
use serde_json::json;

/// The content type of what `prometheus-client` writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What `/health` is filled up to with blanks.
const LENGTH: usize = 320;

/// `GET /`: what this is. With an upgrade it is a door.
pub async fn index(call: Call) -> Answer {
    if crate::admission::wants_upgrade(&call.head.headers) {
        return super::doors::open(call).await;
    }
    Ok(ok(&json!({
        "name": "holdfast",
        "version": VERSION,
        "instance": call.gateway.instance,
        "websocket": ["/ws", "/ws/{code}", "/websocket", "/connect"],
        "health": "/health",
        "api": "/openapi.json",
    })))
}

/// `GET /health`. From what is known already: it asks nobody.
pub async fn health(call: Call) -> Answer {
    let gateway = &call.gateway;
    let body = json!({
        "status": "healthy",
        "timestamp": timestamp(),
        "version": VERSION,
        "connections": gateway.courier.sockets.len(),
        "uptime": gateway.started.elapsed().as_secs(),
        "instance": gateway.instance,
        "redis": "none",
    });
    // Of one length, although numbers in it grow: `ab` calls an answer of another length a failure.
    let mut response = ok(&body);
    *response.body_mut() = Body::from(format!("{:<LENGTH$}\n", body.to_string()));
    Ok(response)
}

/// `GET /health/live`.
pub async fn live(_: Call) -> Answer {
    Ok(ok(&json!({ "status": "live" })))
}

/// `GET /health/ready`.
pub async fn ready(call: Call) -> Answer {
    match call.gateway.draining.is_cancelled() {
        false => Ok(ok(&json!({ "status": "ready" }))),
        true => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Draining",
            "this instance is about to stop; send new sockets to another",
        )
        .retry_after(1)),
    }
}

/// `GET /metrics`.
pub async fn metrics(call: Call) -> Answer {
    let gateway = &call.gateway;
    gateway.metrics.active.set(gateway.courier.sockets.len() as i64);
    let accept = call.head.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("application/json") {
        return Ok(ok(&json!({
            "active_connections": gateway.courier.sockets.len(),
            "fleet_connections": gateway.courier.registry.total().await,
            "queued_bytes": gateway.metrics.queued_bytes.get(),
            "sockets_opened_total": gateway.metrics.opened.get(),
            "panics_total": gateway.metrics.panics.get(),
            "uptime_seconds": gateway.started.elapsed().as_secs(),
            "instance": gateway.instance,
            "version": VERSION,
        })));
    }
    let dropped = gateway.log_dropped.dropped_lines() as u64;
    let mut response = Response::new(Body::from(gateway.metrics.text(dropped)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
    Ok(response)
}
