//! Letters about calls that found no way yet. Each is tried again by itself, so that one who is slow to reach holds up
//! nobody else's. Pure: those that are due are returned.

use super::Post;
use registry::Incarnation;
use std::collections::BTreeMap;
use tokio::time::Instant;

/// Letters that wait for another try, or are being tried.
const LETTERS_MAX: usize = 10_000;
/// The bytes in them: a letter may bring a client's whole reply, and so many replies of the largest size would be
/// more memory than all the rest. One that is larger than that is taken if it is the only one.
const BYTES_MAX: usize = 64 << 20;
/// Those for one instance that are tried at once. The others wait, for it and for nobody else.
const AT_ONCE_MAX: usize = 256;

#[derive(Default)]
pub struct Undelivered {
    to: BTreeMap<Incarnation, Waiting>,
    letters: usize,
    bytes: usize,
    last: u64,
}

/// Those for one instance.
#[derive(Default)]
struct Waiting {
    /// In the order in which they are due.
    letters: BTreeMap<(Instant, u64), Post>,
    tried: usize,
}

impl Undelivered {
    /// Takes a letter in; one for which there is no room is given back.
    pub fn put(&mut self, post: Post, due: Instant) -> Option<Post> {
        let fits = self.letters < LETTERS_MAX && self.bytes + bytes(&post) <= BYTES_MAX;
        if !fits && self.letters > 0 {
            return Some(post);
        }
        self.letters += 1;
        self.bytes += bytes(&post);
        self.wait(post, due);
        None
    }

    fn wait(&mut self, post: Post, due: Instant) {
        self.last += 1;
        self.to.entry(post.to.clone()).or_default().letters.insert((due, self.last), post);
    }

    /// Those that are to be tried now. What became of each is said with [`Self::tried`].
    pub fn due(&mut self, now: Instant) -> Vec<Post> {
        let mut due = Vec::new();
        for waiting in self.to.values_mut() {
            while waiting.next_due().is_some_and(|next| next <= now) {
                waiting.tried += 1;
                due.extend(waiting.letters.pop_first().map(|(_, post)| post));
            }
        }
        due
    }

    /// It was tried; if in vain, it is due again then.
    pub fn tried(&mut self, post: Post, again: Option<Instant>) {
        if let Some(waiting) = self.to.get_mut(&post.to) {
            waiting.tried -= 1;
            if waiting.tried == 0 && waiting.letters.is_empty() {
                self.to.remove(&post.to);
            }
        }
        match again {
            Some(due) => self.wait(post, due),
            None => {
                self.letters -= 1;
                self.bytes -= bytes(&post);
            }
        }
    }

    /// When the next of them is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.to.values().filter_map(Waiting::next_due).min()
    }

    /// Whether one waits that nobody has. Those that lie in a box wait only for the case that it is never opened.
    pub fn is_any_untold(&self) -> bool {
        self.to.values().any(|waiting| waiting.tried > 0 || waiting.letters.values().any(|post| !post.taken))
    }
}

impl Waiting {
    fn next_due(&self) -> Option<Instant> {
        let next = self.letters.first_key_value().map(|((due, _), _)| *due);
        next.filter(|_| self.tried < AT_ONCE_MAX)
    }
}

fn bytes(post: &Post) -> usize {
    post.letter.body.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use registry::{
        CallId, Envelope,
        envelope::{Message, Word},
    };

    fn post(to: &Incarnation, body: &Bytes) -> Post {
        let from = Incarnation::fresh("web1");
        let message = Message::OfCall { call: CallId::fresh(to), word: Word::Accepted(registry::SocketId::fresh()) };
        let letter = Envelope::new(1, from, 0, message, body.clone());
        Post { to: to.clone(), letter, by: Instant::now(), owed: None, taken: false, gone_since: None }
    }

    #[tokio::test]
    async fn they_are_bounded_in_number_and_in_bytes() {
        let (to, now) = (Incarnation::fresh("web2"), Instant::now());
        let mut small = Undelivered::default();
        for _ in 0..LETTERS_MAX {
            assert!(small.put(post(&to, &Bytes::new()), now).is_none());
        }
        assert!(small.put(post(&to, &Bytes::new()), now).is_some());

        let (mut large, reply) = (Undelivered::default(), Bytes::from(vec![0; 1 << 20]));
        for _ in 0..BYTES_MAX >> 20 {
            assert!(large.put(post(&to, &reply), now).is_none());
        }
        assert!(large.put(post(&to, &reply), now).is_some() && large.put(post(&to, &Bytes::new()), now).is_none());
        // What is being tried counts until it has arrived.
        let mut tried = large.due(now);
        assert!(large.put(post(&to, &reply), now).is_some());
        large.tried(tried.pop().unwrap(), None);
        large.tried(tried.pop().unwrap(), None);
        assert!(large.put(post(&to, &reply), now).is_none());
        tried.into_iter().for_each(|post| large.tried(post, None));
        large.due(now).into_iter().for_each(|post| large.tried(post, None));
        assert_eq!((large.letters, large.bytes, large.to.len()), (0, 0, 0));

        let giant = Bytes::from(vec![0; BYTES_MAX + 1]);
        assert!(large.put(post(&to, &giant), now).is_none() && large.put(post(&to, &Bytes::new()), now).is_some());
    }

    #[tokio::test]
    async fn one_who_is_slow_to_reach_holds_up_nobody_else() {
        let (slow, other, now) = (Incarnation::fresh("web2"), Incarnation::fresh("web3"), Instant::now());
        let mut undelivered = Undelivered::default();
        for _ in 0..=AT_ONCE_MAX {
            assert!(undelivered.put(post(&slow, &Bytes::new()), now).is_none());
        }
        let mut tried = undelivered.due(now);
        assert_eq!((tried.len(), undelivered.next_due()), (AT_ONCE_MAX, None));
        assert!(undelivered.put(post(&other, &Bytes::new()), now).is_none());
        assert_eq!(undelivered.next_due(), Some(now));
        assert_eq!(undelivered.due(now).into_iter().map(|post| post.to).collect::<Vec<_>>(), [other]);
        undelivered.tried(tried.pop().unwrap(), Some(now));
        assert_eq!(undelivered.due(now).into_iter().map(|post| post.to).collect::<Vec<_>>(), [slow]);
    }
}
