//! Letters about calls on their way: sent at once, tried again while they are of use, told by us if nobody takes them.

use super::{
    Calls, lock,
    owed::{self, Owed},
};
use crate::letters::LATE;
use bytes::Bytes;
use registry::{
    Envelope, Incarnation, Routed,
    envelope::{Message, Word},
};
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// Who holds no lease for so long is gone. For less, Redis may have forgotten it, and the next beat brings it back.
const FORGOTTEN: Duration = Duration::from_secs(2);

/// A letter about a call, and until when it is of use.
pub struct Post {
    pub(super) to: Incarnation,
    pub(super) letter: Envelope,
    pub(super) by: Instant,
    pub(super) owed: Option<Arc<Owed>>,
    /// It was put into their box. They may die before they read it, and then what came of the call is told by us.
    pub(super) taken: bool,
    pub(super) gone_since: Option<Instant>,
}

impl Post {
    /// Since when no lease of theirs was seen.
    fn gone_since(&mut self) -> Instant {
        *self.gone_since.get_or_insert_with(Instant::now)
    }

    fn is_owed_end(&self) -> bool {
        let Message::OfCall { word, .. } = &self.letter.head.message else { return false };
        self.owed.is_some() && matches!(word, Word::Reply(..) | Word::Failed(..) | Word::Lost(_))
    }
}

/// A letter on its way. The socket whose word it is may end meanwhile: then it is left to the task.
struct Sending<'a> {
    calls: &'a Calls,
    post: Option<Post>,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Some(post) = self.post.take() {
            self.calls.later(post);
        }
    }
}

impl Calls {
    /// A letter about a call. One whose outcome is `owed` is of use for longer.
    pub fn post(&self, to: Incarnation, message: Message, body: Bytes, by: Instant, owed: Option<Arc<Owed>>) -> Post {
        let late = if owed.is_some() { owed::LATE } else { LATE };
        let life = by.saturating_duration_since(Instant::now()) + late;
        let letter = self.letters.compose(message, body, life);
        Post { to, letter, by: by + late, owed, taken: false, gone_since: None }
    }

    /// Sends it; if it finds no way it is tried again for as long as it is of use.
    pub async fn send(&self, post: Post) {
        let mut sending = Sending { calls: self, post: Some(post) };
        if let Some(post) = &mut sending.post
            && self.found_its_way(post).await
        {
            sending.post = None;
        }
    }

    /// Sends it beside all else, so that its client is heard meanwhile. Given back if too many are on their way.
    pub fn send_beside(self: &Arc<Self>, post: Post) -> Option<Post> {
        let Ok(permit) = self.beside.clone().try_acquire_owned() else { return Some(post) };
        let (calls, to, letter) = (self.clone(), post.to.clone(), post.letter.clone());
        self.registry.post(&to, &letter, move |routed| {
            let mut post = post;
            post.taken = routed == Routed::Taken;
            if !post.taken || post.is_owed_end() {
                calls.later(post);
            }
            drop(permit);
        });
        None
    }

    pub(super) async fn found_its_way(&self, post: &mut Post) -> bool {
        if post.taken {
            return self.settle_instead(post, false).await;
        }
        let routed = self.registry.route(&post.to, &post.letter).await;
        // One that may have been taken is sent again: by its number it is taken once.
        match routed {
            Routed::Gone | Routed::Deaf if let Message::Instead { call, word } = &post.letter.head.message => {
                let straight = self.tell_asker(call, word.clone(), post.letter.body.clone());
                let is_told = straight.is_none();
                if let Some(straight) = straight {
                    *post = straight;
                }
                is_told
            }
            Routed::Taken => {
                post.taken = post.is_owed_end();
                !post.taken
            }
            Routed::Gone if post.owed.is_none() && post.gone_since().elapsed() < FORGOTTEN => false,
            Routed::Gone => {
                let settled = self.settle_instead(post, false).await;
                if settled {
                    self.lost_its_caller(&post.letter);
                }
                settled
            }
            Routed::Deaf => {
                self.settle_instead(post, true).await;
                false
            }
            Routed::Unsent | Routed::Unknown => false,
        }
    }

    /// Counts what a client said in vain.
    pub(super) fn lost_its_caller(&self, letter: &Envelope) {
        if let Message::OfCall { word: Word::Progress(_) | Word::Reply(..) | Word::Failed(..), .. } =
            &letter.head.message
        {
            self.metrics.word_dropped(true);
        }
    }

    /// Leaves a letter to the task. Progress is not worth it.
    pub(super) fn later(&self, post: Post) {
        if let Message::OfCall { word: Word::Progress(_), .. } = &post.letter.head.message {
            self.metrics.progress_dropped.inc();
            return;
        }
        let due = Instant::now() + if post.taken { owed::TOLD_WITHIN } else { Duration::ZERO };
        let refused = lock(&self.undelivered).put(post, due);
        if let Some(post) = refused.filter(|post| !post.taken) {
            self.lost_its_caller(&post.letter);
        }
        self.wake.notify_one();
    }
}
