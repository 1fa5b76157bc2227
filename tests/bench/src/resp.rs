//! As little of Redis's protocol as a relay speaks.

use std::io::Write;

use crate::Result;

pub fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend(*word);
        bytes.extend(b"\r\n");
    }
    bytes
}

/// `PUBLISH`, its message in parts.
pub fn publish(out: &mut Vec<u8>, channel: &[u8], parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    // Writing to memory does not fail.
    let _ = write!(out, "*3\r\n$7\r\nPUBLISH\r\n${}\r\n", channel.len());
    out.extend(channel);
    let _ = write!(out, "\r\n${length}\r\n");
    parts.iter().for_each(|part| out.extend(*part));
    out.extend(b"\r\n");
}

/// What a subscriber hears, and how long it was with everything around it.
pub type Heard<'a> = ([&'a [u8]; 3], usize);

/// `None` while its three words are not whole.
pub fn words(bytes: &[u8]) -> Result<Option<Heard<'_>>> {
    let Some(mut at) = line(bytes).map(<[u8]>::len) else { return Ok(None) };
    if &bytes[..at] != b"*3\r\n" {
        return Err(format!("Redis says {}", String::from_utf8_lossy(&bytes[..at])).into());
    }
    let mut words: [&[u8]; 3] = [b""; 3];
    for word in &mut words {
        let Some(head) = bytes.get(at..).and_then(line) else { return Ok(None) };
        at += head.len();
        match head.split_first() {
            Some((b'$', length)) => {
                let length: usize = std::str::from_utf8(length)?.trim_end().parse()?;
                let Some(text) = bytes.get(at..at + length) else { return Ok(None) };
                *word = text;
                at += length + 2;
            }
            // How many channels are subscribed to.
            _ => *word = head,
        }
    }
    Ok((at <= bytes.len()).then_some((words, at)))
}

fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some(&bytes[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_found_once_it_is_whole() {
        let bytes = command(&[b"message", b"channel", b"two\r\nlines"]);
        for length in 0..bytes.len() {
            assert!(words(&bytes[..length]).unwrap().is_none(), "{length}");
        }
        let (words, length) =
            words(&[&bytes[..], b"*3"].concat()).unwrap().map(|(w, l)| (w.map(<[u8]>::to_vec), l)).unwrap();
        assert_eq!((words[2].as_slice(), length), (&b"two\r\nlines"[..], bytes.len()));
    }

    #[test]
    fn a_message_in_parts_is_the_command() {
        let mut out = Vec::new();
        publish(&mut out, b"to", &[b"a", b"bc"]);
        assert_eq!(out, command(&[b"PUBLISH", b"to", b"abc"]));
    }
}
