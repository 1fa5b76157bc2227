//! What is wrong for a gateway in a server of nginx, rule by rule: each with its place and its fix.

use super::{
    DOOR, Found, Report,
    places::{At, named, values},
    syntax::Directive,
};
use crate::{
    client::plane::{CLOSED, location},
    config::{Config, value::duration},
};
use std::time::Duration;

const DOORS: [&str; 4] = [DOOR, "/websocket", "/connect", "/ws/AB12C"];
const STREAM: &str = "/sse/stream";
const CALL: &str = "/api/call";
/// What nginx does unless it is told.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const BODY_BYTES_MAX: u64 = 1 << 20;
const WORKER_CONNECTIONS: u64 = 512;
/// With fewer a worker has no thousand sockets.
const WORKER_CONNECTIONS_MIN: u64 = 2048;

/// Words in which a query can be written down.
const WITH_QUERY: [&str; 5] = ["request", "request_uri", "args", "query_string", "http_referer"];

/// Where a finding stands that is about something missing.
fn place_of(at: &At<'_>) -> String {
    at.own("proxy_pass").map_or_else(|| at.name.clone(), |line| line.place.to_string())
}

/// The value of a header that goes to the gateway.
fn header<'a>(at: &At<'a>, name: &str) -> Option<&'a Directive> {
    at.all("proxy_set_header").into_iter().find(|line| line.first().eq_ignore_ascii_case(name))
}

fn value(line: &Directive) -> &str {
    line.args.get(1).map_or("", String::as_str)
}

/// `75`, `75s`, `1m 30s`, `500ms`.
fn time(line: &Directive) -> Option<Duration> {
    let text = line.args.concat();
    let mut rest = text.as_str();
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let part = match &rest[digits..unit] {
            "d" => Duration::from_secs(rest[..digits].parse::<u32>().ok()?.into()) * 86_400,
            _ => duration(&rest[..unit]).ok()?,
        };
        sum = sum.checked_add(part)?;
        rest = &rest[unit..];
    }
    Some(sum)
}

fn read_timeout(at: &At<'_>) -> (Duration, String) {
    let said = at.one("proxy_read_timeout");
    let place = said.map_or_else(|| place_of(at), |line| line.place.to_string());
    (said.and_then(time).unwrap_or(READ_TIMEOUT), place)
}

/// What is looked through, and what it is compared with.
pub struct Look<'a> {
    pub all: &'a [Directive],
    pub config: Option<&'a Config>,
}

impl Look<'_> {
    /// All of a server; what stands around all of them is told by `at_workers`.
    pub fn at(&self, found: &Found<'_>, report: &mut Report) {
        self.at_doors(found, report);
        self.at_streams(found, report);
        self.at_closed(found, report);
        self.at_pool(found, report);
        self.at_logs(&found.door, report);
    }

    /// Where a server passes on to: the addresses of an upstream, or what stands at `proxy_pass` itself.
    pub fn addresses(&self, found: &Found<'_>) -> Vec<String> {
        let pools = values(self.all, &found.server, found.target);
        let of = |pool: &str| match named(self.all, "upstream", pool) {
            Some(upstream) => {
                let servers = upstream.block.iter().filter(|line| line.name == "server");
                servers.map(|line| line.first().to_owned()).collect()
            }
            None => vec![pool.to_owned()],
        };
        pools.into_iter().flat_map(of).collect()
    }

    fn at_doors(&self, found: &Found<'_>, report: &mut Report) {
        let mut seen: Vec<At<'_>> = Vec::new();
        for door in DOORS.iter().filter_map(|door| found.at(door)) {
            if seen.iter().any(|before| before.is_same(&door)) {
                continue;
            }
            self.upgrades(&door, report);
            self.names(&door, report);
            self.lasts(&door, report);
            seen.push(door);
        }
    }

    /// What a handshake needs.
    fn upgrades(&self, door: &At<'_>, report: &mut Report) {
        let place = place_of(door);
        let one = door.one("proxy_http_version");
        if one.is_none_or(|line| line.first() != "1.1") {
            report.says(
                true,
                "proxy_http_version",
                &place,
                "it is 1.0 unless it is said, and no socket opens: add proxy_http_version 1.1;",
            );
        }
        let inherits = |name| match door.hides("proxy_set_header", name) {
            true => " (a location with a proxy_set_header of its own inherits none from around it)",
            false => "",
        };
        for (name, line) in [("Upgrade", "Upgrade $http_upgrade"), ("Connection", "Connection $connection_upgrade")] {
            let given = header(door, name).map(value).unwrap_or_default();
            let is_passed =
                given.contains('$') || given.eq_ignore_ascii_case("upgrade") || given.eq_ignore_ascii_case("websocket");
            if !is_passed {
                let map = if name == "Upgrade" {
                    ""
                } else {
                    ", with map $http_upgrade $connection_upgrade { default upgrade; '' ''; }"
                };
                let words = format!(
                    "it is not passed on, and handshakes get 426: add proxy_set_header {line};{map}{}",
                    inherits(name)
                );
                report.says(true, name, &place, words);
            }
        }
        if let Some(line) = header(door, "Connection").filter(|line| value(line).eq_ignore_ascii_case("upgrade")) {
            let words = "\"upgrade\" for every request costs a connection each: use map $http_upgrade $connection_upgrade { default upgrade; '' ''; }";
            report.warns("Connection", &line.place, words);
        }
    }

    /// Who is asked for, and who asks.
    fn names(&self, door: &At<'_>, report: &mut Report) {
        let place = place_of(door);
        match header(door, "Host").map(|line| (line, value(line))) {
            Some((_, "$http_host" | "$host:$server_port" | "$host:$proxy_port")) => {}
            Some((line, "$host")) => {
                let words = "$host forgets the port, and pages on another port than 80 or 443 count as strangers: say $http_host";
                report.warns("Host", &line.place, words);
            }
            Some(_) => {}
            None => {
                let words =
                    "$host is lost, and the gateway sees the upstream's name: add proxy_set_header Host $http_host;";
                report.warns("Host", &place, words);
            }
        }
        if header(door, "X-Forwarded-For").is_none() {
            let words = "without it all clients have nginx's address, in the log and for limits: \
                         add proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";
            report.warns("X-Forwarded-For", &place, words);
        }
        if self.config.is_none_or(|config| config.auth.hears_proxies()) && header(door, "X-User-ID").is_none() {
            let words = "clients can name any user by it, since a proxy's word counts: add proxy_set_header X-User-ID \"\"; \
                         (likewise X-Store-ID, X-Room-ID)";
            report.warns("X-User-ID", &place, words);
        }
    }

    /// How long nginx bears silence.
    fn lasts(&self, door: &At<'_>, report: &mut Report) {
        let (interval, grace) = self.config.map_or((Duration::from_secs(30), Duration::from_secs(10)), |config| {
            (config.ping_interval, config.ping_timeout)
        });
        let (given, place) = read_timeout(door);
        if given <= interval + grace {
            let words = format!(
                "{given:?} is no more than WS_PING_INTERVAL + WS_PING_TIMEOUT ({:?}): nginx may cut sockets that live; say {}s",
                interval + grace,
                (interval + grace).as_secs() + 35,
            );
            report.warns("proxy_read_timeout", &place, words);
        }
    }

    fn at_streams(&self, found: &Found<'_>, report: &mut Report) {
        if let Some(at) = found.at(STREAM)
            && at.one("proxy_buffering").is_none_or(|line| line.first() != "off")
        {
            let words = "it is on for /sse: the gateway's X-Accel-Buffering turns it off unless proxy_ignore_headers says otherwise; \
                         say proxy_buffering off; there";
            report.warns("proxy_buffering", &place_of(&at), words);
        }
        let Some(call) = found.at(CALL) else { return };
        let longest = self.config.map_or(Duration::from_secs(30), |config| config.call_timeout);
        let (given, place) = read_timeout(&call);
        if given <= longest {
            let words = format!(
                "calls wait {longest:?} (CALL_TIMEOUT), and up to 600 s if they say so, but nginx gives up after {given:?}: say 610s for /api/"
            );
            report.warns("proxy_read_timeout", &place, words);
        }
        let most = self.config.map_or(BODY_BYTES_MAX, |config| config.body_bytes_max as u64);
        let body = call.one("client_max_body_size");
        let given = body.map_or(Some(BODY_BYTES_MAX), |line| bytes(line.first()));
        if let Some(given) = given.filter(|given| *given < most && *given > 0) {
            let place = body.map_or_else(|| place_of(&call), |line| line.place.to_string());
            let words = format!(
                "{given} bytes are less than MAX_BODY_BYTES ({most}), and nginx refuses with a page of its own: say more"
            );
            report.warns("client_max_body_size", &place, words);
        }
    }

    /// What nobody outside should reach.
    fn at_closed(&self, found: &Found<'_>, report: &mut Report) {
        let open: Vec<_> = CLOSED
            .iter()
            .filter_map(|(_, path)| Some((*path, found.at(path)?)))
            .filter(|(_, at)| !is_closed(at))
            .collect();
        let Some((_, first)) = open.first() else { return };
        let paths: Vec<_> = open.iter().map(|(path, _)| *path).collect();
        let words = format!(
            "open to everybody who has a token, or finds one: {}; for your own servers alone, as in {} \
             {{ allow 10.0.0.0/8; deny all; … }}",
            paths.join(" "),
            location(found.prefix)
        );
        report.warns("admin paths", &place_of(first), words);
    }

    fn at_pool(&self, found: &Found<'_>, report: &mut Report) {
        let next = found.door.one("proxy_next_upstream");
        let says = |word: &str| next.is_some_and(|line| line.args.iter().any(|arg| arg == word));
        let next_place = next.map_or_else(|| place_of(&found.door), |line| line.place.to_string());
        if says("non_idempotent") {
            let words = "non_idempotent asks a client twice when a call breaks or times out: leave it out";
            report.warns("proxy_next_upstream", &next_place, words);
        }
        for pool in values(self.all, &found.server, found.target) {
            if let Some(upstream) = named(self.all, "upstream", pool) {
                self.at_upstream(upstream, says("http_503"), &next_place, report);
            }
        }
    }

    fn at_upstream(&self, upstream: &Directive, moves_on: bool, next_place: &str, report: &mut Report) {
        for line in upstream.block.iter().filter(|line| matches!(line.name.as_str(), "ip_hash" | "sticky")) {
            let words = "not needed: any instance reaches every socket; least_conn spreads clients evenly";
            report.warns(&line.name, &line.place, words);
        }
        let servers: Vec<_> = upstream.block.iter().filter(|line| line.name == "server").collect();
        if servers.len() < 2 {
            return;
        }
        if !moves_on {
            let words =
                "a new socket that a draining instance refuses is not offered to the next: say error timeout http_503";
            report.warns("proxy_next_upstream", next_place, words);
        }
        if let Some(server) = servers.iter().find(|server| !server.args.iter().any(|arg| arg == "max_fails=0")) {
            let words = "an instance that drained is left out for 10 s after it is back, and all together give 502: say max_fails=0 of each";
            report.warns("max_fails", &server.place, words);
        }
    }

    /// What stands outside of `http`, if the file is a whole nginx.conf.
    pub fn at_workers(&self, report: &mut Report) {
        fn one<'a>(level: &'a [Directive], name: &str) -> Option<&'a Directive> {
            level.iter().find(|line| line.name == name)
        }
        let Some(http) = one(self.all, "http") else { return };
        if one(self.all, "worker_shutdown_timeout").is_none() {
            let words = "each reload leaves workers behind until their last socket ends: say worker_shutdown_timeout 1h; outside of http";
            report.warns("worker_shutdown_timeout", &http.place, words);
        }
        let events = one(self.all, "events");
        let said = events.and_then(|events| one(&events.block, "worker_connections"));
        let most = said.map_or(Some(WORKER_CONNECTIONS), |line| line.first().parse().ok());
        if let Some(most) = most.filter(|most| *most < WORKER_CONNECTIONS_MIN) {
            let place = said.or(events).map_or(&http.place, |line| &line.place);
            let words = format!(
                "{most} of them are {} sockets for each worker, since one needs two: say 32768, and worker_rlimit_nofile as many and more",
                most / 2
            );
            report.warns("worker_connections", place, words);
        }
    }

    /// Query strings hold keys and tickets.
    fn at_logs(&self, door: &At<'_>, report: &mut Report) {
        for line in door.all("access_log").into_iter().filter(|line| line.first() != "off") {
            self.at_format(line.args.get(1).map_or("combined", String::as_str), &line.place.to_string(), report);
        }
        if door.all("access_log").is_empty() {
            self.at_format("combined", &place_of(door), report);
        }
        let errors = door.one("error_log");
        let level = errors.and_then(|line| line.args.get(1)).map_or("error", String::as_str);
        if level != "emerg" && errors.is_none_or(|line| line.first() != "/dev/null") {
            let place = errors.map_or_else(|| place_of(door), |line| line.place.to_string());
            let words =
                format!("at level {level} nginx writes whole query strings, keys and tickets with them: say emerg");
            report.warns("error_log", &place, words);
        }
    }

    fn at_format(&self, name: &str, place: &str, report: &mut Report) {
        let format = named(self.all, "log_format", name);
        let text = match (format, name) {
            (Some(format), _) => format.args.get(1..).unwrap_or_default().concat(),
            (None, "combined") => "$request $http_referer".into(),
            (None, _) => return,
        };
        if let Some(word) = variables(&text).find(|word| WITH_QUERY.contains(word)) {
            let place = format.map_or_else(|| place.to_owned(), |line| line.place.to_string());
            let words = format!(
                "format {name} writes ${word}, and with it query strings, keys and tickets among them: write \"$request_method $uri\""
            );
            report.warns("log_format", &place, words);
        }
    }
}

/// Whether strangers are kept out, by whatever means.
fn is_closed(at: &At<'_>) -> bool {
    let denies = at.all("deny").iter().any(|line| line.first() == "all");
    let asks = ["auth_basic", "auth_request", "auth_jwt"]
        .iter()
        .any(|name| at.one(name).is_some_and(|line| line.first() != "off"));
    let verifies = at.one("ssl_verify_client").is_some_and(|line| line.first() == "on");
    denies || asks || verifies || at.own("internal").is_some() || at.own("return").is_some()
}

/// `$name` and `${name}` in a text.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split('$').skip(1).map(|rest| {
        let rest = rest.trim_start_matches('{');
        &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())]
    })
}

/// `2m`, `512k`, `0` for any.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[digits..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::check::nginx::syntax::Place;

    #[test]
    fn times_and_sizes_are_read_as_nginx_writes_them() {
        let line = |args: &[&str]| Directive {
            name: String::new(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            block: Vec::new(),
            place: Place { file: "f".into(), line: 1 },
        };
        for (args, ms) in [
            (&["75"][..], 75_000),
            (&["1m30s"], 90_000),
            (&["1m", "30s"], 90_000),
            (&["250ms"], 250),
            (&["1d"], 86_400_000),
        ] {
            assert_eq!(time(&line(args)), Some(Duration::from_millis(ms)), "{args:?}");
        }
        assert_eq!(time(&line(&["soon"])), None);
        assert_eq!([bytes("2m"), bytes("64K"), bytes("0"), bytes("x")], [Some(2 << 20), Some(64 << 10), Some(0), None]);
    }
}
