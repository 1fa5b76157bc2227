//! Admission: whatever stands in path, query and headers, it answers; and whoever comes in has the
//! names that the rules want.
//!
//! An input is a request's head: a line of rules, the target, a header per line.
//!
//! ```text
//! user,trusted            what the rules are, see `Case::of`
//! /ws?user_id=u
//! Upgrade: websocket
//! ```
#![no_main]

use fuzz::first_line;
use gateway::{
    admission::{self, Door, Entry, Knock, Room, Rules, address, names, origin::Origins, rate::ConnectRate},
    config::Required,
    problem::Problem,
};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;
use regex_lite::Regex;
use registry::{RoomName, StoreName, UserName};
use std::{
    net::{IpAddr, Ipv4Addr},
    sync::LazyLock,
};

const ROOMS_MAX: usize = 3;
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

static CODE_PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new("^[A-Za-z0-9]{5}$").unwrap());
static PROXIES: LazyLock<Vec<IpNet>> = LazyLock::new(|| vec!["127.0.0.0/8".parse().unwrap()]);
static LISTED: LazyLock<Origins> =
    LazyLock::new(|| Origins::parse(&["https://app.example.com".into(), "https://*.example.org".into()]).0);

struct Case<'a> {
    required: Required,
    trusted: bool,
    origins: &'static Origins,
    room: Room,
    path: &'a str,
    query: &'a str,
    headers: HeaderMap,
}

impl<'a> Case<'a> {
    fn of(input: &'a [u8]) -> Option<Self> {
        let (rules, rest) = first_line(input);
        let (target, mut rest) = first_line(rest);
        let rule = |word: &str| rules.split(|byte| *byte == b',').any(|rule| rule == word.as_bytes());
        let target = std::str::from_utf8(target).ok()?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut headers = HeaderMap::new();
        while !rest.is_empty() {
            let (line, next) = first_line(rest);
            rest = next;
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
        }
        Some(Self {
            required: Required { user: rule("user"), store: rule("store"), room: rule("room") },
            trusted: rule("trusted"),
            origins: if rule("listed") { &LISTED } else { &Origins::Local },
            room: Room { draining: rule("draining"), full: rule("full") },
            path,
            query,
            headers,
        })
    }
}

fn check_entry(case: &Case<'_>, door: &Door, entry: Entry) {
    let Entry { names, upgrade } = entry;
    assert!(!case.room.draining && !case.room.full);
    if let Some(user) = &names.user {
        assert_eq!(UserName::parse(user.as_str()).as_ref(), Ok(user));
        assert_ne!(user.as_str(), names::ANONYMOUS);
    }
    if let Some(store) = &names.store {
        assert_eq!(StoreName::parse(store.as_str()).as_ref(), Ok(store));
    }
    if let Some(client) = &names.client {
        assert_eq!(registry::names::check(client), Ok(()));
    }
    assert!(names.rooms.len() <= ROOMS_MAX);
    for (at, room) in names.rooms.iter().enumerate() {
        assert_eq!(RoomName::parse(room.as_str()).as_ref(), Ok(room));
        assert!(!names.rooms[..at].contains(room), "a room twice");
    }
    match door {
        Door::Ws => {
            assert!(!case.required.user || names.user.is_some());
            assert!(!case.required.store || names.store.is_some());
            assert!(!case.required.room || !names.rooms.is_empty());
        }
        Door::Websocket => assert!(!names.rooms.is_empty()),
        Door::Code(_) => assert!(CODE_PATTERN.is_match(names.rooms[0].as_str())),
        Door::Connect => {}
        Door::Stream => assert!(names.user.is_some()),
    }
    assert_eq!(upgrade.accept.len(), 28);
    if let Some(subprotocol) = upgrade.subprotocol {
        assert!(!subprotocol.starts_with("bearer.") && !subprotocol.contains(','));
        assert!(HeaderValue::from_str(&subprotocol).is_ok());
    }
}

fn check_problem(problem: Problem) {
    let status = problem.status.as_u16();
    assert!(matches!(status, 400 | 401 | 403 | 426 | 429 | 503), "{status}");
    assert!(!problem.code.is_empty() && !problem.summary().is_empty());
    let told_on_socket = admission::close_code(&problem).is_some();
    assert_eq!(told_on_socket, status != 426 && problem.code != "origin_not_allowed");
    let response = problem.response("r_1", false);
    assert_eq!(response.status().as_u16(), status);
    let body = futures_util::FutureExt::now_or_never(response.into_body().collect()).unwrap().unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    for member in ["type", "title", "error", "code", "hint", "requestId"] {
        assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {body}");
    }
}

fuzz_target!(|input: &[u8]| {
    let Some(case) = Case::of(input) else { return };
    let client = address::of_client(PEER, &case.headers, &PROXIES);
    assert_eq!(address::of_client(PEER, &case.headers, &[]), PEER);
    let _ = admission::wants_upgrade(&case.headers);
    let _ = names::wants_close(case.query);
    let Some(door) = Door::of(case.path) else { return };
    let knock =
        Knock { door: &door, query: case.query, headers: &case.headers, trusted: case.trusted, address: client };
    let rules = Rules {
        required: case.required,
        code_pattern: &CODE_PATTERN,
        rooms_max: ROOMS_MAX,
        origins: case.origins,
        rate: &ConnectRate::new(None),
    };
    let identified = admission::identify(&knock, &rules);
    match admission::admit(&knock, &rules, case.room) {
        Ok(entry) => {
            assert!(identified.is_ok());
            check_entry(&case, &door, entry);
        }
        Err(problem) => {
            if let Err(first) = identified {
                assert_eq!(first.summary(), problem.summary(), "the first stage that fails answers");
            }
            check_problem(problem);
        }
    }
});
