//! The protocol as pure functions: what the scripts in `redis/lua` decide, and what an instance makes of
//! their answers. The memory registry lives by them, the simulator drives them through failures that no
//! test could stage, and a property test holds the scripts against them.

use crate::{
    all::Superseded,
    names::{Incarnation, Session, SocketId},
    record::Attempt,
    verdict::Cause,
};
use std::{collections::BTreeMap, time::Duration};

/// What a row says of its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Live,
    /// Its connection is gone; it may be resumed.
    Away,
    Closed,
    /// Its instance died.
    Lost,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Away => "away",
            Self::Closed => "closed",
            Self::Lost => "lost",
        }
    }

    /// Reads what [`State::as_str`] writes.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Live, Self::Away, Self::Closed, Self::Lost].into_iter().find(|state| state.as_str() == word)
    }
}

/// What stands in a row, as far as claims are decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub session: Session,
    pub attempt: Attempt,
    /// The attempt whose connection was heard; its token is used up.
    pub confirmed: u32,
    pub state: State,
}

/// What becomes of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nobody had it, or this very connection.
    Granted,
    /// Another connection had it.
    Taken,
    Refused(Superseded),
}

/// A connection claims a socket. Commutes: whatever order two claims come in, the same one holds it after both.
/// A later attempt was let in once already, by [`resume`]: an end of an earlier one that was told late does not end it.
pub fn claim(held: Option<&Held>, session: Session, attempt: Attempt) -> Claim {
    match held {
        None => Claim::Granted,
        Some(held) if held.is_over() && held.attempt.n < attempt.n => Claim::Granted,
        Some(held) if held.is_over() => Claim::Refused(Superseded::Ended),
        Some(held) if held.session == session => Claim::Granted,
        Some(held) if held.confirmed >= attempt.n || held.attempt >= attempt => Claim::Refused(Superseded::ByLater),
        Some(_) => Claim::Taken,
    }
}

impl Held {
    fn is_over(&self) -> bool {
        matches!(self.state, State::Closed | State::Lost)
    }
}

/// Why a client does not get the socket again for which it has a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotBack {
    /// Nobody knows of it.
    Unknown,
    Ended,
    /// The token is used up.
    Later,
}

/// A client asks for its socket with a token. What has ended stays ended, whichever attempt this is, and so does what
/// may not come back, or not any more. Asking twice with one connection is asking once. Says as which attempt it is
/// back: of two with one token the one that asks last is the later, as far as clocks can be apart.
pub fn resume(held: Option<&Held>, may_return: bool, session: Session, attempt: Attempt) -> Result<Attempt, NotBack> {
    let Some(held) = held else { return Err(NotBack::Unknown) };
    let behind = held.attempt.accepted_at.saturating_sub(attempt.accepted_at);
    match held {
        held if held.is_over() || !may_return => Err(NotBack::Ended),
        held if held.state == State::Live && held.session == session => Ok(held.attempt),
        held if held.confirmed >= attempt.n || held.attempt.n > attempt.n => Err(NotBack::Later),
        held if held.attempt < attempt => Ok(attempt),
        held if behind <= CLOCKS_APART => Ok(Attempt { accepted_at: held.attempt.accepted_at + 1, ..attempt }),
        _ => Err(NotBack::Later),
    }
}

/// Two instances tell the time so many milliseconds apart at most.
const CLOCKS_APART: u64 = 1000;

/// Whether the time of a socket that is away is over.
pub fn is_due(due: u64, now: u64) -> bool {
    due <= now
}

/// What becomes of a socket whose instance died.
pub fn crashed(is_resumable: bool) -> State {
    if is_resumable { State::Away } else { State::Lost }
}

/// Whether another connection has the socket than the one that ended.
pub fn is_elsewhere(held: Option<&Held>, session: Session) -> bool {
    held.is_some_and(|held| held.session != session && !held.is_over())
}

/// What an ending of its connection makes of a socket: it is away if nobody meant to end it.
pub fn leaves(is_resumable: bool, cause: Cause) -> State {
    match cause {
        Cause::ConnectionLost | Cause::PingTimeout | Cause::InstanceRestart | Cause::InstanceCrash if is_resumable => {
            State::Away
        }
        _ => State::Closed,
    }
}

/// What the row of a connection that ended is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Closed,
    Away,
    Forgotten,
    /// Nobody knows how it ended, or whether it was ever used.
    Dropped,
}

impl Left {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Away => "away",
            Self::Forgotten => "forgotten",
            Self::Dropped => "dropped",
        }
    }

    /// As an ending leaves a socket.
    pub fn of(state: State) -> Self {
        if state == State::Away { Self::Away } else { Self::Closed }
    }

    /// What becomes of the row; none if it goes. Only what may come back is ever away.
    pub fn makes(self, is_resumable: bool) -> Option<State> {
        match self {
            Self::Away | Self::Dropped if is_resumable => Some(State::Away),
            Self::Closed | Self::Away => Some(State::Closed),
            Self::Forgotten | Self::Dropped => None,
        }
    }
}

/// Whether a claim is of an earlier life than the one that the row names. One process alone has a session, and
/// its marks are made in order: then the row says what is newer, and the claim was late.
pub fn outlived(held: (Session, &Incarnation), claim: (Session, &Incarnation)) -> bool {
    held.0 == claim.0 && held.1.mark() > claim.1.mark()
}

/// Whether a connection's end ends the socket: only its own, and only once.
pub fn ends(held: Option<&Held>, session: Session, to: State) -> bool {
    held.is_some_and(|held| {
        held.session == session && (held.state == State::Live || (held.state == State::Away && to != State::Away))
    })
}

/// What an owner and Redis compare: how many entries, and the XOR of their hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    pub count: u32,
    pub xor: u32,
}

impl Digest {
    pub fn enter(&mut self, h32: u32) {
        self.count += 1;
        self.xor ^= h32;
    }

    pub fn leave(&mut self, h32: u32) {
        self.count = self.count.saturating_sub(1);
        self.xor ^= h32;
    }

    /// At least so many sockets differ.
    pub fn differs(self, other: Self) -> u32 {
        self.count.abs_diff(other.count).max(u32::from(self.xor != other.xor))
    }
}

/// Whether an entry of ours that is missing was lost, by what its row says. One that another connection has by now
/// went with the claim that took it, and one that was cleaned up after us, while we slept, with our death: it is lost,
/// or away, or has ended since.
pub fn is_lost(ours: Session, row: Option<(Session, State)>) -> bool {
    row.is_none_or(|(session, state)| session == ours && state == State::Live)
}

/// How often it is looked whether something was lost, while something else moves.
pub const LOSS_LOOKS: usize = 3;

/// What may be said of an id that has no row. Redis may have lost it: `born` is since when the memory of
/// its partition is whole, by Redis' clock, as is `now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    NeverSeen,
    Forgotten,
    /// Its owner may be telling it again at this moment.
    Rebuilding,
}

/// By when every instance has told a rebuilt registry what it holds.
pub const REBUILT_AFTER: Duration = Duration::from_secs(60);

pub fn absence(id: SocketId, born: Option<u64>, now: u64, why_ttl: Duration) -> Absence {
    let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    match born {
        None => Absence::Rebuilding,
        Some(born) if born > 0 && now < born.saturating_add(ms(REBUILT_AFTER)) => Absence::Rebuilding,
        Some(born) if id.made_at() <= born.max(now.saturating_sub(ms(why_ttl))) => Absence::Forgotten,
        Some(_) => Absence::NeverSeen,
    }
}

/// What is to be seen of another instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Beats,
    /// It lives, as far as anybody knows, and cannot tell what it holds.
    Silent,
    Dead,
}

/// Who was silent lately, and until when what it holds may not be known: who comes back after a silence has
/// [`REBUILT_AFTER`] to tell it.
#[derive(Debug, Default)]
pub struct Silence {
    looked: u64,
    until: BTreeMap<Incarnation, u64>,
}

/// For how long a look counts: whoever asks for strangers must not ask all instances at each of them.
const LOOK_HOLDS: u64 = 500;

impl Silence {
    /// Whether what has no row may be one of somebody's who is silent. `None` if it has to be looked again.
    pub fn lately(&self, now: u64) -> Option<bool> {
        (self.looked..self.looked + LOOK_HOLDS).contains(&now).then(|| self.is_any(now))
    }

    /// One more look, at all others on the list. Who is off it has parted in order, or was cleaned up after.
    pub fn look(&mut self, now: u64, others: Vec<(Incarnation, Sign)>) -> bool {
        self.looked = now;
        self.until.retain(|silent, _| others.iter().any(|(other, sign)| other == silent && *sign != Sign::Dead));
        for (other, _) in others.into_iter().filter(|(_, sign)| *sign == Sign::Silent) {
            self.until.insert(other, now + REBUILT_AFTER.as_millis() as u64);
        }
        self.is_any(now)
    }

    fn is_any(&self, now: u64) -> bool {
        self.until.values().any(|until| *until > now)
    }
}

/// How far an inbox was read. Messages on the bell are numbered without holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub u64);

/// What a number on the bell means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The one that was due, or nothing new.
    Due,
    /// Those in between were missed; the mailbox has them.
    Gap { from: u64, to: u64 },
    /// The numbers went back: Redis lost some of them in a failover. Nothing is dropped for its number.
    Rewound,
    /// A letter that was read before.
    Old,
}

impl Cursor {
    /// A letter with this number. Whether it was read before is known by its id alone: numbers rewind.
    pub fn letter(&mut self, n: u64, read_before: bool) -> Heard {
        let due = self.0 + 1;
        let heard = match n {
            n if n == due => Heard::Due,
            n if n > due => Heard::Gap { from: due, to: n - 1 },
            _ if read_before => return Heard::Old,
            _ => Heard::Rewound,
        };
        self.0 = n;
        heard
    }

    /// The ring of our own beat, which says what the last number was.
    pub fn ring(&mut self, n: u64) -> Heard {
        let heard = match n {
            n if n == self.0 => Heard::Due,
            n if n > self.0 => Heard::Gap { from: self.0 + 1, to: n },
            _ => Heard::Rewound,
        };
        self.0 = n;
        heard
    }
}

/// Looks at an incarnation that holds no lease, until it may be called dead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Missing {
    looks: u32,
    /// On the looker's own clock.
    since: Duration,
}

/// How often, and for how long, a lease has to be missing. A view that was interrupted does not count.
const LOOKS_MIN: u32 = 3;

impl Missing {
    /// One more look at which the lease was not there. `now` is the looker's own clock.
    pub fn look(&mut self, now: Duration, reaped_after: Duration) -> bool {
        if self.looks == 0 {
            self.since = now;
        }
        self.looks += 1;
        self.looks >= LOOKS_MIN && now.saturating_sub(self.since) >= reaped_after
    }
}

/// Who cleans up first after a dead incarnation, so that not all do at once: the rank of a looker.
pub fn rank<'a>(dead: &str, looker: &str, all: impl Iterator<Item = &'a str>) -> usize {
    let weight = |one: &str| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(dead.as_bytes()).update(&[0]).update(one.as_bytes());
        *hasher.finalize().as_bytes()
    };
    let own = weight(looker);
    all.filter(|other| *other != dead && weight(other) > own).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_claims_end_the_same_in_either_order() {
        let (a, b) = (Session::fresh(), Session::fresh());
        for (first, second) in [((1, 5), (2, 4)), ((1, 5), (1, 6)), ((2, 1), (2, 1))] {
            let [first, second] =
                [(a, first), (b, second)].map(|(session, (n, accepted_at))| (session, Attempt { n, accepted_at }));
            let after = |one: (Session, Attempt), other: (Session, Attempt)| {
                let held = Held { session: one.0, attempt: one.1, confirmed: 0, state: State::Live };
                match claim(Some(&held), other.0, other.1) {
                    Claim::Taken => other.0,
                    _ => one.0,
                }
            };
            if first.1 != second.1 {
                assert_eq!(after(first, second), after(second, first));
            }
        }
    }

    #[test]
    fn a_used_token_wins_over_nobody() {
        let attempt = Attempt { n: 1, accepted_at: 1 };
        let held = Held { session: Session::fresh(), attempt, confirmed: 2, state: State::Live };
        let again = Attempt { n: 2, accepted_at: 9 };
        assert_eq!(claim(Some(&held), Session::fresh(), again), Claim::Refused(Superseded::ByLater));
    }

    #[test]
    fn what_somebody_else_has_was_not_lost() {
        let ours = Session::fresh();
        assert!(is_lost(ours, None) && is_lost(ours, Some((ours, State::Live))));
        assert!(!is_lost(ours, Some((Session::fresh(), State::Live))));
        assert!([State::Lost, State::Away, State::Closed].iter().all(|state| !is_lost(ours, Some((ours, *state)))));
    }

    #[test]
    fn numbers_on_the_bell() {
        let mut cursor = Cursor(10);
        assert_eq!(cursor.letter(11, false), Heard::Due);
        assert_eq!(cursor.letter(14, false), Heard::Gap { from: 12, to: 13 });
        assert_eq!(cursor.letter(13, true), Heard::Old);
        assert_eq!(cursor.ring(14), Heard::Due);
        assert_eq!(cursor.ring(16), Heard::Gap { from: 15, to: 16 });
        assert_eq!(cursor.letter(12, false), Heard::Rewound);
        assert_eq!(cursor.letter(13, false), Heard::Due);
        assert_eq!(cursor.ring(2), Heard::Rewound);
    }

    #[test]
    fn an_id_without_a_row_is_never_seen_only_where_memory_is_whole() {
        let id = SocketId::fresh();
        let (made, ttl) = (id.made_at(), Duration::from_secs(600));
        assert_eq!(absence(id, None, made, ttl), Absence::Rebuilding);
        assert_eq!(absence(id, Some(0), made, ttl), Absence::NeverSeen);
        assert_eq!(absence(id, Some(made - 1), made, ttl), Absence::Rebuilding);
        assert_eq!(absence(id, Some(made + 1), made + 60_001, ttl), Absence::Forgotten);
        assert_eq!(absence(id, Some(made - 70_000), made, ttl), Absence::NeverSeen);
        assert_eq!(absence(id, Some(0), made + 600_001, ttl), Absence::Forgotten);
    }

    #[test]
    fn who_was_silent_has_a_minute_to_tell() {
        let (mut silence, one) = (Silence::default(), Incarnation::fresh("web1"));
        let mut look = |now, sign| silence.look(now, vec![(one.clone(), sign)]);
        assert!(!look(1_000, Sign::Beats) && look(2_000, Sign::Silent));
        assert!(look(61_999, Sign::Beats) && !look(62_000, Sign::Beats));
        assert!(look(63_000, Sign::Silent) && !look(64_000, Sign::Dead) && !look(65_000, Sign::Beats));
        assert_eq!((silence.lately(65_499), silence.lately(65_500)), (Some(false), None));
    }

    #[test]
    fn ranks_are_a_permutation() {
        let all = ["a", "b", "c", "d"];
        let mut ranks: Vec<_> = all.iter().map(|looker| rank("x", looker, all.into_iter())).collect();
        ranks.sort_unstable();
        assert_eq!(ranks, [0, 1, 2, 3]);
    }
}
