//! Frames and HTTP heads, as little of them as two programs that know each other need.
//!
//! Not for anything but this benchmark: the floor must cost nothing that it need not, and the fleet
//! must not be what is measured. Fragments and extensions are refused by whoever reads.

/// The first byte of a whole frame of each kind.
pub const TEXT: u8 = 0x81;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

const MASKED: u8 = 0x80;

/// Where the payload of the first frame of some bytes lies.
pub struct Frame {
    pub kind: u8,
    pub key: Option<[u8; 4]>,
    pub start: usize,
    pub end: usize,
}

impl Frame {
    /// `None` while the frame is not there as a whole.
    pub fn find(bytes: &[u8]) -> Option<Self> {
        let kind = *bytes.first()?;
        let second = *bytes.get(1)?;
        let (length, mut start) = match second & !MASKED {
            126 => (usize::from(u16::from_be_bytes(array(bytes, 2)?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(array(bytes, 2)?)).ok()?, 10),
            short => (usize::from(short), 2),
        };
        let mut key = None;
        if second & MASKED != 0 {
            key = Some(array(bytes, start)?);
            start += 4;
        }
        let end = start.checked_add(length)?;
        (end <= bytes.len()).then_some(Self { kind, key, start, end })
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// A frame as servers send it.
pub fn plain(kind: u8, payload: &[u8]) -> Vec<u8> {
    frame(kind, payload, None)
}

/// A frame as clients must send it. The key is zero: a server unmasks it like any other, and the
/// generator need not touch the payload.
pub fn masked(kind: u8, payload: &[u8]) -> Vec<u8> {
    frame(kind, payload, Some([0; 4]))
}

fn frame(kind: u8, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let mask = if key.is_some() { MASKED } else { 0 };
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(kind);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..126), _) => frame.push(mask | short),
        (_, Ok(length)) => {
            frame.push(mask | 126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(mask | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(key.into_iter().flatten());
    frame.extend(payload);
    frame
}

/// The length of an HTTP head with its empty line, once it is there.
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The value of a header, its name in any case.
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    std::str::from_utf8(head).ok()?.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// No header means no body, which is what an upgrade request has.
pub fn content_length(head: &[u8]) -> usize {
    header(head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0)
}

pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_found_again_at_every_size_of_its_length() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            for (bytes, key) in [(plain(TEXT, &payload), None), (masked(TEXT, &payload), Some([0; 4]))] {
                let frame = Frame::find(&bytes).unwrap();
                assert_eq!((frame.kind, frame.key, frame.end), (TEXT, key, bytes.len()));
                assert_eq!(bytes[frame.start..frame.end], payload);
            }
        }
    }

    #[test]
    fn half_a_frame_is_none() {
        let bytes = masked(TEXT, &[b'x'; 300]);
        for length in 0..bytes.len() {
            assert!(Frame::find(&bytes[..length]).is_none());
        }
    }

    #[test]
    fn headers_are_read_in_any_case() {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nCONTENT-length: 12\r\n\r\n";
        assert_eq!(head_length(head), Some(head.len()));
        assert_eq!(content_length(head), 12);
        assert_eq!(header(head, "upgrade"), None);
    }
}
