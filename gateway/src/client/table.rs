//! What a gateway tells in JSON, in words and columns for a person.

use super::asking::printable;
use registry::epoch_ms;
use serde_json::Value;
use std::time::{Duration, UNIX_EPOCH};

/// Where there is nothing.
const NOTHING: &str = "-";
/// The end of the year 9999. Nothing later is a time.
const MOMENT_MS_MAX: u64 = 253_402_300_799_000;

/// A name or number.
pub fn word(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.into(),
        Value::String(text) if text.is_empty() => NOTHING.into(),
        Value::String(text) => printable(text),
        value => printable(&value.to_string()),
    }
}

/// Names in a row.
pub fn names(value: &Value) -> String {
    let names: Vec<_> = value.as_array().into_iter().flatten().map(word).collect();
    if names.is_empty() { NOTHING.into() } else { names.join(", ") }
}

/// Epoch milliseconds as a time.
pub fn moment(value: &Value) -> String {
    let ms = value.as_u64().filter(|ms| *ms <= MOMENT_MS_MAX);
    ms.map_or_else(
        || NOTHING.into(),
        |ms| humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string(),
    )
}

/// How long ago that was, by the clock of this machine.
pub fn age(value: &Value) -> String {
    let Some(ms) = value.as_u64() else { return NOTHING.into() };
    match epoch_ms().saturating_sub(ms) / 1000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// Rows under their heads, each column as wide as its widest word.
pub fn print<const N: usize>(heads: [&str; N], rows: &[[String; N]]) {
    lines(heads, rows).iter().for_each(|line| say!("{line}"));
}

fn lines<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let heads = heads.map(str::to_owned);
    let all = || std::iter::once(&heads).chain(rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(word, width)| format!("{word:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    all().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_stand_under_their_heads() {
        let rows = [["ü".into(), "1".into()], ["web1".into(), "22".into()]];
        assert_eq!(lines(["name", "sockets"], &rows), ["name  sockets", "ü     1", "web1  22"]);
        assert_eq!(lines(["name"], &[]), ["name"]);
    }

    #[test]
    fn whatever_a_gateway_says_is_shown_somehow() {
        for odd in [json!(null), json!(""), json!(u64::MAX), json!(-1), json!({ "a": 1 }), json!(["\u{1b}"])] {
            for shown in [word(&odd), names(&odd), moment(&odd), age(&odd)] {
                assert!(!shown.is_empty() && !shown.contains(char::is_control), "{odd}: {shown:?}");
            }
        }
        assert_eq!(moment(&json!(1_704_067_200_000_u64)), "2024-01-01T00:00:00Z");
        assert_eq!(age(&json!(epoch_ms() - 7_200_000)), "2 h");
    }
}
