//! Every way in which the gateway ends a socket, in one table: code, reason, cause.
//! 44xx means "stop" to a client, but for 4429; every other code means what RFC 6455 says.

use registry::{Cause, Ending};
use std::borrow::Cow;

/// What fits into a close frame beside the code.
pub const REASON_BYTES_MAX: usize = 123;

/// Why a socket is closed by the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Close {
    /// Admission said no, and the client asked to hear it on the socket.
    Refused {
        code: u16,
        title: Cow<'static, str>,
    },
    Protocol(String),
    BadUtf8,
    TooBig {
        bytes_max: usize,
    },
    Internal {
        request_id: String,
    },
    Restart,
    PingTimeout,
    TooSlow,
    Kicked {
        code: u16,
        reason: String,
    },
    Replaced,
    TooManyConnections,
    AlreadyConnected,
    TooFast,
    /// What it came in with is good no more.
    CredentialEnded(&'static str),
    /// The other instances took this connection for dead, and said so to whoever asked.
    TakenForDead,
    /// What another instance asks for. It has told its caller already how this socket ends.
    Asked(Box<Ending>),
}

/// Every code that is sent or passed on; a kick may name others from 3000 on.
pub const CODES: [u16; 17] =
    [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 4100, 4101, 4401, KICKED, 4409, 4410, 4429];

/// What 1008 tells a user who is connected already; a phrase that people search for.
pub const ALREADY_CONNECTED: &str = "User already connected";
/// Both the log line and the close reason of the oldest beyond the cap.
pub const TOO_MANY_CONNECTIONS: &str = "Too many connections, closing oldest";

/// For a code that may not stand in a frame; none of our instances asks for one.
const UNSPEAKABLE: u16 = 1008;

/// The code of a kick, unless the caller names another.
pub const KICKED: u16 = 4403;

impl Close {
    pub fn code(&self) -> u16 {
        match self {
            Self::Refused { code, .. } | Self::Kicked { code, .. } => *code,
            Self::Protocol(_) => 1002,
            Self::BadUtf8 => 1007,
            Self::AlreadyConnected => 1008,
            Self::TooBig { .. } => 1009,
            Self::Internal { .. } => 1011,
            Self::Restart | Self::TakenForDead => 1012,
            Self::Asked(ending) => ending
                .code
                .filter(|code| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999))
                .unwrap_or(UNSPEAKABLE),
            Self::PingTimeout => 4100,
            Self::TooSlow => 4101,
            Self::CredentialEnded(_) => 4401,
            Self::Replaced => 4409,
            Self::TooManyConnections => 4410,
            Self::TooFast => 4429,
        }
    }

    /// A sentence for a person, short enough for the frame.
    pub fn reason(&self) -> Cow<'static, str> {
        let reason: Cow<'static, str> = match self {
            Self::Refused { title, .. } => title.clone(),
            Self::Protocol(fault) => format!("protocol error: {fault}").into(),
            Self::BadUtf8 => "text that is not UTF-8".into(),
            Self::TooBig { bytes_max } => format!("message larger than {bytes_max} bytes").into(),
            Self::Internal { request_id } => format!("internal error, request {request_id}").into(),
            Self::Restart => "restart".into(),
            Self::PingTimeout => "ping timeout".into(),
            Self::TooSlow => "too slow to read".into(),
            Self::Kicked { reason, .. } if reason.is_empty() => "kicked".into(),
            Self::Kicked { code: KICKED, reason } => format!("kicked: {reason}").into(),
            Self::Kicked { reason, .. } => reason.clone().into(),
            Self::Replaced => "replaced by a newer connection".into(),
            Self::TooManyConnections => TOO_MANY_CONNECTIONS.into(),
            Self::AlreadyConnected => ALREADY_CONNECTED.into(),
            Self::TooFast => "too fast".into(),
            Self::CredentialEnded(why) => (*why).into(),
            Self::TakenForDead => "connection was taken for dead, please reconnect".into(),
            Self::Asked(ending) => ending.reason.to_string().into(),
        };
        cut(reason)
    }

    fn cause(&self) -> Cause {
        match self {
            Self::Refused { .. } | Self::Kicked { .. } => Cause::Kicked,
            Self::Protocol(_) | Self::BadUtf8 | Self::TooBig { .. } | Self::TooFast => Cause::ProtocolError,
            // Either way our side is to blame, and whoever asks for the socket hears the same.
            Self::Internal { .. } | Self::TakenForDead => Cause::InstanceCrash,
            Self::Asked(ending) => ending.cause,
            Self::Restart => Cause::InstanceRestart,
            Self::PingTimeout => Cause::PingTimeout,
            Self::TooSlow => Cause::TooSlow,
            Self::CredentialEnded(_) => Cause::CredentialExpired,
            Self::Replaced => Cause::Replaced,
            Self::TooManyConnections | Self::AlreadyConnected => Cause::Evicted,
        }
    }

    /// The same, for the registry.
    pub fn ending(&self) -> Ending {
        Ending { cause: self.cause(), code: Some(self.code()), reason: self.reason().into() }
    }
}

/// Cuts at a character, so that the reason stays UTF-8.
fn cut(reason: Cow<'static, str>) -> Cow<'static, str> {
    if reason.len() <= REASON_BYTES_MAX {
        return reason;
    }
    let end = reason.floor_char_boundary(REASON_BYTES_MAX);
    reason[..end].to_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checklist 115.
    #[test]
    fn a_reason_fits_the_frame_and_stays_utf8() {
        let close = Close::Kicked { code: KICKED, reason: "ü".repeat(200) };
        assert!(close.reason().len() <= REASON_BYTES_MAX);
        assert!(close.reason().starts_with("kicked: ü"));
    }

    /// Checklist 112.
    #[test]
    fn every_close_has_a_reason() {
        for close in
            [Close::Restart, Close::TooSlow, Close::TakenForDead, Close::Kicked { code: 4000, reason: String::new() }]
        {
            assert!(!close.reason().is_empty());
        }
    }

    #[test]
    fn every_code_is_in_the_table() {
        let kicked = || Close::Kicked { code: KICKED, reason: String::new() };
        for close in [
            Close::Protocol(String::new()),
            Close::BadUtf8,
            Close::TooBig { bytes_max: 1 },
            Close::Internal { request_id: String::new() },
            Close::Restart,
            Close::PingTimeout,
            Close::TooSlow,
            kicked(),
            Close::Replaced,
            Close::TooManyConnections,
            Close::AlreadyConnected,
            Close::TooFast,
            Close::CredentialEnded("expired"),
            Close::TakenForDead,
            Close::Asked(Box::new(kicked().ending())),
        ] {
            assert!(CODES.contains(&close.code()), "{close:?}");
        }
    }

    #[test]
    fn what_another_instance_asks_for_ends_as_it_said() {
        for close in [Close::Kicked { code: 4000, reason: "spam".into() }, Close::Replaced, Close::TooManyConnections] {
            assert_eq!(Close::Asked(Box::new(close.ending())).ending(), close.ending());
        }
        let odd = Ending { cause: Cause::Kicked, code: Some(1006), reason: "x".into() };
        assert_eq!(Close::Asked(Box::new(odd)).code(), UNSPEAKABLE);
    }
}
