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
                "redis-cli -h {} CONFIG SET maxmemory-policy noeviction (and in redis.conf); instances look again when they connect",
                text(server, "address").split(':').next().unwrap_or_default()
            ),
        ),
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
    fn a_redis_that_evicts_is_told() {
        let of = |state: &str, policy: Value| json!({ "redis": { "state": state, "servers": [{ "address": "r:6379", "version": "7.2", "maxmemoryPolicy": policy }] } });
        assert!(redis(&of("ok", json!("allkeys-lru"))).is_ill() && redis(&of("down", json!("noeviction"))).is_ill());
        assert!(!redis(&of("ok", json!("noeviction"))).is_ill() && !redis(&of("ok", Value::Null)).is_ill());
        assert!(!redis(&json!({ "redis": null })).is_ill() && !redis(&json!({})).is_ill());
    }
}
