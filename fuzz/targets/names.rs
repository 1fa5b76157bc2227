//! Texts that become types: names, ids, codes, origins, settings. What was taken is taken again in
//! the form in which we write it, and comes to the same.
//!
//! An input is a text. Each of its lines `NAME=value` is a setting besides.
#![no_main]

use gateway::{
    admission::{
        self, Door,
        names::{Query, decode},
        origin::{Origins, is_local_host},
    },
    config::{self, settings::SETTINGS, sources::Environment, value},
    http::redact,
};
use hyper::Uri;
use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use registry::{
    Group, NameFault, RoomName, SocketId, StoreName, UserName,
    names::{NAME_BYTES_MAX, check},
};
use std::{collections::BTreeMap, net::IpAddr};

fn check_names(text: &str) {
    let faults =
        [check(text).err(), StoreName::parse(text).err(), UserName::parse(text).err(), RoomName::parse(text).err()];
    assert!(faults.iter().all(|fault| *fault == faults[0]), "one rule for all names: {faults:?}");
    match faults[0] {
        Some(NameFault::Blank) => assert!(text.trim().is_empty()),
        Some(NameFault::TooLong) => assert!(text.len() > NAME_BYTES_MAX),
        Some(NameFault::Control) => assert!(text.contains(char::is_control)),
        Some(NameFault::Placeholder) => {}
        None => assert!((1..=NAME_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)),
    }
    if let Ok(room) = RoomName::parse(text) {
        assert_eq!(room.as_str(), text);
        assert_eq!(RoomName::parse(&room.to_string()).as_ref(), Ok(&room));
        let group = Group::Room(room.clone());
        assert_eq!((group.name(), group.key()), (text, Group::Room(room).key()));
    }
    if let Some(id) = SocketId::parse(text) {
        assert_eq!(id.to_string(), text);
        assert!(id.made_at() < 1 << 48);
    }
}

fn check_encodings(text: &str) {
    for in_query in [false, true] {
        if let Some(decoded) = decode(text, in_query) {
            assert!(text.contains(['%', '+']) || decoded == text);
        }
        let encoded = utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        assert_eq!(decode(&encoded, in_query).as_deref(), Some(text));
    }
    let query = Query::of(text);
    for name in ["user_id", "room_id", "greeting"] {
        let one = query.one(name);
        match query.all(name) {
            Ok(all) if all.is_empty() => assert_eq!(one.ok(), Some(None)),
            Ok(all) => assert!(one.ok().is_none_or(|one| one.as_ref() == all.first())),
            Err(_) => assert!(one.is_err()),
        }
    }
    let encoded = utf8_percent_encode(text, NON_ALPHANUMERIC);
    assert_eq!(Query::of(&format!("userId={encoded}&x=%zz")).one("user_id").ok().flatten().as_deref(), Some(text));

    let _ = admission::names::wants_close(text);
    match Door::of(text) {
        Some(Door::Code(code)) => assert!(text.ends_with(&format!("/ws/{code}")) && !code.contains('/')),
        Some(door) if !text.starts_with("/__ws") => assert_eq!(Door::of(&format!("/__ws{text}")), Some(door)),
        _ => {}
    }
    if let Ok(uri) = format!("/?key={encoded}&user_id=u&token={encoded}").parse::<Uri>() {
        assert_eq!(redact::uri(&uri), "/?key=***&user_id=u&token=***");
    }
}

/// The host of an origin, as another parser understands it; a port is a number, and nothing follows.
fn host_of(origin: &str) -> String {
    let uri: Uri = origin.parse().unwrap_or_else(|fault| panic!("{origin}: {fault}"));
    let authority = uri.authority().unwrap();
    let rest = authority.as_str().strip_prefix(authority.host()).unwrap();
    assert!(rest.is_empty() || authority.port().is_some_and(|port| rest == format!(":{}", port.as_str())), "{origin}");
    assert!(origin.ends_with(authority.as_str()), "{origin}");
    authority.host().to_owned()
}

fn is_local(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn check_origins(text: &str) {
    let entries = value::list(text);
    let (origins, faults, _) = Origins::parse(&entries);
    assert!(faults.iter().all(|fault| entries.contains(fault)));
    if let Origins::Listed(patterns) = &origins {
        assert_eq!(patterns.len() + faults.len(), entries.len());
        for entry in entries.iter().filter(|entry| !faults.contains(entry)) {
            let example = entry.strip_suffix('/').unwrap_or(entry).replacen("*.", "a.", 1);
            assert!(origins.allow(&example), "{example}");
            host_of(&example.to_ascii_lowercase());
        }
    }
    let _ = origins.allow(text);
    if Origins::Local.allow(text) {
        let (_, host) = text.split_once("://").unwrap();
        assert!(is_local_host(host) && is_local(&host_of(text).to_ascii_lowercase()), "{text}");
    }
    if is_local_host(text) {
        assert!(Origins::Local.allow(&format!("http://{text}")), "one idea of what is local");
    }
}

fn check_values(text: &str) {
    if let Ok(span) = value::duration(text) {
        assert_eq!(value::duration(&format!("{}ms", span.as_millis())), Ok(span));
    }
    if let Ok(bytes) = value::size(text) {
        assert_eq!(value::size(&bytes.to_string()), Ok(bytes));
    }
    if let Ok(Some(rate)) = value::rate(text) {
        assert_eq!(value::rate(&format!("{}/s", rate.0)), Ok(Some(rate)));
    }
    if let Ok(flag) = value::flag(text) {
        assert_eq!(value::flag(&flag.to_string()), Ok(flag));
    }
    let list = value::list(text);
    assert_eq!(value::list(&list.join(",")), list);
    let bare = value::uncommented(text);
    assert_eq!(value::uncommented(bare), bare);
}

/// As flags and as environment; nothing that is read from files.
fn check_settings(text: &str) {
    let given: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| SETTINGS.iter().any(|setting| setting.name == *name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if given.is_empty() {
        return;
    }
    let readings =
        [config::read(&given, None, &Environment::new()), config::read(&BTreeMap::new(), None, &given.clone())];
    for reading in readings {
        match reading.config {
            Ok(config) => {
                assert!(config.message_bytes_max > 0 && config.code_pattern.as_str().len() <= text.len() + 20)
            }
            Err(faults) => {
                assert!(!faults.is_empty());
                for fault in faults {
                    assert!(!fault.fix.is_empty() && given.contains_key(&fault.setting), "{fault}");
                }
            }
        }
    }
}

fuzz_target!(|text: &str| {
    check_names(text);
    check_encodings(text);
    check_origins(text);
    check_values(text);
    check_settings(text);
});
