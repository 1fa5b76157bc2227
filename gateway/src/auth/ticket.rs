//! Tickets: what a server gives a client that must not know any secret, to come in once.

use super::{
    Blind, Refused,
    grants::{By, Grants},
    key::ApiKey,
};
use registry::{Hashed, Registry, Unknown};

/// What a ticket begins with.
const TICKET: &str = "ht_";

fn hashed(ticket: &str) -> Hashed {
    Hashed::of(&[b"ticket", ticket.as_bytes()])
}

/// Makes one; what it grants is written as of a key.
pub async fn issue(registry: &Registry, grants: &ApiKey) -> Result<String, Unknown> {
    let ticket = format!("{TICKET}{}", registry::Secret::fresh().to_text());
    registry.put_ticket(hashed(&ticket), &grants.write().to_string()).await?;
    Ok(ticket)
}

/// What it grants; it stays good.
pub async fn look(registry: &Registry, ticket: &str) -> Result<Grants, Refused> {
    let held = registry.ticket(hashed(ticket)).await.map_err(|_| Refused::Blind(Blind::Redis))?;
    let granted = held.and_then(|held| ApiKey::read(&serde_json::from_str(&held).ok()?).ok());
    let ApiKey { user, stores, rooms, .. } = granted.ok_or(Refused::Ticket)?;
    Ok(Grants { user, stores, rooms, until: None, key: None, by: By::Ticket, more: None })
}

/// Uses it up; nobody else has done so.
pub async fn redeem(registry: &Registry, ticket: &str) -> Result<(), Refused> {
    let held = registry.redeem(hashed(ticket)).await.map_err(|_| Refused::Blind(Blind::Redis))?;
    held.map(drop).ok_or(Refused::Ticket)
}
