//! The machine and the Redis behind an instance, as far as it tells: files, memory, settings.

use super::{
    patient::Patient,
    report::{Check, Report},
};
use serde_json::Value;

/// Fewer are used up by one busy evening.
const FILES_MIN: f64 = 4096.0;
/// A limit that is so close is met soon.
const FULL: f64 = 0.8;

pub async fn check(patient: &Patient, report: &mut Report) {
    match patient.told("/metrics").await {
        Ok(answer) => report.add(files(&answer.text)),
        Err(why) => report.add(Check::unseen("files", why)),
    }
    match patient.told("/api/instances").await {
        Ok(answer) => report.add(redis(&answer.body)),
        Err(why) => report.add(Check::unseen("redis", why)),
    }
}

fn value(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Checklist 224: sockets are files, and each takes memory.
fn files(metrics: &str) -> Check {
    let (Some(open), Some(max)) = (value(metrics, "process_open_fds"), value(metrics, "process_max_fds")) else {
        return Check::unseen("files", "/metrics does not tell of open files");
    };
    let sockets = value(metrics, "holdfast_active_connections").unwrap_or_default();
    let mut seen = format!("{open:.0} of {max:.0} files are open, {sockets:.0} sockets");
    if let Some(bytes) = value(metrics, "process_resident_memory_bytes") {
        seen.push_str(&format!(", {:.0} MiB of memory", bytes / f64::from(1 << 20)));
    }
    match open > max * FULL || max < FILES_MIN {
        false => Check::well("files", seen),
        true => Check::ill(
            "files",
            seen,
            "raise the limit: LimitNOFILE=1048576 (systemd), ulimit -Hn (a shell, before pm2 starts), --ulimit nofile=1048576 (Docker); or add an instance",
        ),
    }
}

fn redis(instances: &Value) -> Check {
    let redis = &instances["redis"];
    if instances.get("redis").is_none() {
        return Check::unseen("redis", "this version does not tell of its Redis");
    }
    if redis.is_null() {
        return Check::well("redis", "none: the registry is in memory, which is enough for one instance");
    }
    let servers = redis["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |server: &Value, name: &str| server[name].as_str().unwrap_or("unknown").to_owned();
    let shown = servers.iter().map(|server| {
        format!(
            "{} {}, maxmemory-policy {}",
            text(server, "address"),
            text(server, "version"),
            text(server, "maxmemoryPolicy")
        )
    });
    let seen = shown.collect::<Vec<_>>().join("; ");
    if redis["state"] != "ok" {
        let fix = "see that it runs, and that its address and password in REDIS_URL are right";
        return Check::ill(
            "redis",
            format!("it does not answer ({})", if seen.is_empty() { "never found" } else { &seen }),
            fix,
        );
    }
    let evicts = |server: &&Value| server["maxmemoryPolicy"].as_str().is_some_and(|policy| policy != "noeviction");
    match servers.iter().find(evicts) {
        None if servers.is_empty() => {
            Check::unseen("redis", "it answers, and which version it is was not found out yet")
        }
        None => Check::well("redis", seen),
        Some(server) => Check::ill(
            "redis",
            format!("{seen}: it throws rows away when it is full"),
            format!(
                "redis-cli{} CONFIG SET maxmemory-policy noeviction (and in redis.conf); instances look again when they connect",
                place(&text(server, "address"))
            ),
        ),
    }
}

/// Where redis-cli finds it. Somebody may paste it, so it holds nothing that a shell would obey, and no option.
fn place(address: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "6379"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-');
    match host.chars().all(is_plain) && !host.is_empty() && !host.starts_with('-') && port.parse::<u16>().is_ok() {
        true => format!(" -h {host} -p {port}"),
        false => " (on the machine of that Redis)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_limit_that_is_close_is_told() {
        let metrics = |open: u32, max: u32| format!("process_open_fds {open}\nprocess_max_fds {max}\n");
        assert!(!files(&metrics(10, 100_000)).is_ill() && files(&metrics(90_000, 100_000)).is_ill());
        assert!(files(&metrics(10, 1024)).is_ill() && !files("").is_ill());
    }

    #[test]
    fn what_is_pasted_is_an_address_and_nothing_else() {
        assert_eq!(place("redis-1.local:6380"), " -h redis-1.local -p 6380");
        assert_eq!(place("[::1]:6379"), " -h ::1 -p 6379");
        for address in ["$(reboot):6379", "a b:6379", "-x:6379", "r:6379;ls", "", ":6379"] {
            assert!(place(address).starts_with(" (on"), "{address}");
        }
    }

    #[test]
    fn a_redis_that_evicts_is_told() {
        let of = |state: &str, policy: Value| json!({ "redis": { "state": state, "servers": [{ "address": "r:6379", "version": "7.2", "maxmemoryPolicy": policy }] } });
        assert!(redis(&of("ok", json!("allkeys-lru"))).is_ill() && redis(&of("down", json!("noeviction"))).is_ill());
        assert!(!redis(&of("ok", json!("noeviction"))).is_ill() && !redis(&of("ok", Value::Null)).is_ill());
        assert!(!redis(&json!({ "redis": null })).is_ill() && !redis(&json!({})).is_ill());
    }
}
