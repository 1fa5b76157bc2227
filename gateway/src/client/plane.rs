//! The server plane as strangers find it: what they must not reach, and how nginx keeps them out.

/// What reveals the fleet or its users, or acts on them. The last are the same by another way.
pub const CLOSED: [(&str, &str); 11] = [
    ("POST", "/api/call"),
    ("GET", "/api/instances"),
    ("GET", "/api/sockets"),
    ("GET", "/api/users/holdfast-doctor"),
    ("GET", "/api/debug/sockets"),
    ("GET", "/api/events"),
    ("POST", "/sse/push"),
    ("GET", "/metrics"),
    ("POST", "/__ws/api/call"),
    ("GET", "/__ws/api/instances"),
    ("GET", "/__ws/metrics"),
];

/// The location of all that, by a gateway served under this path; `nginx/holdfast.conf` has the same.
pub fn location(prefix: &str) -> String {
    format!("location ~ ^{prefix}(/__ws)?/(api/|sse/|metrics$)")
}

/// What anybody may ask in spite of it, which has to stand in front.
pub fn open_location(prefix: &str) -> String {
    format!("location ~ ^{prefix}(/__ws)?/(api/handshake|api/auth/session|sse/stream)$")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_files_say_the_same() {
        let shipped = include_str!("../../../nginx/holdfast.conf");
        assert!(shipped.find(&open_location("")).unwrap() < shipped.find(&location("")).unwrap());
        let under = include_str!("../../../nginx/subpath.conf");
        assert!(under.find(&open_location("/gw")).unwrap() < under.find(&location("/gw")).unwrap());
    }
}
