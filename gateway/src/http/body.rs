//! Reading a request's body: of a kind we read, within its size, within its time.

use crate::problem::Problem;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    HeaderMap, StatusCode,
    body::{Body as _, Incoming},
    header,
};
use std::time::Duration;
use tokio::time::timeout;

/// A whole body may take this long; whoever sends slower is cut off.
const BODY: Duration = Duration::from_secs(30);
/// JSON, or nothing said, or what `curl -d` says of itself when it sends JSON.
pub fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported = |hint| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type", hint);
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(unsupported("send the body as it is, without Content-Encoding"));
    }
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let media = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let fits = matches!(media.as_str(), "application/json" | "application/x-www-form-urlencoded" | "text/json")
        || media.ends_with("+json");
    match fits {
        true => Ok(()),
        false => Err(unsupported("send Content-Type: application/json")),
    }
}

/// The whole body.
pub async fn read(body: Incoming, bytes_max: usize) -> Result<Bytes, Problem> {
    // Who announces too much is told before it comes.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    match timeout(BODY, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(fault)) if fault.is::<LengthLimitError>() => Err(too_large(bytes_max)),
        Ok(Err(_)) => {
            Err(Problem::new(StatusCode::BAD_REQUEST, "Incomplete body", "the body ended before its announced length")
                .header(header::CONNECTION, "close"))
        }
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "Body too slow", "send the whole body within 30 s")
            .header(header::CONNECTION, "close")),
    }
}

fn too_large(bytes_max: usize) -> Problem {
    let hint = format!("a body has {bytes_max} bytes at most; MAX_BODY_BYTES sets it");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "Body too large", hint).header(header::CONNECTION, "close")
}
