//! Letters to other instances: one script rings the bell and fills the mailbox.

use super::{
    Redis,
    lanes::{Together, Waits},
    link::Fault,
    scripts::{ROUTE, text},
};
use crate::{all::Routed, envelope::Envelope, names::Incarnation};
use bytes::{Buf, Bytes};
use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};
use tracing::error;

/// Letters go together up to this, and a larger one lies beside the bell: what every listener's buffer holds must stay
/// small.
const ON_THE_BELL_MAX: usize = 4096;
const TOGETHER: Together = Together { bytes: ON_THE_BELL_MAX, count: usize::MAX };
/// How long a letter can be fetched from the mailbox.
pub const MAIL: Duration = Duration::from_secs(60);
/// What a mailbox holds; an owner takes what it read out at every beat.
const MAIL_MAX: usize = 10_000;
/// In front of the name of a letter that lies beside.
pub const BESIDE: u8 = b'@';
/// In front of several letters, each with its length.
pub const SEVERAL: u8 = b'+';

/// A letter as it travels, and who wants to know what became of it.
pub struct Waiting {
    bytes: Vec<u8>,
    from: Incarnation,
    id: u64,
    told: Box<dyn FnOnce(Routed) + Send>,
}

impl Waiting {
    fn new(letter: &Envelope, told: impl FnOnce(Routed) + Send + 'static) -> Self {
        let head = &letter.head;
        Self { bytes: letter.encode(), from: head.from.clone(), id: head.id, told: Box::new(told) }
    }
}

impl Waits for Waiting {
    fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl Redis {
    /// Sends a letter, and tells what became of it.
    pub fn post(&self, to: &Incarnation, letter: &Envelope, told: impl FnOnce(Routed) + Send + 'static) {
        if let Some(letter) = self.letters.join(to, Waiting::new(letter, told)) {
            (letter.told)(Routed::Unsent);
        }
    }

    /// Brings letters to whoever has some waiting. Never returns.
    pub(super) async fn keep_post(&self) {
        self.letters.keep(TOGETHER, |to, letters| self.bring(to, letters)).await;
    }

    async fn bring(&self, to: Incarnation, mut letters: Vec<Waiting>) {
        let (bytes, name) = match &mut letters[..] {
            [letter] if letter.bytes.len() <= ON_THE_BELL_MAX => (mem::take(&mut letter.bytes), None),
            [large] => (mem::take(&mut large.bytes), Some(format!("{}.{}", large.from.mark(), large.id))),
            several => (together(several), None),
        };
        let routed = self.ring(&to, &bytes, name.as_deref()).await;
        for letter in letters {
            // A bug there costs this letter's sender the word, and nobody else.
            if catch_unwind(AssertUnwindSafe(|| (letter.told)(routed))).is_err() {
                error!("what was to be told of a letter panicked; this is a bug of Holdfast");
            }
        }
    }

    /// What has a name lies beside the bell.
    async fn ring(&self, to: &Incarnation, bytes: &[u8], name: Option<&str>) -> Routed {
        let (keys, mark) = (&self.keys, to.mark());
        let (lease, mail, bell) = (keys.lease(mark), keys.mail(mark), keys.bell(mark));
        let call = match name {
            Some(name) => {
                let line = [&[BESIDE], name.as_bytes()].concat();
                ROUTE.on([lease, mail, bell, keys.body(mark, name)]).arg(self.publish()).arg(line).arg(bytes)
            }
            None => ROUTE.on([lease, mail, bell]).arg(self.publish()).arg(bytes).arg(""),
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

fn together(letters: &[Waiting]) -> Vec<u8> {
    let length = letters.iter().map(|letter| 4 + letter.bytes.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(1 + length);
    bytes.push(SEVERAL);
    for letter in letters {
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

    proptest! {
        #[test]
        fn what_is_sent_together_comes_apart_again(letters: Vec<Vec<u8>>) {
            let from = Incarnation::fresh("a");
            let waiting =
                |bytes: &Vec<u8>| Waiting { bytes: bytes.clone(), from: from.clone(), id: 1, told: Box::new(|_| ()) };
            let bytes = Bytes::from(together(&letters.iter().map(waiting).collect::<Vec<_>>()));
            prop_assert_eq!(bytes[0], SEVERAL);
            prop_assert_eq!(apart(bytes.slice(1..)).unwrap(), letters);
        }

        #[test]
        fn what_is_cut_or_foreign_is_nothing(bytes: Vec<u8>) {
            let _ = apart(bytes.into());
            prop_assert_eq!(apart(Bytes::from_static(b"\0\0\0\x02x")), None);
        }
    }
}
