//! Letters to other instances: one script rings the bell and fills the mailbox.

use super::{
    Redis,
    lanes::{Turn, Waiting, Written},
    link::Fault,
    scripts::{ROUTE, text},
};
use crate::{all::Routed, envelope::Envelope, names::Incarnation};
use bytes::{Buf, Bytes};
use std::{sync::Arc, time::Duration};
use tokio::runtime::Handle;

/// Larger letters lie beside the bell: what every listener's buffer holds must stay small.
const ON_THE_BELL_MAX: usize = 4096;
/// Smaller ones go together, up to this.
const TOGETHER_MAX: usize = 16 * 1024;
/// How long a letter can be fetched from the mailbox.
pub const MAIL: Duration = Duration::from_secs(60);
/// What a mailbox holds; an owner takes what it read out at every beat.
const MAIL_MAX: usize = 10_000;
/// In front of the name of a letter that lies beside.
pub const BESIDE: u8 = b'@';
/// In front of several letters, each with its length.
pub const TOGETHER: u8 = b'+';

impl Redis {
    pub async fn route(self: &Arc<Self>, to: &Incarnation, letter: &Envelope) -> Routed {
        match self.lanes.turn(to, Written::of(letter)) {
            Turn::Now(letter) => {
                let turn = Mine { redis: self, to };
                let routed = self.ring(to, &letter.bytes, &letter.name).await;
                drop(turn);
                routed
            }
            // Its sender is gone without a word only when everything ends.
            Turn::Later(hears) => hears.await.unwrap_or(Routed::Unknown),
        }
    }

    /// Takes along what waits, until nothing does.
    async fn go_on(self: Arc<Self>, to: Incarnation, mut letters: Vec<Waiting>) {
        while let Some(Waiting { letter: Written { bytes, name }, .. }) = letters.first() {
            let routed = match letters.len() {
                1 => self.ring(&to, bytes, name).await,
                _ => self.ring(&to, &together(&letters), name).await,
            };
            for waiting in letters {
                // Who does not wait any more has said so by other means.
                let _ = waiting.told.send(routed);
            }
            letters = self.lanes.next(&to, ON_THE_BELL_MAX, TOGETHER_MAX);
        }
    }

    async fn ring(&self, to: &Incarnation, bytes: &[u8], name: &str) -> Routed {
        let (keys, mark) = (&self.keys, to.mark());
        let (lease, mail, bell) = (keys.lease(mark), keys.mail(mark), keys.bell(mark));
        let call = if bytes.len() > ON_THE_BELL_MAX && bytes.first() != Some(&TOGETHER) {
            let line = [&[BESIDE], name.as_bytes()].concat();
            ROUTE.on([lease, mail, bell, keys.body(mark, name)]).arg(self.publish()).arg(line).arg(bytes)
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

/// The turn of one who rings for itself. Whoever waits behind it goes next, however it ends.
struct Mine<'a> {
    redis: &'a Arc<Redis>,
    to: &'a Incarnation,
}

impl Drop for Mine<'_> {
    fn drop(&mut self) {
        let letters = self.redis.lanes.next(self.to, ON_THE_BELL_MAX, TOGETHER_MAX);
        // Without a runtime everything has ended.
        if let (false, Ok(runtime)) = (letters.is_empty(), Handle::try_current()) {
            runtime.spawn(self.redis.clone().go_on(self.to.clone(), letters));
        }
    }
}

fn together(letters: &[Waiting]) -> Vec<u8> {
    let length = letters.iter().map(|waiting| 4 + waiting.letter.bytes.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(1 + length);
    bytes.push(TOGETHER);
    for Waiting { letter, .. } in letters {
        // A letter that goes with others is small.
        bytes.extend_from_slice(&(letter.bytes.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&letter.bytes);
    }
    bytes
}

/// Takes apart what was sent together; nothing, if any of it is not whole.
pub fn apart(mut bytes: Bytes) -> Option<Vec<Bytes>> {
    let mut letters = Vec::new();
    while !bytes.is_empty() {
        let length = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
        (length <= bytes.len()).then(|| letters.push(bytes.split_to(length)))?;
    }
    Some(letters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::sync::oneshot;

    proptest! {
        #[test]
        fn what_is_sent_together_comes_apart_again(letters: Vec<Vec<u8>>) {
            let written = |bytes: &Vec<u8>| Written { bytes: bytes.clone(), name: String::new() };
            let waiting = |bytes| Waiting { letter: written(bytes), told: oneshot::channel().0 };
            let bytes = Bytes::from(together(&letters.iter().map(waiting).collect::<Vec<_>>()));
            prop_assert_eq!(bytes[0], TOGETHER);
            prop_assert_eq!(apart(bytes.slice(1..)).unwrap(), letters);
        }

        #[test]
        fn what_is_cut_or_foreign_is_nothing(bytes: Vec<u8>) {
            let _ = apart(bytes.into());
            prop_assert_eq!(apart(Bytes::from_static(b"\0\0\0\x02x")), None);
        }
    }
}
