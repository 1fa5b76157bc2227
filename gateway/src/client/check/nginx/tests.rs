//! What is said of which configuration. `tests/it/checks.rs` has the shipped files.

use super::*;
use crate::config::{read, sources::Environment};
use std::collections::BTreeMap;

/// A server with nothing wrong in it, of which facts change a line.
const GOOD: &str = r#"
map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
log_format short '$remote_addr "$request_method $uri"';
upstream pool { server 10.0.0.1:8080 max_fails=0; server 10.0.0.2:8080 max_fails=0; }
server {
    access_log /dev/null short;
    error_log /dev/null emerg;
    client_max_body_size 2m;
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-User-ID "";
    proxy_next_upstream error timeout http_503;
    proxy_read_timeout 75s;
    location = /sse/stream { proxy_buffering off; proxy_pass http://pool; }
    location ~ ^(/__ws)?/(api/|sse/|metrics$) { deny all; proxy_read_timeout 610s; proxy_pass http://pool; }
    location / { proxy_pass http://pool; }
}
"#;

fn report(text: &str, settings: &[(&str, &str)]) -> Report {
    let env: Environment = settings.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    let config = read(&BTreeMap::new(), None, &env).config.unwrap();
    judge("file", &syntax::parse(text).unwrap(), Some(&config))
}

fn about(text: &str, settings: &[(&str, &str)]) -> Vec<String> {
    let report = report(text, settings);
    report.findings.into_iter().map(|one| if one.breaks { format!("{}!", one.about) } else { one.about }).collect()
}

const TOKEN: (&str, &str) = ("API_TOKEN", "t");

#[test]
fn of_what_is_right_nothing_is_said() {
    assert_eq!(report(GOOD, &[TOKEN]).lines().collect::<Vec<_>>(), [""; 0]);
    let around = "worker_shutdown_timeout 1h; events { worker_connections 4096; }";
    assert_eq!(about(&format!("{around} http {{ {GOOD} }}"), &[TOKEN]), [""; 0]);
    for (around, named) in [
        ("events { worker_connections 4096; }", "worker_shutdown_timeout"),
        ("worker_shutdown_timeout 1h; events {}", "worker_connections"),
        ("worker_shutdown_timeout 1h; events { worker_connections 768; }", "worker_connections"),
    ] {
        assert_eq!(about(&format!("{around} http {{ {GOOD} }}"), &[TOKEN]), [named]);
    }
}

/// Checklist 225, 278, 279, 280.
#[test]
fn each_fault_is_named_alone() {
    for (line, instead, named) in [
        ("proxy_http_version 1.1;", "", "proxy_http_version!"),
        ("proxy_set_header Upgrade $http_upgrade;", "", "Upgrade!"),
        ("proxy_set_header Connection $connection_upgrade;", "", "Connection!"),
        ("proxy_set_header Connection $connection_upgrade;", "proxy_set_header connection \"\";", "Connection!"),
        ("$connection_upgrade;\n    proxy_set_header Host", "\"upgrade\";\n    proxy_set_header Host", "Connection"),
        ("$http_host", "$host", "Host"),
        ("proxy_set_header Host $http_host;", "", "Host"),
        ("proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;", "", "X-Forwarded-For"),
        ("proxy_set_header X-User-ID \"\";", "", "X-User-ID"),
        ("proxy_read_timeout 75s;", "proxy_read_timeout 40;", "proxy_read_timeout"),
        ("proxy_read_timeout 75s;", "proxy_read_timeout 30000ms;", "proxy_read_timeout"),
        ("proxy_read_timeout 610s;", "proxy_read_timeout 20s;", "proxy_read_timeout"),
        ("proxy_buffering off;", "", "proxy_buffering"),
        ("deny all;", "", "admin paths"),
        ("^(/__ws)?/(api", "^/(api", "admin paths"),
        ("error timeout http_503", "error timeout", "proxy_next_upstream"),
        ("error timeout http_503", "error timeout http_503 non_idempotent", "proxy_next_upstream"),
        ("upstream pool {", "upstream pool { ip_hash;", "ip_hash"),
        ("10.0.0.2:8080 max_fails=0", "10.0.0.2:8080", "max_fails"),
        ("$request_method $uri", "$request", "log_format"),
        ("$request_method $uri", "$request_method $uri${args}", "log_format"),
        ("/dev/null short", "/dev/stdout", "log_format"),
        ("/dev/null emerg", "/dev/stderr crit", "error_log"),
        ("client_max_body_size 2m", "client_max_body_size 64k", "client_max_body_size"),
    ] {
        let changed = GOOD.replacen(line, instead, 1);
        assert_ne!(changed, GOOD, "{line}");
        assert_eq!(about(&changed, &[TOKEN]), [named], "{line} → {instead}");
    }
}

#[test]
fn the_settings_are_what_it_is_compared_with() {
    assert_eq!(about(GOOD, &[]), ["API_TOKEN"]);
    assert_eq!(about(GOOD, &[TOKEN, ("WS_PING_INTERVAL", "70s")]), ["proxy_read_timeout"]);
    assert_eq!(about(GOOD, &[TOKEN, ("MAX_BODY_BYTES", "8MiB")]), ["client_max_body_size"]);
    let unnamed = GOOD.replace("proxy_set_header X-User-ID \"\";", "");
    assert_eq!(about(&unnamed, &[TOKEN, ("AUTH", "jwt"), ("JWT_SECRET", &"s".repeat(40))]), [""; 0]);
    let words = report(&GOOD.replace("75s", "35s"), &[TOKEN]).lines().next().unwrap();
    assert!(words.contains(":16: proxy_read_timeout: 35s is no more than") && words.contains("(40s)"), "{words}");
}

#[test]
fn a_gateway_is_found_wherever_it_stands() {
    // Under a path of its own, beside another application, in a piece of a server.
    let below = "server { location / { root /var/www; } location /gw/ { proxy_pass http://127.0.0.1:8080/; } }";
    assert!(about(below, &[TOKEN]).contains(&"Upgrade!".into()));
    let beside = format!("server {{ location / {{ proxy_pass http://rails; }} }} {GOOD}");
    assert_eq!(about(&beside, &[TOKEN]), [""; 0]);
    // Also by another door, which does not look like one: it leads to an instance that a gateway's server names.
    for to in ["10.0.0.2:8080", "pool", "spare"] {
        let side = format!(
            "upstream spare {{ server 10.0.0.1:8080; }} server {{ location / {{ proxy_pass http://{to}; }} }} {GOOD}"
        );
        let said = about(&side, &[TOKEN]);
        assert!(said.contains(&"Upgrade!".into()) && said.contains(&"admin paths".into()), "{to}: {said:?}");
    }
    let piece = "location /ws { proxy_pass http://127.0.0.1:8080; }";
    assert!(about(piece, &[TOKEN]).contains(&"proxy_http_version!".into()));
    assert_eq!(about("server { return 301 https://$host$request_uri; }", &[TOKEN]), ["proxy_pass!"]);
    // nginx inherits headers only where a location sets none.
    let own = GOOD.replace("location / {", "location / { proxy_set_header X-Mine 1;");
    let words = report(&own, &[TOKEN]).lines().find(|line| line.contains("Upgrade")).unwrap();
    assert!(words.contains("inherits none"), "{words}");
}

#[test]
fn the_location_of_a_path_is_nginxs() {
    let text = "location = /ws { a; } location ^~ /ws/ { b; location ~ B$ { c; } } location ~* ^/WS { d; }
        location /websocket { e; } location /web { f; } location =/x { g; } location ~^/y { h; } location @n { i; }";
    let directives = syntax::parse(text).unwrap();
    let server = servers(&directives).remove(0);
    for (path, mark) in [
        ("/ws", "a"),
        ("/ws/A", "b"),
        ("/ws/B", "c"),
        ("/wsx", "d"),
        ("/websockets", "e"),
        ("/webs", "f"),
        ("/x", "g"),
        ("/y/", "h"),
    ] {
        assert!(server.location(path).own(mark).is_some(), "{path}: {}", server.location(path).name);
    }
    assert_eq!(server.location("/nowhere").name, "the file");
}
