//! An outcome that is kept for those who ask again: what the first caller was answered, without its headers.

use crate::problem::Problem;
use bytes::Bytes;
use registry::Outcome;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A larger body is not kept whole: what the client said is left out of it, and the repeat says so.
const BYTES_MAX: usize = 64 << 10;

/// A first outcome, as it stands in the registry.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub status: u16,
    /// JSON in one line.
    pub body: String,
}

impl Kept {
    pub fn new(status: u16, body: &[u8]) -> Self {
        let body = match body.len() <= BYTES_MAX {
            true => String::from_utf8_lossy(body).into_owned(),
            false => shortened(body),
        };
        Self { status, body }
    }

    pub fn problem(problem: Problem, request_id: &str) -> Self {
        Self::new(problem.status.as_u16(), format!("{}\n", problem.json(request_id)).as_bytes())
    }

    /// For the registry. Where nothing can have been written, it may be tried anew.
    pub fn outcome(&self) -> Outcome {
        match self.status {
            400 | 404 | 410 | 422 | 429 | 503 => Outcome::Nothing,
            _ => Outcome::Kept(serde_json::to_vec(self).unwrap_or_default().into()),
        }
    }

    /// Whether the call goes on without whoever took it on: its owner says what came of it.
    pub fn is_open(&self) -> bool {
        self.status == 502
            && serde_json::from_str::<Value>(&self.body).is_ok_and(|body| body["code"] == "instance_ended")
    }

    /// The same whatever its status is: of a call that was queued nothing else will be said.
    pub fn bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// `None`: it is of a later version, or somebody else's.
    pub fn read(bytes: &Bytes) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// Without what the client said, which alone can be so large.
fn shortened(body: &[u8]) -> String {
    let mut body = serde_json::from_slice::<Value>(body).unwrap_or_default();
    if let Some(members) = body.as_object_mut() {
        let omitted: Vec<_> =
            ["result", "failure"].into_iter().filter(|name| members.remove(*name).is_some()).collect();
        members.insert("omitted".into(), omitted.into());
    }
    format!("{body}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_left_out_and_named() {
        let body = |bytes: usize| format!("{{\"status\":\"replied\",\"result\":\"{}\"}}\n", "x".repeat(bytes));
        let whole = Kept::new(200, body(60_000).as_bytes());
        assert_eq!(whole.body, body(60_000));
        let short = Kept::new(200, body(BYTES_MAX).as_bytes());
        assert_eq!(short.body, "{\"status\":\"replied\",\"omitted\":[\"result\"]}\n");
    }

    #[test]
    fn an_outcome_reads_back_and_a_refusal_is_none() {
        let kept = Kept::new(409, b"{}\n");
        let Outcome::Kept(bytes) = kept.outcome() else { panic!("not kept") };
        assert_eq!(Kept::read(&bytes), Some(kept));
        assert_eq!(Kept::read(&Bytes::from_static(b"{}")), None);
        assert!(matches!(Kept::new(410, b"{}").outcome(), Outcome::Nothing));
    }
}
