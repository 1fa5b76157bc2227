//! W3C trace context: what we ask belongs to the trace of what made us ask.

/// The `traceparent` of a question, in the trace of `parent` if that is one, else in one of its own.
pub fn below(parent: Option<&str>) -> String {
    let span = fastrand::u64(1..);
    match parent.and_then(read) {
        Some((trace, flags)) => format!("00-{trace}-{span:016x}-{flags}"),
        None => format!("00-{:032x}-{span:016x}-00", fastrand::u128(1..)),
    }
}

/// Trace and flags of a well-formed one.
fn read(parent: &str) -> Option<(&str, &str)> {
    let mut parts = parent.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let is_nothing = |text: &str| text.bytes().all(|b| b == b'0');
    // A later version may say more behind it, this one may not.
    let is_known = is_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    let is_whole = is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
    (is_known && is_whole && !is_nothing(trace) && !is_nothing(span)).then_some((trace, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_goes_on_and_what_is_none_begins_one() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let child = below(Some(&format!("00-{trace}-00f067aa0ba902b7-01")));
        assert!(child.starts_with(&format!("00-{trace}-")) && child.ends_with("-01"), "{child}");
        assert!(!child.contains("00f067aa0ba902b7") && read(&child).is_some());
        for wrong in [
            "",
            "x",
            "00-0-0-0",
            &format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            &format!("ff-{trace}-00f067aa0ba902b7-01"),
        ] {
            let fresh = below(Some(wrong));
            assert!(read(&fresh).is_some() && !fresh.contains(trace), "{wrong}: {fresh}");
        }
    }
}
