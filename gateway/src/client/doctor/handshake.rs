//! The door: the handshake with both of its sides, what the proxy made of it, the first frames.

use super::{
    patient::{Answer, Knock, Patient},
    reach::ms,
    report::{Check, Report},
};
use crate::client::socket::Socket;
use registry::epoch_ms;
use serde_json::Value;
use std::time::{Duration, Instant};

/// For the first frame, and for an answer.
const SOON: Duration = Duration::from_secs(5);
/// A clock that is further off confuses whoever compares logs, and clients that go by deadlines.
const CLOCK_MS_MAX: f64 = 1000.0;
/// Somebody whom no gateway knows.
const SOMEBODY: &str = "holdfast-doctor";

pub const UPGRADE_LINES: &str = "proxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection \"upgrade\";";
const PROXY_LINES: &str = "in the nginx location that leads to the gateway:\nproxy_http_version 1.1;\n";

/// Opens a socket; both sides of the handshake are shown (checklist 140). Gives back the instance that has answered.
pub async fn check(patient: &Patient, report: &mut Report) -> Option<String> {
    let Knock { answer, lines, instance, request_id, .. } = match patient.knock().await {
        Ok(knock) => knock,
        Err(why) => {
            report.add(Check::ill("handshake", format!("{} does not open: {why}", patient.door), BROKEN));
            unopened(report);
            return None;
        }
    };
    let socket = match answer {
        Ok(socket) => socket,
        Err(refusal) => {
            report.add(refused(patient, &refusal).showing(&lines));
            unopened(report);
            return instance;
        }
    };
    let (by, request) = (instance.as_deref().unwrap_or("an instance without a name"), request_id.unwrap_or_default());
    let seen = format!("{} opens on {by} (request {request}); Upgrade and Connection arrive", patient.door);
    report.add(Check::well("handshake", seen).showing(&lines));
    greeting(socket, report).await;
    instance
}

const BROKEN: &str =
    "something in between ends the connection: look at the error log of the proxy, and at that of the gateway";

fn unopened(report: &mut Report) {
    for name in ["greeting", "clock"] {
        report.add(Check::unseen(name, "no socket could be opened"));
    }
}

/// Why a door stays shut, and what opens it.
fn refused(patient: &Patient, answer: &Answer) -> Check {
    let ill = |seen: String, fix: String| Check::ill("handshake", seen, fix);
    let title = answer.body["title"].as_str().unwrap_or_default();
    let hint = answer.hint().unwrap_or_else(|| "its log says why".to_owned());
    match (answer.instance(), answer.status, title) {
        (None, 502 | 504, _) => ill(
            format!("the proxy does not reach a gateway ({})", answer.status_line()),
            "start the gateway, and see that proxy_pass or upstream names its address".into(),
        ),
        (None, _, _) => ill(
            format!("{} is answered by something else than the gateway ({})", patient.door, answer.status_line()),
            format!("pass it on: location {} {{ proxy_pass http://holdfast; … }}", patient.door),
        ),
        (_, 426, "Expected Upgrade: websocket") => ill(
            format!("the proxy strips the Upgrade header: the gateway did not get it ({})", answer.problem()),
            format!("{PROXY_LINES}{UPGRADE_LINES}"),
        ),
        (_, 400, "Invalid Connection header" | "Invalid Upgrade header") => ill(
            format!("the proxy changes the Upgrade or Connection header ({})", answer.problem()),
            format!("{PROXY_LINES}{UPGRADE_LINES}"),
        ),
        (_, 401, _) => ill(
            format!("the gateway wants a credential ({})", answer.problem()),
            "give the doctor one that counts: --key, --token or --cookie, as @FILE so that it stays out of the history"
                .into(),
        ),
        (_, 400, _) => {
            ill(answer.problem(), format!("write the names into the URL: {}?user_id=…; {hint}", patient.door))
        }
        _ => ill(answer.problem(), hint),
    }
}

/// `hi` first, then a ping that comes back, and what the clock there says.
async fn greeting(mut socket: Socket, report: &mut Report) {
    let said = async {
        let first = socket.hear(SOON).await?;
        let hi: Value = serde_json::from_str(&first).unwrap_or_default();
        if hi["type"] != "hi" {
            return Err(format!("the first frame is no hi: {}", first.chars().take(80).collect::<String>()));
        }
        let began = Instant::now();
        answer_to(&mut socket, r#"{"evt":"ping"}"#, |text| text == r#"{"evt":"pong"}"#).await?;
        let took = began.elapsed();
        let (began, asked_at) = (Instant::now(), epoch_ms());
        let fresh = answer_to(&mut socket, r#"{"evt":"hi"}"#, |text| text.contains("\"hi\"")).await?;
        let fresh: Value = serde_json::from_str(&fresh).unwrap_or_default();
        let half = began.elapsed().as_secs_f64() * 500.0;
        let ahead = fresh["time"].as_f64().unwrap_or_default() - asked_at as f64 - half;
        Ok((hi, took, ahead, half))
    };
    let outcome = said.await;
    socket.close().await;
    match outcome {
        Ok((hi, took, ahead, half)) => {
            let (socket, every) = (hi["socketId"].as_str().unwrap_or_default(), &hi["pingInterval"]);
            let seen = format!("hi comes first ({socket}, pings every {every} s), ping and pong in {}", ms(took));
            report.add(Check::well("greeting", seen));
            report.add(clock(ahead, half));
        }
        Err(why) => {
            report.add(Check::ill("greeting", why, BROKEN));
            report.add(Check::unseen("clock", "no hi came that tells the time there"));
        }
    }
}

/// The frame that is meant; others may come before it.
async fn answer_to(socket: &mut Socket, says: &str, is_meant: impl Fn(&str) -> bool) -> Result<String, String> {
    socket.say(says).await.map_err(|why| format!("{says} cannot be said: {why}"))?;
    let until = Instant::now() + SOON;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let text = socket.hear(left).await.map_err(|why| format!("{says} has no answer: {why}"))?;
        if is_meant(&text) {
            return Ok(text);
        }
    }
}

fn clock(ahead: f64, half: f64) -> Check {
    let seen = format!("the clock there is {ahead:+.0} ms from ours (± {half:.0} ms)");
    match ahead.abs() - half > CLOCK_MS_MAX {
        false => Check::well("clock", seen),
        true => {
            Check::ill("clock", seen, "set both by the network: timedatectl set-ntp true (chrony, systemd-timesyncd)")
        }
    }
}

/// What a proxy does to the headers that say who asks, and whom (checklist 140).
pub async fn headers(patient: &Patient, report: &mut Report) {
    report.add(host(patient).await.unwrap_or_else(|why| Check::unseen("host", why)));
    report.add(identity(patient).await.unwrap_or_else(|why| Check::unseen("identity", why)));
}

/// A browser that asks its own address sends no `Origin`; then the gateway goes by the `Host`, and names it when it
/// refuses.
async fn host(patient: &Patient) -> Result<Check, String> {
    let answer = patient.ask(patient.asked("GET", "/health").with("Sec-Fetch-Site", "same-origin")).await?;
    let sent = patient.address.authority();
    if answer.instance().is_none() {
        return Err(format!("/health is not answered by the gateway ({})", answer.status_line()));
    }
    let detail = answer.body["detail"].as_str().unwrap_or_default();
    let got = detail.split_once("://").and_then(|(_, rest)| rest.split(' ').next());
    let fix = "in nginx: proxy_set_header Host $http_host;";
    Ok(match (answer.status, got) {
        (403, Some(got)) if !got.eq_ignore_ascii_case(&sent) && !is_same(got, &sent) => {
            Check::ill("host", format!("the proxy changes Host: {sent} was sent, {got} arrives"), fix)
        }
        (403, Some(got)) => Check::well("host", format!("Host arrives as it was sent ({got})")),
        (200, _) => Check::well("host", format!("Host is accepted ({sent})")),
        _ => Check::unseen("host", answer.problem()),
    })
}

/// nginx's `$host` leaves the port out, which is as good here.
fn is_same(got: &str, sent: &str) -> bool {
    sent.split(':').next() == Some(got)
}

/// A stranger who names himself by the header of a trusted proxy must not be believed.
async fn identity(patient: &Patient) -> Result<Check, String> {
    let asked = patient.asked("GET", "/api/auth/session").with("X-User-ID", SOMEBODY);
    let answer = patient.ask(asked).await?;
    if answer.instance().is_none() {
        return Err(format!("/api/auth/session is not answered by the gateway ({})", answer.status_line()));
    }
    let (auth, user) = (answer.body["auth"].as_str().unwrap_or_default(), answer.body["userId"].as_str());
    let fix = "in nginx, for every location that leads to the gateway:\nproxy_set_header X-User-ID \"\";\nproxy_set_header X-Store-ID \"\";\nproxy_set_header X-Room-ID \"\";";
    Ok(match (answer.status, user == Some(SOMEBODY)) {
        (200, true) if auth == "proxy" => Check::ill(
            "identity",
            "an X-User-ID that anybody sends is believed: whoever asks is whom he says he is",
            fix,
        ),
        (200, true) if patient.is_direct(&answer.heard) => Check::unseen(
            "identity",
            "asked from this machine, which is a trusted proxy: X-User-ID counts from here; ask through the proxy to see",
        ),
        (200, true) => Check::ill(
            "identity",
            "an X-User-ID that anybody sends reaches the gateway and is believed, as user_id in the query is while AUTH=none",
            fix,
        ),
        (200, false) | (401 | 403, _) => Check::well("identity", "an X-User-ID that a stranger sends is not believed"),
        _ => Check::unseen("identity", answer.problem()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_wrong_only_beyond_what_the_way_explains() {
        assert!(!clock(900.0, 1.0).is_ill() && !clock(-1400.0, 500.0).is_ill());
        assert!(clock(1400.0, 1.0).is_ill() && clock(-5000.0, 500.0).is_ill());
    }
}
