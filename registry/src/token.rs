//! What a client shows to have its socket back: nobody can make it up, and it holds nothing that is anybody's secret.
//! For whom it was made stands in its seal alone, so that what is forged, cut, of another namespace or of another user
//! is all the same.

use crate::{
    names::{SocketId, UserName},
    short::{self, Short},
};
use arc_swap::ArcSwap;
use std::{fmt, sync::Arc};

const VERSION: u8 = 1;
/// Version, key, id, attempt.
const HEAD: usize = 1 + 4 + 16 + 4;
const SEAL: usize = 16;
const BYTES: usize = HEAD + SEAL;
/// Of a token as text.
const CHARS: usize = (BYTES * 8).div_ceil(6);
/// Keys that are taken beside the one that signs.
const KEYS_MAX: usize = 8;

/// What seals tokens. Never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Secret {
    /// One that nobody knows.
    pub fn fresh() -> Self {
        let (mut bytes, halves) = ([0; 32], [uuid::Uuid::new_v4(), uuid::Uuid::new_v4(), uuid::Uuid::new_v4()]);
        // A random id has 122 bits of it.
        let mixed = blake3::hash(halves.map(uuid::Uuid::into_bytes).as_flattened());
        bytes.copy_from_slice(mixed.as_bytes());
        Self(bytes)
    }

    /// One that somebody chose.
    pub fn of(text: &str) -> Self {
        Self(blake3::derive_key("holdfast 2026 resume tokens", text.as_bytes()))
    }

    /// As it lies in Redis.
    pub fn to_text(self) -> String {
        Short::<43>::of(&self.0).to_string()
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        short::read(text).map(Self)
    }

    fn name(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = *blake3::hash(&self.0).as_bytes();
        [a, b, c, d]
    }
}

/// The secrets of a registry: the first seals, all are taken.
pub struct Keyring {
    namespace: String,
    secrets: ArcSwap<Vec<Secret>>,
}

impl Keyring {
    pub fn new(namespace: &str, secrets: Vec<Secret>) -> Self {
        let secrets = if secrets.is_empty() { vec![Secret::fresh()] } else { secrets };
        Self { namespace: namespace.to_owned(), secrets: ArcSwap::from_pointee(secrets) }
    }

    /// The one that seals.
    pub fn first(&self) -> Option<Secret> {
        self.secrets.load().first().copied()
    }

    /// This one seals from now on; those before are taken still.
    pub fn put_first(&self, secret: Secret) {
        self.secrets.rcu(|secrets| {
            let others = secrets.iter().copied().filter(|other| *other != secret);
            Arc::new(std::iter::once(secret).chain(others).take(KEYS_MAX).collect::<Vec<_>>())
        });
    }

    /// A token for an attempt to come back.
    pub fn seal(&self, id: SocketId, n: u32, user: Option<&UserName>) -> String {
        let Some(secret) = self.first() else { return String::new() };
        let mut bytes = [0; BYTES];
        let head = [&[VERSION][..], &secret.name(), &id.to_bytes(), &n.to_be_bytes()].concat();
        bytes[..HEAD].copy_from_slice(&head);
        bytes[HEAD..].copy_from_slice(&self.seal_of(&secret, &head, user));
        Short::<CHARS>::of(&bytes).to_string()
    }

    /// Whose token it is, and for which attempt.
    pub fn open(&self, token: &str, user: Option<&UserName>) -> Option<(SocketId, u32)> {
        let bytes: [u8; BYTES] = short::read(token)?;
        let (head, seal) = bytes.split_at(HEAD);
        let (name, rest) = head.strip_prefix(&[VERSION])?.split_at(4);
        let secret = self.secrets.load().iter().copied().find(|secret| secret.name() == name)?;
        let right = self.seal_of(&secret, head, user);
        // In the same time wherever they differ.
        let differs = right.iter().zip(seal).fold(0, |any, (right, given)| any | (right ^ given));
        let (id, n) = rest.split_at(16);
        let id = SocketId::from_bytes(id.try_into().ok()?)?;
        (differs == 0).then_some((id, u32::from_be_bytes(n.try_into().ok()?)))
    }

    fn seal_of(&self, secret: &Secret, head: &[u8], user: Option<&UserName>) -> [u8; SEAL] {
        let mut hasher = blake3::Hasher::new_keyed(&secret.0);
        hasher.update(head).update(self.namespace.as_bytes()).update(&[0]);
        match user {
            Some(user) => hasher.update(&[1]).update(user.as_str().as_bytes()),
            None => hasher.update(&[0]),
        };
        let mut seal = [0; SEAL];
        seal.copy_from_slice(&hasher.finalize().as_bytes()[..SEAL]);
        seal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    #[test]
    fn a_token_opens_for_its_user_in_its_namespace_alone() {
        let (ring, id, ann) = (Keyring::new("a", vec![Secret::of("s")]), SocketId::fresh(), user("ann"));
        let token = ring.seal(id, 2, Some(&ann));
        assert_eq!(token.len(), CHARS);
        assert_eq!(ring.open(&token, Some(&ann)), Some((id, 2)));
        assert_eq!(ring.open(&token, Some(&user("bob"))), None);
        assert_eq!(ring.open(&token, None), None);
        assert_eq!(Keyring::new("b", vec![Secret::of("s")]).open(&token, Some(&ann)), None);
        assert_eq!(Keyring::new("a", vec![Secret::of("t")]).open(&token, Some(&ann)), None);
        assert_eq!(Keyring::new("a", vec![Secret::of("s")]).open(&token, Some(&ann)), Some((id, 2)));
        assert!(!token.contains("ann"));
    }

    #[test]
    fn a_secret_that_seals_no_more_still_opens() {
        let (ring, id) = (Keyring::new("a", vec![]), SocketId::fresh());
        let before = ring.seal(id, 2, None);
        let second = Secret::fresh();
        ring.put_first(second);
        assert_eq!(ring.open(&before, None), Some((id, 2)));
        let after = ring.seal(id, 2, None);
        assert_eq!(Keyring::new("a", vec![second]).open(&after, None), Some((id, 2)));
        (0..KEYS_MAX).for_each(|_| ring.put_first(Secret::fresh()));
        assert_eq!(ring.open(&before, None), None);
        assert_eq!(Secret::from_text(&second.to_text()).map(|read| read == second), Some(true));
    }

    proptest! {
        #[test]
        fn what_was_altered_opens_nothing(at in 0..CHARS, to in "[-_0-9A-Za-z]", cut in 0..CHARS) {
            let ring = Keyring::new("a", vec![Secret::of("s")]);
            let token = ring.seal(SocketId::fresh(), 7, None);
            let mut altered = token.clone();
            altered.replace_range(at..=at, &to);
            if altered != token {
                prop_assert_eq!(ring.open(&altered, None), None);
            }
            prop_assert_eq!(ring.open(&token[..cut], None), None);
        }

        #[test]
        fn any_text_is_read(text in ".{0,80}") {
            prop_assert_eq!(Keyring::new("a", vec![Secret::of("s")]).open(&text, None), None);
        }
    }
}
