//! Trying at the start every command that will be needed, on keys of our own that hold nothing: a right that
//! is missing is then a sentence with its name, and not a socket that is not registered an hour later.

use super::{
    Redis,
    beat::ms,
    link::{Fault, Unusable},
    post::MAIL,
};
use futures_util::future::join_all;
use redis::cmd;

impl Redis {
    pub(super) async fn rehearse(&self) -> Result<(), Unusable> {
        let own = self.own();
        let (keys, mark) = (&self.keys, own.mark());
        let scratch = |kind: &str| keys.body(mark, &format!("rehearsal.{kind}"));
        let (hash, set, stream, text) = (scratch("hash"), scratch("set"), scratch("stream"), scratch("text"));
        let (publish, numsub) = match self.link.is_cluster() {
            true => ("SPUBLISH", "SHARDNUMSUB"),
            false => ("PUBLISH", "NUMSUB"),
        };
        let bell = keys.bell(mark);
        let life = ms(MAIL).to_string();
        let of_events: &[&[&str]] = if self.outgoing.is_wanted() { &[&["XDEL", &stream, "1-0"]] } else { &[] };
        let lines: [&[&str]; 37] = [
            &["HSET", &hash, "f", "1"],
            &["HGET", &hash, "f"],
            &["HMGET", &hash, "f"],
            &["HGETALL", &hash],
            &["HSCAN", &hash, "0"],
            &["HVALS", &hash],
            &["HLEN", &hash],
            &["HDEL", &hash, "f"],
            &["ZADD", &set, "0", "m"],
            &["ZSCORE", &set, "m"],
            &["ZCARD", &set],
            &["ZRANGE", &set, "0", "-1"],
            &["ZRANGEBYLEX", &set, "-", "+"],
            &["ZRANGEBYSCORE", &set, "0", "0"],
            &["ZREM", &set, "m"],
            &["ZREMRANGEBYSCORE", &set, "0", "0"],
            &["XADD", &stream, "1-0", "f", "1"],
            &["XLEN", &stream],
            &["XRANGE", &stream, "-", "+"],
            &["XTRIM", &stream, "MINID", "1"],
            &["SET", &text, "1", "PX", &life],
            &["GET", &text],
            &["EXISTS", &text],
            &["PEXPIRE", &text, &life],
            &["PERSIST", &text],
            &["DEL", &hash],
            &["DEL", &set],
            &["DEL", &stream],
            &["DEL", &text],
            &["TIME"],
            &["INFO"],
            &["PING"],
            &["SCRIPT", "LOAD", "return 1"],
            &["EVAL", "return 1", "1", &text],
            &["EVALSHA", "0000000000000000000000000000000000000000", "1", &text],
            &[publish, &bell, ""],
            &["PUBSUB", numsub, &bell],
        ];
        let tried = join_all(lines.iter().chain(of_events).map(async |line| {
            let (name, args) = line.split_first()?;
            match self.link.ask(cmd(name).arg(args)).await {
                // Without memory or disk it may come to itself; a right that is missing stays away.
                Err(Fault::Refused(why)) if why.contains("NOPERM") => Some(format!("{name}: {why}")),
                _ => None,
            }
        }));
        let refused: Vec<_> = tried.await.into_iter().flatten().collect();
        match refused.is_empty() {
            true => Ok(()),
            false => Err(Unusable(format!(
                "Redis at {} does not permit what is needed ({}); deploy/redis/holdfast.acl has what suffices",
                self.link.url().shown(),
                refused.join("; ")
            ))),
        }
    }
}
