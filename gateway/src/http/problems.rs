//! What a code means and what to do about it: the page that `type` of a refusal names. For anybody, as refusals are.

use super::{Answer, Body, Request};
use crate::{codes, problem::Problem};
use hyper::{
    Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};

/// `GET /problems`: all of them.
pub async fn all(_: Request) -> Answer {
    Ok(page(codes::PAGE.to_owned()))
}

/// `GET /problems/{code}`: one, also of a close, an error frame or a cause.
pub async fn show(request: Request) -> Answer {
    let code = request.path_value();
    match codes::entry(code) {
        Some(entry) => Ok(page(format!("{entry}\n"))),
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "Unknown code",
            "codes has those that there are; GET /problems explains all of them",
        )
        .member("codes", codes::all().collect::<Vec<_>>())),
    }
}

fn page(text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/markdown; charset=utf-8"));
    // It changes with the version alone.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}
