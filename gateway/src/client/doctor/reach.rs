//! Is anybody there, is it a Holdfast, and how is it.

use super::{
    patient::{Answer, Knock, Patient, words_of_the_server},
    report::{Check, Report},
};
use crate::{
    client::{dial::Unreached, exit},
    gateway::VERSION,
};
use std::time::Duration;

/// For the first frame of whoever else is there.
const A_MOMENT: Duration = Duration::from_secs(1);

/// Goes on only where there is a Holdfast; else it says with which code to end.
pub async fn check(patient: &Patient, report: &mut Report) -> Result<(), u8> {
    let dialled = match patient.dial().await {
        Ok(dialled) => dialled,
        Err(unreached) => {
            let code = if matches!(unreached, Unreached::Certificate(_)) { exit::FAILED } else { exit::UNREACHABLE };
            report.add(unreached_check(patient, &unreached));
            return Err(code);
        }
    };
    let tls = dialled.tls.map_or(String::new(), |(took, version)| format!(", {version} after {}", ms(took)));
    report.add(Check::well(
        "reach",
        format!("{} is {}, TCP after {}{tls}", patient.address, dialled.peer, ms(dialled.tcp)),
    ));
    drop(dialled);
    let health = match patient.get("/health").await {
        Ok(health) => health,
        Err(why) => {
            let fix = if patient.address.is_tls {
                "see what listens on that port"
            } else {
                "see what listens on that port; if it speaks TLS, write https://"
            };
            report.add(Check::ill("http", format!("no HTTP comes back: {why}"), fix));
            return Err(exit::UNREACHABLE);
        }
    };
    report.add(Check::well("http", format!("GET {}/health → {}", patient.prefix, health.status_line())));
    who_is_there(patient, report, &health).await
}

fn unreached_check(patient: &Patient, unreached: &Unreached) -> Check {
    let address = &patient.address;
    match unreached {
        Unreached::Name(why) => Check::ill(
            "name",
            format!("{} is not known: {why}", address.host),
            // A word alone may have been meant as anything.
            format!(
                "{}see that it is spelled right, and that its DNS record (A or AAAA) is there: getent hosts shows what this machine knows",
                if address.host.contains('.') { "" } else { "write http://host:port or https://host; " }
            ),
        ),
        Unreached::Port(why) => Check::ill(
            "port",
            format!("nobody answers at {address}: {why}"),
            "see that the proxy or gateway runs (systemctl status, pm2 list) and listens on that port (ss -ltnp), and that no firewall is in between",
        ),
        Unreached::Certificate(why) => Check::ill(
            "tls",
            format!("its certificate is not trusted: {why}"),
            "browsers refuse it, too: get one that is signed (certbot --nginx), with the whole chain in ssl_certificate (fullchain.pem);\nname your own CA in SSL_CERT_FILE, or look on in spite of it with --insecure",
        ),
        Unreached::Tls(why) => Check::ill(
            "tls",
            format!("no TLS comes about: {why}"),
            format!("if it speaks plain HTTP, write http://; else see what listens on port {}", address.port),
        ),
    }
}

async fn who_is_there(patient: &Patient, report: &mut Report, health: &Answer) -> Result<(), u8> {
    let member = |name: &str| health.body[name].as_str();
    let is_ours = health.instance().is_some() || (member("redis").is_some() && member("instance").is_some());
    let version = member("version").filter(|_| member("status").is_some());
    if is_ours && health.status == 200 {
        report.add(version_check(version, health.instance()));
        report.add(health_check(patient, health).await);
        return Ok(());
    }
    // Some proxies pass on the door alone.
    let knock = patient.knock().await;
    if let Ok(Knock { instance: Some(instance), .. }) = &knock {
        report.add(Check::ill(
            "holdfast",
            format!("{instance} answers at {}, but {}/health does not come from it", patient.door, patient.prefix),
            "pass everything on, not the door alone: location / { proxy_pass http://holdfast; … }",
        ));
        return Ok(());
    }
    let server = health.header("server").unwrap_or("a server that does not name itself").to_owned();
    let (seen, fix) = match (knock, health.status) {
        (_, 502 | 504) => (
            format!("{server} is there, and nobody behind it ({})", health.status_line()),
            "start the gateway (holdfast serve), and see that proxy_pass or upstream names its address;\non SELinux: setsebool -P httpd_can_network_connect 1".to_owned(),
        ),
        (_, 301 | 302 | 307 | 308) => (
            format!("{server} sends elsewhere ({})", health.status_line()),
            match health.header("location") {
                Some(location) => format!("if that is yours, ask there; {}", words_of_the_server(location)),
                None => "ask at the address where it serves; it names none".to_owned(),
            },
        ),
        (Ok(Knock { answer: Ok(mut socket), .. }), _) => {
            let first = socket.hear(A_MOMENT).await.map_or_else(|why| why, |text| text.chars().take(80).collect());
            socket.close().await;
            (
                format!("{server} opens WebSockets, but it is no Holdfast: its first frame should be hi ({first})"),
                "an older gateway may run here: start Holdfast on this port, or let the proxy pass on to it".to_owned(),
            )
        }
        (_, _) if version.is_some() => (
            format!("what answers says version {} and is no Holdfast that this doctor knows", version.unwrap_or_default()),
            "an older gateway may run here: start Holdfast on this port, or let the proxy pass on to it".to_owned(),
        ),
        // As nginx says it: "The plain HTTP request was sent to HTTPS port".
        (_, 400) if !patient.address.is_tls => (
            format!("{server} does not like plain HTTP here ({})", health.status_line()),
            "if it speaks TLS, write https://; else name the port of the gateway".to_owned(),
        ),
        _ => (
            format!("{server} answers, and it is no Holdfast ({})", health.status_line()),
            format!(
                "name the port of the gateway, or let the web server pass {} on: location / {{ proxy_pass http://127.0.0.1:8080; … }} (README, Behind nginx)",
                patient.door
            ),
        ),
    };
    report.add(Check::ill("holdfast", seen, fix));
    Err(exit::UNREACHABLE)
}

fn version_check(version: Option<&str>, instance: Option<&str>) -> Check {
    let instance = instance.map_or(String::new(), |instance| format!(", instance {instance}"));
    match version {
        None => Check::ill(
            "holdfast",
            format!("it does not say which version it is{instance}"),
            format!("it is older than this doctor: install {VERSION} there"),
        ),
        Some(version) if numbers(version) < numbers(VERSION) => Check::ill(
            "holdfast",
            format!("version {version}{instance}, older than this doctor ({VERSION})"),
            format!("install {VERSION} there, one instance after the other"),
        ),
        Some(version) => Check::well("holdfast", format!("version {version}{instance}")),
    }
}

/// The parts of a version, as they are compared.
fn numbers(version: &str) -> Vec<u64> {
    let plain = version.split(['-', '+']).next().unwrap_or_default();
    plain.split('.').map(|part| part.parse().unwrap_or(0)).collect()
}

async fn health_check(patient: &Patient, health: &Answer) -> Check {
    let member = |name: &str| health.body[name].as_str().unwrap_or("unknown");
    let seen = format!(
        "{}, redis {}, {} sockets, up for {} s",
        member("status"),
        member("redis"),
        health.body["connections"],
        health.body["uptime"]
    );
    if health.body["status"] != "healthy" {
        return Check::ill(
            "health",
            seen,
            "see that Redis runs and can be reached from there (redis-cli -u \"$REDIS_URL\" ping); the log of the instance says what it meets",
        );
    }
    match patient.get("/health/ready").await {
        Ok(ready) if ready.status == 200 => Check::well("health", format!("{seen}, ready")),
        Ok(ready) => {
            let hint = ready.hint().unwrap_or_else(|| "see its log".to_owned());
            Check::ill("health", format!("{seen}; not ready: {}", ready.problem()), hint)
        }
        Err(why) => Check::ill("health", format!("{seen}; /health/ready: {why}"), "see its log"),
    }
}

/// For people.
pub fn ms(span: Duration) -> String {
    match span.as_secs_f64() * 1000.0 {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(numbers("0.9.0") < numbers("0.10.0") && numbers("1.2.0-rc.1") == numbers("1.2.0"));
        assert!(version_check(None, None).is_ill() && version_check(Some("0.0.1"), Some("web1")).is_ill());
        assert!(!version_check(Some(VERSION), None).is_ill() && !version_check(Some("99.0.0"), None).is_ill());
    }
}
