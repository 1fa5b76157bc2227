//! Having an instance drain, whichever is asked.

use super::{
    Answer, Request, ok,
    sends::field,
    shape::{Kind, Reader, Shape, refused, unfit},
    sockets::PATIENCE,
};
use crate::{
    letters::{Undelivered, Unheard},
    problem::Problem,
};
use bytes::Bytes;
use hyper::StatusCode;
use registry::{Incarnation, Lease, Serving, envelope};
use serde_json::json;
use tracing::info;

/// The body of `/api/instances/{name}/drain`, which may be left out.
pub static DRAIN: Shape =
    Shape { fields: &[field("force", Kind::Flag, "also the last instance that serves")], open: false };

/// `POST /api/instances/{name}/drain`: the same as SIGTERM there.
pub async fn drain(request: Request) -> Answer {
    let is_forced = read(&request.body)?;
    let registry = &request.gateway.courier.registry;
    let leases = registry.instances().await.map_err(|_| blind())?;
    let lease = named(request.path_value(), &leases)?;
    let target = &lease.incarnation;
    // Whoever drains already is asked again, so that it says how far it is.
    let is_decided =
        lease.serving == Serving::Draining || registry.let_go(target, is_forced).await.map_err(|_| blind())?;
    if !is_decided {
        return Err(last(lease));
    }
    let (hop, (sockets, within_ms)) = match *target == registry.incarnation() {
        true => ("local", here(&request)),
        false => ("remote", there(&request, target).await?),
    };
    info!(request_id = request.request_id, "{target} drains {sockets} sockets");
    let mut response = ok(&json!({
        "status": "draining",
        "instance": target.instance(),
        "incarnation": target.to_string(),
        "hop": hop,
        "sockets": sockets,
        "withinMs": within_ms,
    }));
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

fn read(body: &[u8]) -> Result<bool, Problem> {
    if body.is_empty() {
        return Ok(false);
    }
    let mut reader = Reader::new(&DRAIN, body, "").map_err(|fault| refused(&fault))?;
    let is_forced = reader.flag("force").unwrap_or_default();
    reader.finish().map_err(|wrong| unfit(&wrong))?;
    Ok(is_forced)
}

/// The instance of that name. Where several have it, the incarnation tells which.
fn named<'a>(name: &str, leases: &'a [Lease]) -> Result<&'a Lease, Problem> {
    let mut meant =
        leases.iter().filter(|lease| lease.incarnation.instance() == name || lease.incarnation.to_string() == name);
    match (meant.next(), meant.next()) {
        (Some(lease), None) => Ok(lease),
        (Some(_), Some(_)) => {
            let hint =
                "name one by its incarnation, which GET /api/instances shows; and give each an INSTANCE of its own";
            let title = "Several instances of that name";
            Err(Problem::new(StatusCode::CONFLICT, title, hint).detail(format!("several instances are called {name}")))
        }
        (None, _) => Err(no_such_instance(name, leases)),
    }
}

fn no_such_instance(name: &str, leases: &[Lease]) -> Problem {
    let known: Vec<_> = leases.iter().map(|lease| lease.incarnation.instance()).collect();
    Problem::new(StatusCode::NOT_FOUND, "No such instance", "name one of those that there are")
        .detail(format!("no instance is called {name}; there are {}", known.join(", ")))
}

fn last(lease: &Lease) -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "Last instance",
        "start another one first, or say force:true (holdfast drain --force) to have nobody serve for a while",
    )
    .detail(format!("no other instance serves than {}, and it was not drained", lease.incarnation.instance()))
}

/// How many sockets this instance has, and how long it takes at most.
fn here(request: &Request) -> (usize, u64) {
    request.gateway.desk.stop.begin(request.gateway.courier.sockets.len())
}

async fn there(request: &Request, target: &Incarnation) -> Result<(usize, u64), Problem> {
    let courier = &request.gateway.courier;
    let message = envelope::Message::Drain { request: request.request_id.as_str().into() };
    match courier.letters.ask(target, message, Bytes::new(), request.began + PATIENCE).await {
        Ok((envelope::Answer::Draining { sockets, ms }, _)) => Ok((sockets, ms)),
        Err(Unheard::NotDelivered(why)) => {
            courier.registry.stays(target).await;
            Err(not_told(target, why))
        }
        Ok(_) | Err(Unheard::Silent) => {
            Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "No reply", "ask again; a second time does no harm")
                .detail(format!("{} did not say in time whether it drains", target.instance()))
                .member("delivered", "unknown"))
        }
    }
}

/// Nobody can say who else serves, so nobody may say that it is not the last.
fn blind() -> Problem {
    let hint = "try again; where it runs, SIGTERM drains an instance whatever the others do";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Registry unavailable", hint)
        .detail("the registry does not answer, so it is not known who else serves; nothing was done")
        .retry_after(1)
}

fn not_told(target: &Incarnation, why: Undelivered) -> Problem {
    if why == Undelivered::Unsent {
        return blind();
    }
    let hint = "look at GET /api/instances whether it is still there; where it runs, SIGTERM does the same";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Instance unreachable", hint)
        .code("owner_unreachable")
        .detail(format!("{} does not hear what it is told, and does not drain", target.instance()))
        .retry_after(1)
}
