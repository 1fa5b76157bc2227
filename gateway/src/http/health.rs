//! How the instance is: for people, load balancers and Prometheus.

use super::{Answer, Body, Request, ok};
use crate::{clock::timestamp, gateway::VERSION, metrics::Snapshot, problem::Problem};
use hyper::{
    Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderValue},
};
use registry::Health;
use serde_json::json;

/// The content type of what `prometheus-client` writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What `/health` is filled up to with blanks.
const LENGTH: usize = 320;

/// `GET /`: what this is. With an upgrade it is a door.
pub async fn index(request: Request) -> Answer {
    if crate::admission::wants_upgrade(&request.head.headers) {
        return super::doors::open(request).await;
    }
    Ok(ok(&json!({
        "name": "holdfast",
        "version": VERSION,
        "instance": request.gateway.instance,
        "websocket": ["/ws", "/ws/{code}", "/websocket", "/connect"],
        "health": "/health",
        "api": "/openapi.json",
    })))
}

/// `GET /health`. From what is known already: it asks nobody.
pub async fn health(request: Request) -> Answer {
    let gateway = &request.gateway;
    let registry = &gateway.courier.registry;
    let health = registry.health();
    let well = health != Health::Down && registry.hears();
    let body = json!({
        "status": if well { "healthy" } else { "degraded" },
        "timestamp": timestamp(),
        "version": VERSION,
        "connections": gateway.courier.sockets.len(),
        "uptime": gateway.started.elapsed().as_secs(),
        "instance": gateway.instance,
        "redis": word(health),
    });
    // Of one length, although numbers in it grow: `ab` calls an answer of another length a failure.
    let mut response = ok(&body);
    *response.body_mut() = Body::from(format!("{:<LENGTH$}\n", body.to_string()));
    Ok(response)
}

pub fn word(health: Health) -> &'static str {
    match health {
        Health::Here => "none",
        Health::Up => "ok",
        Health::Down => "down",
    }
}

/// `GET /health/live`. Whoever would restart the process because Redis is away would make it worse.
pub async fn live(_: Request) -> Answer {
    Ok(ok(&json!({ "status": "live" })))
}

/// `GET /health/ready`. Whoever does not hear the others gets no new sockets: nobody could reach them.
pub async fn ready(request: Request) -> Answer {
    let registry = &request.gateway.courier.registry;
    let (title, code, hint) = match (request.gateway.draining.is_cancelled(), registry.hears(), registry.health()) {
        (true, ..) => ("Draining", "draining", "this instance is about to stop; send new sockets to another"),
        (false, true, _) => return Ok(ok(&json!({ "status": "ready" }))),
        (false, false, Health::Down) => (
            "Redis does not answer",
            "registry_unavailable",
            "this instance starts or has lost Redis, and keeps trying: look at its log, and at the Redis that REDIS_URL names",
        ),
        (false, false, _) => (
            "Deaf to the other instances",
            "deaf",
            "this instance starts or has lost its subscription, and subscribes again: look at its log, and whether the user in REDIS_URL may use the channels of NAMESPACE",
        ),
    };
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, title, hint).code(code).retry_after(1))
}

/// `GET /metrics`.
pub async fn metrics(request: Request) -> Answer {
    let gateway = &request.gateway;
    gateway.metrics.active.set(gateway.courier.sockets.len() as i64);
    let registry = &gateway.courier.registry;
    let now = Snapshot {
        calls: gateway.courier.calls.count(),
        waiting: gateway.courier.waits.len(),
        log_lines_dropped: gateway.log_dropped.dropped_lines() as u64,
        figures: registry.figures(),
        health: registry.health(),
        hears: registry.hears(),
        ready: registry.hears() && !gateway.draining.is_cancelled(),
    };
    let accept = request.head.headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("application/json") {
        return Ok(ok(&json!({
            "active_connections": gateway.courier.sockets.len(),
            // As it was last counted, or null where it cannot be: whoever looks does not ask Redis.
            "fleet_connections": gateway.metrics.fleet.load().as_ref().map(|fleet| fleet.sockets),
            "queued_bytes": gateway.metrics.queued_bytes.get(),
            "sockets_opened_total": gateway.metrics.opened.get(),
            "panics_total": gateway.metrics.panics.get(),
            "registry_drift": gateway.metrics.drift.get(),
            "wrong_owner_delivery_total": gateway.metrics.wrong_owner_delivery.get(),
            "duplicate_write_total": gateway.metrics.duplicate_write.get(),
            "inbox_gap_unfilled_total": now.figures.gaps_unfilled,
            "redis": word(now.health),
            "deaf": !now.hears,
            "uptime_seconds": gateway.started.elapsed().as_secs(),
            "instance": gateway.instance,
            "version": VERSION,
        })));
    }
    let mut response = Response::new(Body::from(gateway.metrics.text(&now)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
    Ok(response)
}
