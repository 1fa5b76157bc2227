//! Letters to other instances: one script rings the bell and fills the mailbox.

use super::{
    Redis,
    link::Fault,
    scripts::{ROUTE, text},
};
use crate::{all::Routed, envelope::Envelope, names::Incarnation};
use std::time::Duration;

/// Larger letters lie beside the bell: what every listener's buffer holds must stay small.
const ON_THE_BELL_MAX: usize = 4096;
/// How long a letter can be fetched from the mailbox.
pub const MAIL: Duration = Duration::from_secs(60);
/// Letters in a mailbox; an owner takes what it read out at every beat.
const MAIL_MAX: usize = 10_000;
/// In front of the name of a letter that lies beside.
pub const BESIDE: u8 = b'@';

impl Redis {
    pub async fn route(&self, to: &Incarnation, letter: &Envelope) -> Routed {
        let bytes = letter.encode();
        let (keys, mark) = (&self.keys, to.mark());
        let (lease, mail, bell) = (keys.lease(mark), keys.mail(mark), keys.bell(mark));
        let call = if bytes.len() > ON_THE_BELL_MAX {
            let name = format!("{}.{}", letter.head.from.mark(), letter.head.id);
            let line = [&[BESIDE], name.as_bytes()].concat();
            ROUTE.on([lease, mail, bell, keys.body(mark, &name)]).arg(self.publish()).arg(line).arg(bytes)
        } else {
            ROUTE.on([lease, mail, bell]).arg(self.publish()).arg(bytes).arg("")
        };
        let said = call.arg(MAIL.as_millis() as u64).arg(MAIL_MAX).run(&self.link).await;
        match said.as_ref().map(|said| text(said.first())) {
            Ok("gone") => Routed::Gone,
            Ok("deaf") => Routed::Deaf,
            Ok(_) => Routed::Taken,
            Err(Fault::Down | Fault::Refused(_)) => Routed::Unsent,
            Err(Fault::Away | Fault::NoScript) => Routed::Unknown,
        }
    }

    /// How a bell is rung here.
    pub(super) fn publish(&self) -> &'static str {
        if self.link.is_cluster() { "SPUBLISH" } else { "PUBLISH" }
    }
}
