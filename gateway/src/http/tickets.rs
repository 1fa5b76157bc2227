//! Tickets for clients that must know no secret: whoever has one comes in once.

use super::{
    Answer, Request, ok,
    sends::field,
    shape::{Field, Kind, Reader, Shape, refused, unfit},
};
use crate::{
    admission::{credentials, names::ANONYMOUS},
    auth::{
        Blind, Refused,
        key::{ApiKey, Scope},
        ticket,
    },
    problem::Problem,
};
use hyper::StatusCode;
use registry::{RoomName, StoreName, TICKET_STANDS, UserName, epoch_ms};
use serde_json::json;

/// The body of `/api/tickets`.
pub static TICKET: Shape = Shape {
    fields: &[
        Field { required: true, ..field("userId", Kind::Name, "who comes in with it") },
        field("stores", Kind::List, "the stores that it may select; none if they are left out"),
        field("rooms", Kind::List, "the rooms that it may enter; any if they are left out"),
    ],
    open: false,
};

/// `POST /api/tickets`: `?ticket=` opens one socket within 30 s.
pub async fn issue(request: Request) -> Answer {
    if request.gateway.auth.modes.is_none() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "Nobody wants a ticket",
            "with AUTH=none everybody comes in; set AUTH to have clients prove who they are",
        ));
    }
    let grants = read(&request.body)?;
    let ticket = ticket::issue(&request.gateway.courier.registry, &grants).await;
    let ticket = ticket.map_err(|_| credentials::refusal(Refused::Blind(Blind::Redis)))?;
    let lives_ms = u64::try_from(TICKET_STANDS.as_millis()).unwrap_or(u64::MAX);
    let mut response =
        ok(&json!({ "ticket": ticket, "expiresAt": epoch_ms() + lives_ms, "userId": grants.user.as_str() }));
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// What it grants, written as of a key that is for opening sockets.
fn read(body: &[u8]) -> Result<ApiKey, Problem> {
    let mut reader = Reader::new(&TICKET, body, "").map_err(|fault| refused(&fault))?;
    let user = reader.name("userId", UserName::parse);
    if user.as_ref().is_some_and(|user| user.as_str() == ANONYMOUS) {
        reader.wrong::<()>("userId", "anonymous is nobody's name");
    }
    let stores = reader.names("stores", StoreName::parse).unwrap_or_default();
    let rooms = reader.names("rooms", RoomName::parse);
    reader.finish().map_err(|wrong| unfit(&wrong))?;
    let user = user.ok_or_else(|| unfit(&[]))?;
    Ok(ApiKey { user, stores, rooms, scopes: vec![Scope::Connect], created_at: epoch_ms(), expires_at: None })
}
