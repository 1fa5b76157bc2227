//! Is closed what is nobody's business: the server plane, asked by a stranger without a token.

use super::{patient::Patient, report::Check};
use crate::client::{
    plane::{CLOSED, location, open_location},
    talk::Asked,
};
use serde_json::json;

/// What an answer to a stranger shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    Closed,
    /// Whoever is limited, sent elsewhere, or met a fleet that starts, was told nothing.
    Unknown,
}

impl Door {
    fn of(status: u16, is_gateway: bool) -> Self {
        match (status, is_gateway) {
            (200, _) => Self::Open,
            (401 | 403, _) => Self::Closed,
            // A proxy that knows of no such path; a gateway that does not is another one than we know.
            (404, false) => Self::Closed,
            (300..=399 | 404 | 405 | 429 | 502 | 503, _) | (_, false) => Self::Unknown,
            // It was read, at least.
            (_, true) => Self::Open,
        }
    }
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
            Ok(heard) => match Door::of(heard.status, heard.header("x-holdfast-instance").is_some()) {
                Door::Open => {
                    is_direct &= patient.is_direct(&heard);
                    open.push(path);
                }
                Door::Closed => said.push(format!("{path} {}", heard.status)),
                Door::Unknown => unseen.push(format!("{path} {}", heard.status)),
            },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_closes() {
        for (status, is_gateway, door) in [
            (200, false, Door::Open),
            (422, true, Door::Open),
            (401, true, Door::Closed),
            (403, false, Door::Closed),
            (404, false, Door::Closed),
            (404, true, Door::Unknown),
            (302, true, Door::Unknown),
            (302, false, Door::Unknown),
            (422, false, Door::Unknown),
            (429, true, Door::Unknown),
            (502, false, Door::Unknown),
            (503, true, Door::Unknown),
        ] {
            assert_eq!(Door::of(status, is_gateway), door, "{status} {is_gateway}");
        }
    }
}
