//! The log of events: a stream for each partition, beside its rows, so that a socket ends and its end is logged in one
//! step.

use super::{
    Redis,
    beat::ms,
    link::Fault,
    scripts::{LOG, number, text},
};
use crate::{
    all::Unknown,
    event::{EVENTS_MAX, Event, KEPT, Logged, Place},
    owner::partition,
    record::SocketRecord,
};
use redis::{Value, cmd};
use std::time::Duration;
use tracing::error;

impl Redis {
    pub async fn connected(&self, record: &SocketRecord) {
        if self.outgoing.is_wanted() {
            let (k, event) = (partition(record.id), Event::connected(record, self.now_ms()));
            if self.log_events(k, vec![event.clone()]).await.is_err() {
                // It may lie there all the same; who is told twice sees it by its id.
                self.outgoing.offer(k, Logged::new(event, None));
            }
        }
    }

    /// Logs what happened, to be told from here.
    pub(super) async fn log_events(&self, k: usize, events: Vec<Event>) -> Result<(), Fault> {
        let log = LOG.on([self.keys.events(k)]).arg(EVENTS_MAX).arg(ms(KEPT));
        let said = log.arg(events.iter().map(Event::text).collect::<Vec<_>>()).run(&self.link).await?;
        let mut places = said.iter();
        for event in events {
            self.hand_event_over(k, event, &mut places);
        }
        Ok(())
    }

    /// What the script is given that ends a row and logs that in the same step.
    pub(super) fn with_event(&self, event: &Event) -> [String; 3] {
        [EVENTS_MAX.to_string(), ms(KEPT).to_string(), event.text()]
    }

    /// A script says of each event where it was logged, and how many had to go for it.
    pub(super) fn hand_event_over<'a>(&self, k: usize, event: Event, said: &mut impl Iterator<Item = &'a Value>) {
        let place = Place::parse(text(said.next()));
        self.outgoing.dropped(number(said.next()));
        if place.is_none() {
            error!(
                "{} in Redis is of a type that is not ours; remove it by hand, it keeps events",
                self.keys.events(k)
            );
        }
        self.outgoing.offer(k, Logged::new(event, place));
    }

    pub async fn event_told(&self, k: usize, at: Place) {
        // One that stays is told again, under the same id.
        let _ = self.link.ask(cmd("XDEL").arg(self.keys.events(k)).arg(at.to_string())).await;
    }

    pub async fn events_left(&self, k: usize) -> Result<usize, Unknown> {
        let (key, too_old) = (self.keys.events(k), self.now_ms().saturating_sub(ms(KEPT)));
        let unavailable = |_| Unknown::Unavailable;
        let left = self.ask_number(cmd("XLEN").arg(&key)).await.map_err(unavailable)?.unwrap_or_default();
        if left == 0 {
            return Ok(0);
        }
        let trim = self.ask_number(cmd("XTRIM").arg(&key).arg("MINID").arg(too_old)).await;
        let gone = trim.map_err(unavailable)?.unwrap_or_default();
        self.outgoing.dropped(gone);
        Ok(usize::try_from(left.saturating_sub(gone)).unwrap_or(usize::MAX))
    }

    pub async fn events(
        &self,
        k: usize,
        after: Option<Place>,
        older_than: Duration,
        limit: usize,
    ) -> Result<Vec<Logged>, Unknown> {
        let mut from = after.map_or("-".to_owned(), |after| format!("({after}"));
        // Redis' clock is known to a few milliseconds: who wants all gets those of this moment, too.
        let until = match older_than.is_zero() {
            true => "+".to_owned(),
            false => self.now_ms().saturating_sub(ms(older_than)).to_string(),
        };
        loop {
            let mut command = cmd("XRANGE");
            command.arg(self.keys.events(k)).arg(&from).arg(&until).arg("COUNT").arg(limit);
            let Ok(Value::Array(entries)) = self.link.ask(&command).await else { return Err(Unknown::Unavailable) };
            let Some(last) = entries.iter().rev().find_map(place) else { return Ok(Vec::new()) };
            let events: Vec<_> = entries.iter().filter_map(read).collect();
            if !events.is_empty() {
                return Ok(events);
            }
            // All of a later version: whoever understands them tells them, or they go at their time.
            from = format!("({last}");
        }
    }
}

fn place(entry: &Value) -> Option<Place> {
    let Value::Array(entry) = entry else { return None };
    Place::parse(text(entry.first()))
}

fn read(entry: &Value) -> Option<Logged> {
    let Value::Array(parts) = entry else { return None };
    let Some(Value::Array(fields)) = parts.get(1) else { return None };
    Some(Logged::new(Event::read(text(fields.get(1)))?, Some(place(entry)?)))
}
