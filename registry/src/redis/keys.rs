//! The names of all keys, in one place. What shares a tag in braces shares a slot, so that one script may
//! touch all of it; 64 partitions lie evenly over the slots, so that a cluster of any size shares them.

use crate::{
    names::{CallId, GroupKey, SocketId},
    once::Hashed,
    owner::{PARTITIONS, partition},
};
use crc16::{State, XMODEM};
use std::sync::LazyLock;

/// Slots of a cluster.
pub const SLOTS: u16 = 16384;

/// For each partition a tag whose slot lies in its own share of the slots.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let share = SLOTS as usize / PARTITIONS;
    let tag = |k: usize| {
        let candidates = (0_u32..).map(|salt| if salt == 0 { format!("p{k}") } else { format!("p{k}.{salt}") });
        candidates.into_iter().find(|tag| usize::from(slot(tag)) / share == k).unwrap_or_default()
    };
    (0..PARTITIONS).map(tag).collect()
});

/// The slot of a key.
pub fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    State::<XMODEM>::calculate(tag.filter(|tag| !tag.is_empty()).unwrap_or(key).as_bytes()) % SLOTS
}

/// Makes keys for one namespace.
#[derive(Debug, Clone)]
pub struct Keys {
    namespace: String,
}

impl Keys {
    pub fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned() }
    }

    fn of_partition(&self, k: usize, rest: &str) -> String {
        [&self.namespace, ":{", &TAGS[k], "}:", rest].concat()
    }

    pub fn row(&self, id: SocketId) -> String {
        self.of_partition(partition(id), &["socket:", &id.short()].concat())
    }

    pub fn owned(&self, k: usize, mark: &str) -> String {
        self.of_partition(k, &format!("owned:{mark}"))
    }

    /// In which groups sockets were counted that others took over from an instance.
    pub fn left(&self, k: usize, mark: &str) -> String {
        self.of_partition(k, &format!("left:{mark}"))
    }

    pub fn live(&self, k: usize) -> String {
        self.of_partition(k, "live")
    }

    pub fn ended(&self, k: usize) -> String {
        self.of_partition(k, "ended")
    }

    pub fn born(&self, k: usize) -> String {
        self.of_partition(k, "born")
    }

    /// What the application is still to be told of the sockets.
    pub fn events(&self, k: usize) -> String {
        self.of_partition(k, "events")
    }

    /// A socket's durable deliveries. It goes when the socket ends for good.
    pub fn log(&self, id: SocketId) -> String {
        self.of_partition(partition(id), &["log:", &id.short()].concat())
    }

    /// Where they end, how much of them is acknowledged, and up to where a group's mail was logged with them. When the
    /// socket ends it stays as long as its row, so that what was its own is nobody else's.
    pub fn logged(&self, id: SocketId) -> String {
        self.of_partition(partition(id), &["logged:", &id.short()].concat())
    }

    fn of_instance(&self, mark: &str, rest: &str) -> String {
        [&self.namespace, ":{i:", mark, "}:", rest].concat()
    }

    pub fn lease(&self, mark: &str) -> String {
        self.of_instance(mark, "lease")
    }

    pub fn tomb(&self, mark: &str) -> String {
        self.of_instance(mark, "tomb")
    }

    pub fn mail(&self, mark: &str) -> String {
        self.of_instance(mark, "mail")
    }

    pub fn bell(&self, mark: &str) -> String {
        self.of_instance(mark, "bell")
    }

    /// Where a letter lies that is too large for the bell.
    pub fn body(&self, mark: &str, name: &str) -> String {
        self.of_instance(mark, &format!("body:{name}"))
    }

    pub fn group(&self, key: GroupKey) -> String {
        self.of_group(key, "instances")
    }

    fn of_group(&self, key: GroupKey, rest: &str) -> String {
        [&self.namespace, ":{g:", &key.short(), "}:", rest].concat()
    }

    /// The sockets of a group that may be resumed, live or away.
    pub fn kept(&self, key: GroupKey) -> String {
        self.of_group(key, "kept")
    }

    /// Durable deliveries to a group that has no sockets.
    pub fn group_mail(&self, key: GroupKey) -> String {
        self.of_group(key, "mail")
    }

    /// Where they end, and who is taking them over.
    pub fn group_mailed(&self, key: GroupKey) -> String {
        self.of_group(key, "mailed")
    }

    /// That one of them was left, for whoever asks twice.
    pub fn group_sent(&self, key: GroupKey, sent: Hashed) -> String {
        self.of_group(key, &format!("sent:{sent}"))
    }

    /// The instances whose calls wait until somebody of the group comes.
    pub fn waiters(&self, key: GroupKey) -> String {
        format!("{}:{{g:{}}}:waiters", self.namespace, key.short())
    }

    /// Calls that wait to be taken by somebody of the group.
    pub fn queued(&self, key: GroupKey) -> String {
        format!("{}:{{g:{}}}:wait", self.namespace, key.short())
    }

    /// Those that were taken, and by whom.
    pub fn given(&self, key: GroupKey) -> String {
        format!("{}:{{g:{}}}:given", self.namespace, key.short())
    }

    /// A queued call, and what came of it.
    pub fn call(&self, call: &CallId) -> String {
        format!("{}:{{c:{call}}}", self.namespace)
    }

    pub fn user_sockets(&self, user: GroupKey) -> String {
        format!("{}:{{u:{}}}:sockets", self.namespace, user.short())
    }

    /// Where nobody counts a user's sockets, a client that comes again finds its former one here.
    pub fn client_sockets(&self, user: GroupKey, client: &str) -> String {
        format!("{}:{}", self.user_sockets(user), client)
    }

    pub fn user_cooling(&self, user: GroupKey) -> String {
        format!("{}:{{u:{}}}:cooling", self.namespace, user.short())
    }

    /// What came of a request that is acted upon once.
    pub fn once(&self, key: Hashed) -> String {
        format!("{}:{{h:{key}}}", self.namespace)
    }

    /// What seals tokens.
    pub fn secret(&self) -> String {
        format!("{}:{{m}}:secret", self.namespace)
    }

    /// Keys by which clients prove who they are, hashed.
    pub fn book(&self) -> String {
        format!("{}:{{m}}:keys", self.namespace)
    }

    /// What somebody is let in with, once.
    pub fn ticket(&self, ticket: Hashed) -> String {
        format!("{}:{{x:{ticket}}}", self.namespace)
    }

    pub fn instances(&self) -> String {
        format!("{}:{{m}}:instances", self.namespace)
    }

    /// Who is about to drain.
    pub fn draining(&self) -> String {
        format!("{}:{{m}}:draining", self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // Facts from CLUSTER KEYSLOT.
        assert_eq!([slot("123456789"), slot("foo"), slot("a{foo}b"), slot("{}x")], [12739, 12182, 12182, slot("{}x")]);
    }

    #[test]
    fn partitions_lie_evenly_over_the_slots() {
        let keys = Keys::new("holdfast");
        for (k, at) in (0..PARTITIONS).map(|k| (k, usize::from(slot(&keys.live(k))))) {
            assert_eq!(at / (usize::from(SLOTS) / PARTITIONS), k);
        }
        assert!(keys.owned(63, &"m".repeat(22)).len() < 64, "{}", keys.owned(63, &"m".repeat(22)));
    }

    #[test]
    fn what_a_script_touches_shares_a_slot() {
        let keys = Keys::new("holdfast");
        let id = SocketId::fresh();
        let k = partition(id);
        let of_row = [keys.row(id), keys.owned(k, "m"), keys.left(k, "m"), keys.live(k), keys.ended(k), keys.born(k)];
        let of_log = [keys.log(id), keys.logged(id), keys.events(k)];
        assert!(of_log.iter().all(|key| slot(key) == slot(&of_row[0])), "{of_log:?}");
        assert!(of_row.iter().all(|key| slot(key) == slot(&of_row[0])), "{of_row:?}");
        let user = GroupKey::of("user", "ann");
        let of_user = [keys.user_sockets(user), keys.client_sockets(user, "cAAAAAAAA"), keys.user_cooling(user)];
        assert!(of_user.iter().all(|key| slot(key) == slot(&of_user[0])), "{of_user:?}");
        let sent = Hashed::of(&[]);
        let of_group = [keys.group(user), keys.kept(user), keys.group_mail(user), keys.group_mailed(user)];
        assert!(of_group.iter().all(|key| slot(key) == slot(&keys.group_sent(user, sent))), "{of_group:?}");
        let of_instance = [keys.lease("m"), keys.tomb("m"), keys.mail("m"), keys.bell("m"), keys.body("m", "1")];
        assert!(of_instance.iter().all(|key| slot(key) == slot(&of_instance[0])), "{of_instance:?}");
    }
}
