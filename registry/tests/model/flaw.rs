//! What happens without one of the rules.

/// A rule that is switched off, to see that its absence is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Of two connections the one that arrives last has the socket.
    ArrivalOrder,
    /// An ending meets whatever connection there is.
    EndsAnybody,
    /// A claim counts under whatever mark it was made, though its instance has gone on under another.
    PastClaims,
    /// Instances never compare what they hold with what Redis says.
    NoDigest,
    /// Whoever takes a socket over removes the entry of its predecessor when it hears that it had one.
    TakerTells,
    /// A question whether a user may come in counts whenever it arrives.
    LateAdmits,
    /// Who was declared dead and lives leaves its former numbers in the groups.
    PastStays,
    /// The list of instances is believed to be whole.
    ListIsAll,
    /// After an outage that lost nothing, what is not there is called unknown at once.
    SureAtOnce,
    /// Nobody looks whether a partition's memory has become younger.
    BornUnwatched,
    /// A letter of which nobody knows whether it was sent is sent again.
    RoutesTwice,
    /// An entry that is missing was lost, whoever has its socket by now.
    MissingIsLost,
    /// A count that is wrong by itself is left as it is.
    CountStays,
    /// A telling that nobody answered is not thought of any more when the next was answered.
    UnansweredIsOver,
    /// Of who is not heard it is believed that Redis knows all that it holds.
    SilenceIsAssent,
    /// A count is put right whatever has become of it since it was read.
    BlindCount,
    /// What has ended stays ended for every claim: an end of an earlier attempt that is told late ends a later one.
    EndsLater,
    /// Nobody notes in which groups those were counted who were taken over.
    LeftStays,
    /// A token opens again after the connection that it opened was heard.
    TokenLives,
    /// Whoever has ended comes back with its token.
    EndsNobody,
    /// Who is away is forgotten when the answer to who came back for it is lost.
    DropsAway,
    /// Nobody ends those whose time is over.
    NoWalker,
}
