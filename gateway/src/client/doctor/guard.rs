//! Is closed what is nobody's business: the server plane, asked by a stranger without a token.

use super::{patient::Patient, report::Check};
use crate::client::{
    plane::{CLOSED, location, open_location},
    talk::{Asked, Heard},
};
use serde_json::json;

/// Whoever may not ask is told so by the gateway, or by what stands in front; who is limited, or met a fleet that
/// starts, was told nothing.
const REFUSALS: [u16; 7] = [401, 403, 404, 405, 429, 502, 503];

fn is_let_in(heard: &Heard) -> bool {
    let sends_elsewhere = (300..400).contains(&heard.status);
    heard.header("x-holdfast-instance").is_some() && !sends_elsewhere && !REFUSALS.contains(&heard.status)
}

pub async fn check(patient: &Patient) -> Check {
    let (mut open, mut said, mut unseen, mut is_direct) = (Vec::new(), Vec::new(), Vec::new(), true);
    for (method, path) in CLOSED {
        // Nothing is called or pushed by this; who reads it at all has let the stranger in.
        let asked = match method {
            "POST" => patient.dressed(Asked::post(format!("{}{path}", patient.prefix), &json!({})), &patient.address),
            _ => patient.asked(method, path),
        };
        // One that streams is open or closed by its head.
        match patient.begin(&asked.with("Connection", "close")).await {
            Ok(heard) if heard.status == 200 || is_let_in(&heard) => {
                is_direct &= patient.is_direct(&heard);
                open.push(path);
            }
            Ok(heard) if is_closed(heard.status, heard.header("x-holdfast-instance").is_some()) => {
                said.push(format!("{path} {}", heard.status));
            }
            Ok(heard) => unseen.push(format!("{path} {}", heard.status)),
            Err(_) => unseen.push(format!("{path} no answer")),
        }
    }
    if open.is_empty() && !unseen.is_empty() {
        return Check::unseen(
            "closed",
            format!("neither open nor refused, so nothing is known: {}", unseen.join(", ")),
        );
    }
    if open.is_empty() {
        return Check::well("closed", format!("nothing is told without a token: {}", said.join(", ")));
    }
    let open = open.join(", ");
    if is_direct {
        return Check::unseen(
            "closed",
            format!(
                "{open} answer without a token, as they may on this machine; ask through the proxy, from outside, to see"
            ),
        );
    }
    let (first, then) = (open_location(&patient.prefix), location(&patient.prefix));
    Check::ill(
        "closed",
        format!("{open} answer whoever asks, without a token"),
        format!(
            "set API_TOKEN (and ADMIN_TOKEN); in nginx: proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\nand close them to the outside, with what anybody may ask in front:\n{first} {{ proxy_pass http://holdfast; … }}\n{then} {{ deny all; }}"
        ),
    )
}

/// A refusal; or a proxy that knows of no such path. Whoever sends elsewhere, or has no time, has refused nothing.
fn is_closed(status: u16, is_gateway: bool) -> bool {
    matches!(status, 401 | 403) || (status == 404 && !is_gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_closes() {
        assert!(is_closed(401, true) && is_closed(403, false) && is_closed(404, false));
        assert!(
            ![(404, true), (302, false), (429, true), (502, false), (503, true)]
                .map(|(a, b)| is_closed(a, b))
                .contains(&true)
        );
    }
}
