//! Reading a request's body: of a kind we read, within its size, within its time.

use crate::problem::Problem;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    HeaderMap, StatusCode,
    body::{Body as _, Incoming},
    header,
};
use std::{error::Error, future::poll_fn, pin::pin, task::Poll, time::Duration};
use tokio::time::{error::Elapsed, timeout};

/// A whole body may take this long; whoever sends slower is cut off.
const BODY: Duration = Duration::from_secs(30);
/// JSON, or nothing said, or what `curl -d` says of itself when it sends JSON.
pub fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported = |hint| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type", hint);
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(unsupported("send the body as it is, without Content-Encoding"));
    }
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    if given == "application/json" {
        return Ok(());
    }
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
    match soon(whole(Limited::new(body, bytes_max))).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(fault)) if fault.is::<LengthLimitError>() => Err(too_large(bytes_max)),
        Ok(Err(_)) => {
            Err(Problem::new(StatusCode::BAD_REQUEST, "Incomplete body", "the body ended before its announced length")
                .header(header::CONNECTION, "close"))
        }
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "Body too slow", "send the whole body within 30 s")
            .header(header::CONNECTION, "close")),
    }
}

/// A body of one piece, as most are, is taken as it came.
async fn whole(mut body: Limited<Incoming>) -> Result<Bytes, Box<dyn Error + Send + Sync>> {
    let mut pieces = Vec::new();
    while let Some(frame) = body.frame().await {
        pieces.extend(frame?.into_data());
    }
    Ok(match <[Bytes; 1]>::try_from(pieces) {
        Ok([whole]) => whole,
        Err(pieces) => pieces.concat().into(),
    })
}

/// Waits for a body. Most of them come with their head and are there at the second look, so that a timer is set only then.
async fn soon<F: Future>(body: F) -> Result<F::Output, Elapsed> {
    let mut body = pin!(body);
    let mut looks = 0;
    let early = poll_fn(|cx| {
        looks += 1;
        match body.as_mut().poll(cx) {
            Poll::Pending if looks < 2 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Ready(None),
            Poll::Ready(body) => Poll::Ready(Some(body)),
        }
    });
    match early.await {
        Some(body) => Ok(body),
        None => timeout(BODY, body).await,
    }
}

fn too_large(bytes_max: usize) -> Problem {
    let hint = format!("a body has {bytes_max} bytes at most; MAX_BODY_BYTES sets it");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "Body too large", hint).header(header::CONNECTION, "close")
}
