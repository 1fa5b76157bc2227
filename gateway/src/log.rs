//! Log lines: `text` for people, `json` for machines. Written by a thread of their own through a
//! bounded queue, so that a stuck pipe cannot hold up a request; what does not fit is counted.

use crate::{clock, config::LogFormat};
use serde_json::{Map, Value};
use std::{fmt, io};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

/// The running log: keeps its writer alive, and can change the level.
pub struct Log {
    _writer: WorkerGuard,
    filter: reload::Handle<EnvFilter, Registry>,
    dropped: ErrorCounter,
}

impl Log {
    /// Starts logging to standard output.
    pub fn start(format: LogFormat, filter: &str) -> Self {
        let (writer, guard) = NonBlockingBuilder::default().lossy(true).finish(io::stdout());
        let dropped = writer.error_counter();
        let (filter, handle) = reload::Layer::new(EnvFilter::new(filter));
        let layer = tracing_subscriber::fmt::layer().event_format(Lines(format)).with_writer(writer);
        // Only a second logger in one process could fail here, and then the first one serves.
        let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
        Self { _writer: guard, filter: handle, dropped }
    }

    /// Changes what is logged, from now on.
    pub fn set_filter(&self, filter: &str) {
        let _ = self.filter.reload(EnvFilter::new(filter));
    }

    /// How many lines found no room.
    pub fn dropped(&self) -> ErrorCounter {
        self.dropped.clone()
    }
}

struct Lines(LogFormat);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        let now = clock::timestamp();
        let level = *event.metadata().level();
        match self.0 {
            LogFormat::Text => {
                write!(writer, "{now} {level:>5} {}", line.message)?;
                for (name, value) in &line.fields {
                    write!(writer, " {name}={value}")?;
                }
                writeln!(writer)
            }
            LogFormat::Json => {
                let mut object = Map::new();
                object.insert("timestamp".into(), now.into());
                object.insert("level".into(), level.as_str().to_lowercase().into());
                object.insert("target".into(), event.metadata().target().into());
                object.insert("message".into(), without_sign(&line.message).into());
                object.extend(line.fields);
                writeln!(writer, "{}", Value::from(object))
            }
        }
    }
}

/// Machines get the words without the sign in front.
fn without_sign(message: &str) -> &str {
    match message.chars().next() {
        Some(first) if !first.is_ascii() => message.trim_start_matches(|c: char| !c.is_ascii()).trim_start(),
        _ => message,
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: Map<String, Value>,
}

impl Line {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = one_line(text),
            (name, value) => drop(self.fields.insert(name.into(), value)),
        }
    }
}

/// Whatever a client put into its names, a line stays one line.
fn one_line(text: String) -> String {
    match text.contains(char::is_control) {
        true => {
            text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
        }
        false => text,
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_get_no_signs_and_nobody_gets_two_lines() {
        assert_eq!(without_sign("✅ Socket ws_1 added."), "Socket ws_1 added.");
        assert_eq!(without_sign("⚠️ Socket ws_1"), "Socket ws_1");
        assert_eq!(without_sign("User connected"), "User connected");
        assert_eq!(one_line("a\nb\u{1b}[31m".into()), "a\\nb\\u{1b}[31m");
    }
}
