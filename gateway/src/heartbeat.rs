//! Once a second: every socket's life is looked at, the lease renewed, the figures brought up to
//! date. Nothing ticks per socket; this walk is all there is. The fleet is counted beside it, since that is
//! a question to another machine, and no ping waits for its answer.

use crate::{
    clock,
    close::Close,
    gateway::Gateway,
    hooks::notices::Kind,
    metrics::Fleet,
    sockets::{SLICE, Socket},
};
use registry::{Health, SocketId, lease::BEAT};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, info};

/// After the start, sockets need a while to come back before their number means anything.
const GRACE: Duration = Duration::from_secs(60);

/// Between two looks this long, the process was stopped, or its machine was.
const STOOD_STILL: Duration = Duration::from_secs(3);

/// How often the fleet is counted where that is a question to another machine.
const COUNT: Duration = Duration::from_secs(10);

/// Counts with enough sockets, until the alarm is over.
const RECOVERED_AFTER: u32 = 5;

/// Beats until the instance ends.
pub async fn run(gateway: Arc<Gateway>) {
    tokio::join!(look_after_sockets(&gateway), count_fleet(&gateway));
}

async fn look_after_sockets(gateway: &Gateway) {
    let mut looks = interval(pace(gateway.config.ping_interval, gateway.config.ping_timeout));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut before) = (clock::now_ms(), 0);
    let mut awake_since: Option<u32> = None;
    let mut beaten: Option<Instant> = None;
    loop {
        looks.tick().await;
        let now = clock::now_ms();
        if clock::since(now, last) > millis(STOOD_STILL) {
            // Whoever stood still did not listen: what came meanwhile has to be read first.
            awake_since = Some(now);
        }
        awake_since = awake_since.filter(|since| clock::since(now, *since) <= millis(gateway.config.ping_timeout));
        sweep(gateway, last, now, awake_since.is_some()).await;
        let here = gateway.courier.sockets.len();
        gateway.metrics.active.set(here as i64);
        // Announced just before, so that both figures are of the same moment.
        gateway.courier.registry.announce(gateway.serving(), here);
        let drift = gateway.courier.registry.figures().drift;
        // What two looks have in common: a socket on its way in or out is no drift.
        gateway.metrics.drift.set(before.min(drift) as i64);
        (last, before) = (now, drift);
        if beaten.is_none_or(|beaten| beaten.elapsed() >= BEAT - BEAT / 10) {
            beaten = Some(Instant::now());
            gateway.connect_rate.forget_the_quiet();
            gateway.trials.forget_the_quiet();
            gateway.auth.forget_the_old();
            gateway.complaints.forget_the_old();
        }
    }
}

/// A second, or less where the settings ask for pings or deaths within less.
fn pace(ping_interval: Duration, ping_timeout: Duration) -> Duration {
    BEAT.min(ping_interval / 2).min(ping_timeout / 2)
}

/// Counts the fleet again and again. What cannot be counted is not zero, and not what it was: it is not said.
async fn count_fleet(gateway: &Gateway) {
    let mut looks = interval(BEAT);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut alarm, mut counted) = (Alarm::default(), None::<Instant>);
    loop {
        looks.tick().await;
        let is_known = match gateway.courier.registry.health() {
            Health::Up if counted.is_some_and(|counted| counted.elapsed() < COUNT) => continue,
            Health::Here | Health::Up => count(gateway, &mut alarm).await,
            Health::Down => false,
        };
        counted = is_known.then(Instant::now);
        if !is_known {
            gateway.metrics.fleet.store(None);
        }
    }
}

/// Whether it could be counted.
async fn count(gateway: &Gateway, alarm: &mut Alarm) -> bool {
    let Ok(sockets) = gateway.courier.registry.total().await else { return false };
    let below_minimum = gateway.config.sockets_min.is_some_and(|min| sockets < min);
    gateway.metrics.fleet.store(Some(Arc::new(Fleet { sockets, below_minimum })));
    alarm.look(gateway, sockets, gateway.courier.sockets.most().max(sockets));
    true
}

/// Pings whose turn it is, and ends what is dead.
async fn sweep(gateway: &Gateway, last: u32, now: u32, just_awake: bool) {
    let interval = millis(gateway.config.ping_interval);
    let timeout = millis(gateway.config.ping_timeout);
    let (mut healthy, mut queued, mut after) = (0_i64, 0_usize, SocketId::FIRST);
    loop {
        let slice = gateway.courier.sockets.walk(after, SLICE);
        let Some(end) = slice.last() else { break };
        after = end.id;
        if !gateway.courier.registry.is_alone() {
            tell_activity(gateway, &slice, last);
        }
        for socket in &slice {
            let line = &socket.line;
            queued += line.unsent();
            if !line.is_open() {
                continue;
            }
            // Bytes that move are life, too: behind a long queue a ping may not have gone out yet.
            let moving = line.unsent() > 0 && line.stalled_ms(now) <= timeout;
            let stalled = line.stalled_ms(now) > timeout;
            let silent = !moving && line.silent_ms(now) > interval.saturating_add(timeout);
            // Whoever stood still has not listened, and blames nobody.
            if stalled && !just_awake {
                // Its own task writes the verdict: a registry that is slow must not keep pings waiting.
                line.close(Close::TooSlow);
            } else if silent && !just_awake {
                line.close(Close::PingTimeout);
            } else {
                healthy += i64::from(!stalled && !silent);
                if its_turn(socket.id.spread(), interval, last, now) {
                    line.ping(now);
                }
            }
        }
        tokio::task::yield_now().await;
    }
    gateway.metrics.healthy.set(healthy);
    gateway.metrics.queued_bytes.set(queued as i64);
}

/// Whoever is asked for the most active socket of a store or user has to know where that is.
fn tell_activity(gateway: &Gateway, slice: &[Arc<Socket>], last: u32) {
    let spoke = slice.iter().filter(|socket| socket.line.spoke_since(last));
    let groups: Vec<_> = spoke.flat_map(|socket| socket.record().called_by().collect::<Vec<_>>()).collect();
    if !groups.is_empty() {
        gateway.courier.registry.active(&groups);
    }
}

/// Each socket has its own phase, so that pings are spread over the interval and need no timer.
fn its_turn(phase: u64, interval: u32, last: u32, now: u32) -> bool {
    let interval = u64::from(interval.max(1));
    let turns = |at: u32| (u64::from(at) + phase % interval) / interval;
    turns(last) != turns(now)
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// Says once that too few are connected, and once that they are back.
#[derive(Default)]
struct Alarm {
    seen_enough: bool,
    seen_any: bool,
    raised: bool,
    /// For how many counts in a row there have been enough.
    enough_for: u32,
    empty: bool,
}

impl Alarm {
    /// `most`: those who came and went between two beats were there all the same.
    fn look(&mut self, gateway: &Gateway, fleet: usize, most: usize) {
        if gateway.draining.is_cancelled() {
            return;
        }
        self.look_at_minimum(gateway, fleet, most);
        self.seen_any |= most > 0;
        let empty = self.seen_any && fleet == 0 && gateway.config.sockets_min.is_some();
        if empty && !self.empty {
            error!("🚨 No healthy sockets found!");
        }
        self.empty = empty;
    }

    fn look_at_minimum(&mut self, gateway: &Gateway, fleet: usize, most: usize) {
        let Some(min) = gateway.config.sockets_min else { return };
        self.seen_enough |= most >= min;
        let armed = self.seen_enough || Instant::now().duration_since(gateway.started) > GRACE;
        // Hysteresis in time: a number that swings around the threshold does not raise it again and again.
        self.enough_for = if fleet >= min { self.enough_for + 1 } else { 0 };
        let recovered = self.enough_for >= RECOVERED_AFTER;
        if !self.raised && armed && fleet < min {
            self.raised = true;
            error!("🚨 Socket count below threshold! {fleet} connected, MIN_SOCKETS is {min}");
            notify(gateway, Kind::Below, fleet, min);
        } else if self.raised && recovered {
            self.raised = false;
            info!("socket count is back: {fleet} connected, MIN_SOCKETS is {min}");
            notify(gateway, Kind::Back, fleet, min);
        }
    }
}

/// The application is told, if it wants to hear of anything.
fn notify(gateway: &Gateway, kind: Kind, sockets: usize, minimum: usize) {
    let hooks = &gateway.desk.hooks;
    if hooks.events.is_some() {
        let data = json!({ "instance": gateway.instance, "sockets": sockets, "minimum": minimum });
        hooks.notices.add(kind, &data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_has_its_turn_once_per_interval() {
        for phase in [0, 1, 999, 29_999, u64::MAX] {
            let turns = (0..60).filter(|s| its_turn(phase, 30_000, s * 1000, (s + 1) * 1000)).count();
            assert_eq!(turns, 2, "{phase}");
        }
    }
}
