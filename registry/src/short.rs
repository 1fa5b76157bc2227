//! Ids as short text: URL-safe base64 that sorts as its bytes do, so that short ids page in order of connection.
//! Every letter and every call has some, so all of it happens on the stack.

use std::{fmt, ops::Deref, str};

/// In the order of their bytes.
const ALPHABET: &[u8; 64] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";

/// What stands for no character of ours; more than six bits.
const NONE: u8 = 0xff;

/// Which six bits a character stands for.
const BITS: [u8; 256] = {
    let (mut bits, mut at) = ([NONE; 256], 0);
    while at < ALPHABET.len() {
        bits[ALPHABET[at] as usize] = at as u8;
        at += 1;
    }
    bits
};

/// The short form of some bytes.
#[derive(Clone, Copy)]
pub struct Short<const CHARS: usize>([u8; CHARS]);

/// 128 bits.
pub type Short16 = Short<22>;
/// 64 bits.
pub type Short8 = Short<11>;

impl<const CHARS: usize> Short<CHARS> {
    /// What the last character has left over is zero.
    pub fn of(bytes: &[u8]) -> Self {
        let (mut text, mut chars) = ([b'-'; CHARS], 0);
        for three in bytes.chunks(3) {
            let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
            for (at, char) in text[chars..].iter_mut().take(4).enumerate() {
                *char = ALPHABET[(bits >> (18 - 6 * at)) as usize & 63];
            }
            chars += 4;
        }
        Self(text)
    }

    /// Without the look whether they are text, which costs as much as writing them.
    pub fn as_bytes(&self) -> &[u8; CHARS] {
        &self.0
    }
}

impl From<[u8; 16]> for Short16 {
    fn from(bytes: [u8; 16]) -> Self {
        Self::of(&bytes)
    }
}

impl From<u64> for Short8 {
    fn from(bits: u64) -> Self {
        Self::of(&bits.to_be_bytes())
    }
}

impl<const CHARS: usize> Deref for Short<CHARS> {
    type Target = str;

    fn deref(&self) -> &str {
        // The alphabet is ASCII.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl<const CHARS: usize> fmt::Display for Short<CHARS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// Whether a text is the short form of so many bytes: characters of ours, and nothing left over.
pub fn is_short_of(bytes: usize, text: &[u8]) -> bool {
    let over = 6 * text.len() as u32 % 8;
    let last = text.last().map_or(0, |last| BITS[usize::from(*last)]);
    text.len() == (8 * bytes).div_ceil(6)
        && text.iter().fold(0, |bits, char| bits | BITS[usize::from(*char)]) < 64
        && last & ((1 << over) - 1) == 0
}

/// Reads the short form of so many bytes; any other text was never one of ours.
pub fn read<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let text = text.as_bytes();
    if !is_short_of(BYTES, text) {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (four, three) in text.chunks(4).zip(bytes.chunks_mut(3)) {
        let bits = four.iter().fold(0, |bits, char| bits << 6 | u32::from(BITS[usize::from(*char)]));
        let bits = (bits << (8 + 6 * (4 - four.len()))).to_be_bytes();
        three.copy_from_slice(&bits[..three.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_has_bits_left_over_another_length_or_a_strange_character_is_no_short_form() {
        let text = Short16::from([0xff; 16]).to_string();
        assert_eq!((text.len(), text.as_str()), (22, "zzzzzzzzzzzzzzzzzzzzzk"));
        for last in ALPHABET {
            let other = format!("{}{}", &text[..21], char::from(*last));
            assert_eq!(read::<16>(&other).is_some(), [0, 16, 32, 48].contains(&BITS[usize::from(*last)]), "{other}");
        }
        for other in [
            "",
            "zzzzzzzzzzzzzzzzzzzzz",
            "zzzzzzzzzzzzzzzzzzzzzz-",
            "zzzzzzzzzzzzzzzzzzzz=k",
            "zzzzzzzzzzzzzzzzzzz\u{e9}k",
        ] {
            assert_eq!(read::<16>(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn it_reads_back_and_sorts_as_its_bytes(one: [u8; 16], other: [u8; 16], bits: u64) {
            let shorts = [one, other].map(Short16::from);
            prop_assert_eq!(read(&shorts[0]), Some(one));
            prop_assert_eq!(shorts[0].cmp(&shorts[1]), one.cmp(&other));
            prop_assert_eq!(read(&Short8::from(bits)), Some(bits.to_be_bytes()));
        }

        #[test]
        fn whatever_is_read_is_written_so(text in "[-0-9A-Z_a-z]{11}|[-0-9A-Z_a-z]{22}|.{0,23}") {
            if let Some(bytes) = read::<16>(&text) {
                prop_assert_eq!(&*Short16::from(bytes), &text);
            }
            if let Some(bytes) = read(&text) {
                prop_assert_eq!(&*Short8::from(u64::from_be_bytes(bytes)), &text);
            }
        }
    }
}
