//! The verdict: what became of a socket that is not there, and what nobody may guess.

use crate::names::{SocketId, StoreName, UserName};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// Why a socket ended. Always the true one, fixed by whoever ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    ClientClosed,
    ConnectionLost,
    PingTimeout,
    InstanceRestart,
    InstanceCrash,
    Evicted,
    Kicked,
    Replaced,
    TooSlow,
    ProtocolError,
    CredentialExpired,
}

impl Cause {
    /// Every cause there is, for metrics and documentation.
    pub const ALL: [Self; 11] = [
        Self::ClientClosed,
        Self::ConnectionLost,
        Self::PingTimeout,
        Self::InstanceRestart,
        Self::InstanceCrash,
        Self::Evicted,
        Self::Kicked,
        Self::Replaced,
        Self::TooSlow,
        Self::ProtocolError,
        Self::CredentialExpired,
    ];

    /// The word in answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ConnectionLost => "connection_lost",
            Self::PingTimeout => "ping_timeout",
            Self::InstanceRestart => "instance_restart",
            Self::InstanceCrash => "instance_crash",
            Self::Evicted => "evicted",
            Self::Kicked => "kicked",
            Self::Replaced => "replaced",
            Self::TooSlow => "too_slow",
            Self::ProtocolError => "protocol_error",
            Self::CredentialExpired => "credential_expired",
        }
    }

    /// Reads what [`Cause::as_str`] writes.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == word)
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::ClientClosed => "the client closed it",
            Self::ConnectionLost => "the connection was lost",
            Self::PingTimeout => "the client stopped answering pings",
            Self::InstanceRestart => "instance restart",
            Self::InstanceCrash => "its instance crashed",
            Self::Evicted => "a newer connection of the same user took its place",
            Self::Kicked => "it was kicked",
            Self::Replaced => "the same client connected again",
            Self::TooSlow => "the client was too slow to read",
            Self::ProtocolError => "the client broke the protocol",
            Self::CredentialExpired => "its credential expired",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a connection ended, as its owner saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    pub cause: Cause,
    /// The close code that was sent or received; none when the connection broke without one.
    pub code: Option<u16>,
    pub reason: Box<str>,
}

/// What the registry knows of a socket that it does not hold.
#[derive(Debug, Clone)]
pub enum Gone {
    /// The registry would remember this id, and does not.
    NeverSeen,
    /// Older than what the registry remembers.
    Forgotten,
    /// Its connection ended, and this is how.
    Closed {
        instance: Box<str>,
        connected_at: u64,
        closed_at: u64,
        store: Option<StoreName>,
        user: Option<UserName>,
        ending: Ending,
        /// It is away, and may be resumed for so long.
        back_within: Option<Duration>,
    },
}

/// The true reason why a socket is not there.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// As the caller wrote it: any text may be asked about.
    pub asked: Box<str>,
    pub gone: Gone,
    /// How long ago it ended, by the registry's clock; zero when that is not known.
    pub since: Duration,
}

/// No id of ours is longer; more of a foreign one would only fill logs and answers.
const ASKED_BYTES_MAX: usize = 128;

impl Verdict {
    pub fn new(asked: &str, gone: Gone, since: Duration) -> Self {
        Self { asked: asked[..asked.floor_char_boundary(ASKED_BYTES_MAX)].into(), gone, since }
    }

    /// `never_seen`, `forgotten`, `away`, `closed` or `lost`.
    pub fn state(&self) -> &'static str {
        match &self.gone {
            Gone::NeverSeen => "never_seen",
            Gone::Forgotten => "forgotten",
            Gone::Closed { back_within: Some(_), .. } => "away",
            Gone::Closed { ending, .. } if ending.cause == Cause::InstanceCrash && ending.code.is_none() => "lost",
            Gone::Closed { .. } => "closed",
        }
    }

    /// The verdict for a person.
    pub fn sentence(&self) -> String {
        let asked = &self.asked;
        match &self.gone {
            Gone::NeverSeen => match SocketId::parse(asked) {
                Some(_) => format!("{asked} never connected here"),
                None => format!("{asked} is not the id of any socket of this gateway"),
            },
            Gone::Forgotten => format!("{asked} is older than what the registry remembers; it is not connected now"),
            // When it ended nobody saw; only when that was noticed is known.
            Gone::Closed { instance, .. } if self.state() == "lost" => {
                let ago = in_words(self.since);
                format!("{asked} was on {instance} and is lost: its instance crashed, which was noticed {ago} ago")
            }
            Gone::Closed { instance, ending, back_within, .. } => {
                let ago = in_words(self.since);
                let code = ending.code.map_or("without a close code".to_owned(), |code| format!("with {code}"));
                let ended = match back_within {
                    Some(within) => {
                        format!("is away and may come back within {}; its connection ended", in_words(*within))
                    }
                    None => "closed".to_owned(),
                };
                // Where a close was still sent, it was not the instance that crashed but this connection.
                let cause = match (ending.cause, ending.code) {
                    (Cause::InstanceCrash, Some(_)) => "an error in its instance",
                    (cause, _) => cause.in_words(),
                };
                let said = match ending.reason.as_ref() {
                    "" => String::new(),
                    reason if reason == cause => String::new(),
                    reason => format!(" ({reason})"),
                };
                format!("{asked} was on {instance} and {ended} {ago} ago {code}: {cause}{said}")
            }
        }
    }
}

fn in_words(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_socket_is_said_to_have_been_noticed_missing() {
        let ending = Ending { cause: Cause::InstanceCrash, code: None, reason: "".into() };
        let gone = Gone::Closed {
            instance: "web1".into(),
            connected_at: 0,
            closed_at: 0,
            store: None,
            user: None,
            ending,
            back_within: None,
        };
        let verdict = Verdict::new("ws_1", gone, Duration::from_secs(3));
        assert_eq!(verdict.state(), "lost");
        assert_eq!(verdict.sentence(), "ws_1 was on web1 and is lost: its instance crashed, which was noticed 3 s ago");
    }

    #[test]
    fn the_sentence_names_instance_time_code_and_cause() {
        let gone = Gone::Closed {
            instance: "web1:5000".into(),
            connected_at: 0,
            closed_at: 0,
            store: None,
            user: None,
            ending: Ending { cause: Cause::InstanceRestart, code: Some(1012), reason: "restart".into() },
            back_within: None,
        };
        let verdict = Verdict::new("ws_1", gone.clone(), Duration::from_secs(12));
        assert_eq!(
            verdict.sentence(),
            "ws_1 was on web1:5000 and closed 12 s ago with 1012: instance restart (restart)"
        );
        let Gone::Closed { ending, .. } = gone else { panic!() };
        let away = Gone::Closed {
            instance: "web1".into(),
            connected_at: 0,
            closed_at: 0,
            store: None,
            user: None,
            ending: Ending { cause: Cause::ConnectionLost, code: None, ..ending },
            back_within: Some(Duration::from_secs(108)),
        };
        let verdict = Verdict::new("ws_1", away, Duration::from_secs(12));
        assert_eq!(verdict.state(), "away");
        assert_eq!(
            verdict.sentence(),
            "ws_1 was on web1 and is away and may come back within 108 s; its connection ended 12 s ago without a close code: the connection was lost (restart)"
        );
    }
}
