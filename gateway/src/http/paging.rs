//! Pages of a long list: `limit`, `cursor`, and the link to what follows.

use super::{Body, Request};
use crate::{admission::names::Query, problem::Problem};
use hyper::{
    Response, StatusCode,
    header::{HeaderValue, LINK},
};
use registry::SocketId;

/// Sockets on a page, unless the caller wants fewer or more.
const PAGE: usize = 1000;
/// Sockets on a page at most.
const PAGE_MAX: usize = 10_000;

/// `limit` and `cursor` of a query.
pub struct Paging {
    pub after: SocketId,
    pub limit: usize,
}

impl Paging {
    pub fn of(query: &Query<'_>) -> Result<Self, Problem> {
        let limit = match query.one("limit")? {
            None => PAGE,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=PAGE_MAX).contains(limit))
                .ok_or_else(|| bad_query("limit", &format!("a number from 1 to {PAGE_MAX} is wanted")))?,
        };
        let after = match query.one("cursor")? {
            None => SocketId::FIRST,
            Some(text) => SocketId::parse(&text)
                .ok_or_else(|| bad_query("cursor", "take it from the next link of the page before"))?,
        };
        Ok(Self { after, limit })
    }

    /// Adds the link to the next page, if this one was full.
    pub fn link(&self, request: &Request, response: &mut Response<Body>, last: Option<SocketId>, count: usize) {
        let Some(last) = last.filter(|_| count >= self.limit) else { return };
        let kept = request.query().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
        let query = kept.map(str::to_owned).chain([format!("cursor={last}")]).collect::<Vec<_>>().join("&");
        if let Ok(link) = HeaderValue::from_str(&format!("<{}?{query}>; rel=\"next\"", request.head.uri.path())) {
            response.headers_mut().insert(LINK, link);
        }
    }
}

/// 400 for a query parameter of the API.
pub fn bad_query(name: &str, fix: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("Invalid {name} query parameter"), fix.to_owned())
}
