//! Texts to values. Each fault says what would have been right.

use std::{fmt, num::NonZeroU32, time::Duration};

/// A text that must never be seen. It can be compared and used, not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// For comparing and signing; whoever calls this must not print it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// So many per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub NonZeroU32);

/// `30`, `30s`, `1500ms`, `2m`, `1h`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "" | "s" => 1000.0,
        "ms" => 1.0,
        "m" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => f64::NAN,
    };
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let ms = digits.trim().parse::<f64>().ok().filter(|_| plain).map(|number| number * unit_ms);
    match ms {
        // A year is more than any of our waits can mean.
        Some(ms) if (0.0..=31_536_000_000.0).contains(&ms) => Ok(Duration::from_millis(ms as u64)),
        _ => Err("write it as 30, 30s, 1500ms or 2m".into()),
    }
}

/// `65536`, `64KiB`, `64k`, `1MiB`, `1m`.
pub fn size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" | "kib" => Some(1 << 10),
        "m" | "mb" | "mib" => Some(1 << 20),
        "g" | "gb" | "gib" => Some(1 << 30),
        _ => None,
    };
    let number = digits.trim().parse::<usize>().ok();
    number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .filter(|bytes| (1..=1 << 30).contains(bytes))
        .ok_or_else(|| "write it as 65536, 64KiB or 1MiB, from 1 byte to 1 GiB".into())
}

/// `100/s`, `100`, or `off`.
pub fn rate(text: &str) -> Result<Option<Rate>, String> {
    if ["off", "none", "0"].contains(&text.to_ascii_lowercase().as_str()) {
        return Ok(None);
    }
    let number = text.strip_suffix("/s").unwrap_or(text);
    let rate = number.trim().parse::<NonZeroU32>();
    rate.map(|rate| Some(Rate(rate))).map_err(|_| "write it as 100/s, or off".into())
}

/// `true/1/yes/on` and their opposites.
pub fn flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("write it as true or false".into()),
    }
}

/// Parts between commas, without blanks and repetitions.
pub fn list(text: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if !parts.iter().any(|known| known == part) {
            parts.push(part.to_owned());
        }
    }
    parts
}

/// Takes a trailing ` # comment` away, since env files carry them, and the blanks around.
pub fn uncommented(text: &str) -> &str {
    let end = text
        .char_indices()
        .zip(text.chars().skip(1))
        .find_map(|((at, c), next)| (c.is_whitespace() && next == '#').then_some(at));
    match text.trim_start().starts_with('#') {
        true => "",
        false => text[..end.unwrap_or(text.len())].trim(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_every_spelling() {
        let ms = |text| duration(text).map(|d| d.as_millis());
        assert_eq!(ms("30"), Ok(30_000));
        assert_eq!(ms("30s"), Ok(30_000));
        assert_eq!(ms("1500ms"), Ok(1500));
        assert_eq!(ms("2m"), Ok(120_000));
        for bad in ["", "s", "-1", "1x", "1e99", "nan", "inf", "1 000", "99999999999"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_in_every_spelling() {
        assert_eq!(size("64KiB"), Ok(65536));
        assert_eq!(size("64k"), Ok(65536));
        assert_eq!(size("1MiB"), Ok(1 << 20));
        for bad in ["", "0", "KiB", "-1", "1TiB", "99999999999999999999", "9999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    /// Checklist 247.
    #[test]
    fn comments_of_env_files_are_no_values() {
        assert_eq!(uncommented("60   # seconds"), "60");
        assert_eq!(uncommented("a#b"), "a#b");
        assert_eq!(uncommented("  # nothing"), "");
        assert_eq!(uncommented("# nothing"), "");
    }

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret::new("s3cret")), "***");
    }
}
