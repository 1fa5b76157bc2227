//! What was measured, for people and for programs.

use super::{
    callers::{Asked, Sent},
    crowd::Seen,
    times::Times,
};
use serde_json::{Value, json};
use std::time::Duration;

/// From here on what is measured is this program as much as the gateway.
const BUSY: f64 = 0.9;

pub struct Report<'a> {
    pub url: String,
    pub wanted: usize,
    /// Sockets that ended were to come back.
    pub restarts: bool,
    pub seen: &'a Seen,
    pub callers: usize,
    pub floor: &'a Asked,
    pub calls: &'a Asked,
    pub sent: &'a Sent,
    /// How much of one core this side took.
    pub own: Option<f64>,
}

impl Report<'_> {
    /// Every socket came and stayed, or came back; every call was answered, every send heard.
    pub fn is_well(&self) -> bool {
        let failures = [&self.seen.refused, &self.floor.failed, &self.calls.failed, &self.sent.failed];
        failures.iter().all(|reasons| reasons.count() == 0)
            && self.seen.opening.count() == self.wanted as u64
            && (self.callers == 0 || self.calls.times.count() > 0)
            && if self.restarts { self.seen.away == 0 } else { self.seen.ended.count() == 0 }
            && self.seen.heard.count() == self.sent.matched
            && self.sent.delivered == self.sent.matched
    }

    pub fn json(&self) -> Value {
        let Self { seen, floor, calls, sent, .. } = self;
        json!({
            "url": self.url,
            "ok": self.is_well(),
            "sockets": {
                "wanted": self.wanted, "opened": seen.opening.count(), "ms": quantiles(&seen.opening),
                "instances": seen.instances, "refused": seen.refused.json(), "ended": seen.ended.json(),
                "cameBack": seen.returning.count(), "backMs": quantiles(&seen.returning), "away": seen.away,
            },
            "floor": { "perSecond": floor.per_second().round(), "ms": quantiles(&floor.times), "failed": floor.failed.json() },
            "calls": {
                "callers": self.callers, "seconds": calls.span.as_secs_f64(), "answered": calls.times.count(),
                "perSecond": calls.per_second().round(), "ms": quantiles(&calls.times), "failed": calls.failed.json(),
                "forbidden": calls.forbidden,
            },
            "sends": {
                "count": sent.count, "matched": sent.matched, "delivered": sent.delivered, "heard": seen.heard.count(),
                "ms": quantiles(&seen.heard), "failed": sent.failed.json(),
            },
            "ownCores": self.own,
        })
    }

    pub fn lines(&self) -> Vec<String> {
        let Self { seen, floor, calls, sent, .. } = self;
        let instances: Vec<_> = seen.instances.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let mut lines = vec![
            line("gateway", format!("{}: {}", self.url, instances.join(", "))),
            line("sockets", format!("{} of {} opened, {}", seen.opening.count(), self.wanted, words(&seen.opening))),
        ];
        lines.extend(trouble("refused", &seen.refused));
        lines.extend(trouble("ended", &seen.ended));
        if self.restarts {
            let (back, away) = (seen.returning.count(), seen.away);
            lines.push(line("", format!("{back} came back, {away} did not, {}", words(&seen.returning))));
        }
        if self.callers > 0 {
            let said = |asked: &Asked| {
                format!(
                    "{} in {:.1} s, {:.0}/s, {}",
                    asked.times.count(),
                    asked.span.as_secs_f64(),
                    asked.per_second(),
                    words(&asked.times)
                )
            };
            lines.push(line("floor", format!("GET /health/live, {} at once: {}", self.callers, said(floor))));
            lines.extend(trouble("failed", &floor.failed));
            let over_floor = floor.times.at(0.5).zip(calls.times.at(0.5));
            let over_floor = over_floor
                .map(|(floor, call)| format!(", p50 {:.1} × floor", call.as_secs_f64() / floor.as_secs_f64()));
            lines.push(line(
                "calls",
                format!("{} at once: {}{}", self.callers, said(calls), over_floor.unwrap_or_default()),
            ));
            lines.extend(trouble("failed", &calls.failed));
            lines.extend(calls.forbidden.as_ref().map(|mend| line("", format!("left out after that: {mend}"))));
        }
        if sent.count > 0 {
            let heard = format!("{} of {} heard", seen.heard.count(), sent.matched);
            lines.push(line("sends", format!("{} to all: {heard}, {}", sent.count, words(&seen.heard))));
        }
        lines.extend(trouble("failed", &sent.failed));
        if let Some(own) = self.own {
            let busy = if own > BUSY { ": busy itself, so a second one beside it would show more" } else { "" };
            lines.push(line("this side", format!("{:.0} % of one core{busy}", own * 100.0)));
        }
        lines
    }
}

fn line(name: &str, words: impl AsRef<str>) -> String {
    format!("{name:<10} {}", words.as_ref())
}

fn trouble(name: &str, reasons: &super::reasons::Reasons) -> Option<String> {
    (reasons.count() > 0).then(|| line("", format!("{} {name}: {reasons}", reasons.count())))
}

fn ms(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e5).round() / 100.0
}

fn quantiles(times: &Times) -> Value {
    let at = |share| times.at(share).map(ms);
    json!({ "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1.0) })
}

fn words(times: &Times) -> String {
    let at = |share| times.at(share).map_or("-".to_owned(), |span| ms(span).to_string());
    format!("p50 {} ms, p95 {}, p99 {}, slowest {}", at(0.5), at(0.95), at(0.99), at(1.0))
}
