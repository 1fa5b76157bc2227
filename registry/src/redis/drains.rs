//! Who may drain: of the instances that serve, one stays.

use super::{
    Redis,
    beat::ms,
    scripts::{DRAIN, number},
};
use crate::{
    all::{Hearing, Unknown},
    lease::{ABOUT_TO_DRAIN, Serving},
    names::Incarnation,
};
use futures_util::future::try_join_all;
use redis::cmd;

impl Redis {
    pub(crate) async fn let_go(&self, who: &Incarnation, even_last: bool) -> Result<bool, Unknown> {
        let leases = self.instances().await?;
        let serving = leases.into_iter().filter(|lease| lease.serving == Serving::Serving && lease.incarnation != *who);
        // A lease outlives its holder by some seconds, and who was killed serves nobody.
        let looks = serving.map(async |lease| Ok((self.hearing(&lease.incarnation).await?, lease.incarnation)));
        let others: Vec<_> = try_join_all(looks)
            .await?
            .into_iter()
            .filter(|(hearing, _)| *hearing == Hearing::Hears)
            .map(|(_, other)| other.to_string())
            .collect();
        let call = DRAIN.on([self.keys.draining()]).arg(who.to_string()).arg(ms(ABOUT_TO_DRAIN));
        let said = call.arg(u8::from(even_last)).arg(others).run(&self.link).await;
        said.map(|said| number(said.first()) == 1).map_err(|_| Unknown::Unavailable)
    }

    pub(crate) async fn stays(&self, who: &Incarnation) {
        let mut command = cmd("ZREM");
        command.arg(self.keys.draining()).arg(who.to_string());
        // Where it cannot be told, it is believed for a while.
        let _ = self.link.ask(&command).await;
    }
}
