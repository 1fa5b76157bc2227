//! What a server says, read as it comes: nothing is copied until all of it is there, and then once.

use redis::{ErrorKind, RedisError, Value, parse_redis_value};

/// Room for one read.
const READ: usize = 16 * 1024;
/// A buffer that grew beyond it for one large answer is given back.
const KEPT: usize = 256 * 1024;
/// What Redis itself allows for one string.
const STRING_MAX: usize = 512 * 1024 * 1024;
/// Answers within answers.
const DEPTH_MAX: u32 = 16;

/// One thing that was said.
#[derive(Debug, PartialEq)]
pub enum Said {
    Answer(Value),
    /// What nobody asked for.
    Push(Vec<Value>),
}

/// Bytes as they come, and what they say.
#[derive(Default)]
pub struct Reader {
    bytes: Vec<u8>,
    begin: usize,
    end: usize,
    /// Less than this is not enough for the next.
    wanted: usize,
}

/// Why there is no end yet.
#[derive(Debug, PartialEq)]
enum Short {
    /// So many bytes are needed at least.
    Wants(usize),
    Broken(&'static str),
}

impl Reader {
    /// Where the next bytes go.
    pub fn room(&mut self) -> &mut [u8] {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
            if self.bytes.len() > KEPT {
                self.bytes = Vec::new();
            }
        }
        let wanted = self.wanted.max(self.end - self.begin + READ);
        if self.bytes.len() - self.begin < wanted {
            self.bytes.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
            if self.bytes.len() < wanted {
                self.bytes.resize(wanted.next_power_of_two(), 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// So many have come.
    pub fn came(&mut self, count: usize) {
        self.end += count;
    }

    /// The next, if all of it has come.
    pub fn next(&mut self) -> Result<Option<Said>, RedisError> {
        let bytes = &self.bytes[self.begin..self.end];
        if bytes.is_empty() || bytes.len() < self.wanted {
            return Ok(None);
        }
        let end = match end_of(bytes, 0, 0) {
            Ok(end) => end,
            Err(Short::Wants(wanted)) => {
                self.wanted = wanted;
                return Ok(None);
            }
            Err(Short::Broken(why)) => return Err((ErrorKind::Parse, "no answer of a Redis", why.to_owned()).into()),
        };
        self.wanted = 0;
        let whole = &bytes[..end];
        let said = match whole.first() {
            Some(b'>') => Said::Push(values(whole)?),
            _ => Said::Answer(value(whole)?),
        };
        self.begin += end;
        Ok(Some(said))
    }
}

/// Where a line ends, and what it says.
fn line(bytes: &[u8], at: usize) -> Result<(usize, &[u8]), Short> {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.iter().position(|byte| *byte == b'\r') {
        Some(length) if rest.get(length + 1).is_some_and(|byte| *byte != b'\n') => {
            Err(Short::Broken("half a line end"))
        }
        Some(length) if rest.len() > length + 1 => Ok((at + length + 2, &rest[..length])),
        _ if rest.len() > STRING_MAX => Err(Short::Broken("a line without an end")),
        _ => Err(Short::Wants(bytes.len() + 1)),
    }
}

/// A count or a length; nothing is -1.
fn count(text: &[u8]) -> Option<Option<usize>> {
    if text == b"-1" {
        return Some(None);
    }
    let digits = (1..=10).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    digits.then(|| Some(text.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'))))
}

/// Where what begins here ends.
fn end_of(bytes: &[u8], at: usize, depth: u32) -> Result<usize, Short> {
    let kind = *bytes.get(at).ok_or(Short::Wants(at + 1))?;
    if depth > DEPTH_MAX {
        return Err(Short::Broken("too deep"));
    }
    let (after, text) = match kind {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' | b'$' | b'!' | b'=' | b'*' | b'~' | b'>' | b'%' | b'|' => {
            line(bytes, at + 1)?
        }
        _ => return Err(Short::Broken("an unknown kind")),
    };
    let each = match kind {
        b'$' | b'!' | b'=' => {
            let length = count(text).ok_or(Short::Broken("no length"))?;
            let end = length.map_or(after, |length| after + length + 2);
            return match end {
                _ if length > Some(STRING_MAX) => Err(Short::Broken("too long")),
                end if end > bytes.len() => Err(Short::Wants(end)),
                end if length.is_some() && &bytes[end - 2..end] != b"\r\n" => Err(Short::Broken("no end of a string")),
                end => Ok(end),
            };
        }
        b'*' | b'~' | b'>' => 1,
        b'%' | b'|' => 2,
        _ => return Ok(after),
    };
    let elements = count(text).ok_or(Short::Broken("no count"))?.unwrap_or(0).saturating_mul(each);
    let end = (0..elements).try_fold(after, |at, _| end_of(bytes, at, depth + 1))?;
    // What has attributes follows them.
    if kind == b'|' { end_of(bytes, end, depth + 1) } else { Ok(end) }
}

/// The elements of what is whole.
fn values(whole: &[u8]) -> Result<Vec<Value>, RedisError> {
    let (mut at, text) = line(whole, 1).map_err(|_| broken())?;
    let elements = count(text).flatten().unwrap_or(0);
    let mut values = Vec::with_capacity(elements);
    for _ in 0..elements {
        let end = end_of(whole, at, 0).map_err(|_| broken())?;
        values.push(value(&whole[at..end])?);
        at = end;
    }
    Ok(values)
}

/// What is whole. The library reads what is rare, and all that it has words of its own for.
fn value(whole: &[u8]) -> Result<Value, RedisError> {
    let (after, text) = line(whole, 1).map_err(|_| broken())?;
    match (whole.first(), count(text)) {
        (Some(b'$'), Some(Some(length))) => Ok(Value::BulkString(whole[after..after + length].to_vec())),
        (Some(b'*'), Some(Some(_))) => Ok(Value::Array(values(whole)?)),
        (Some(b'_'), _) | (Some(b'$' | b'*'), _) => Ok(Value::Nil),
        _ => parse_redis_value(whole),
    }
}

fn broken() -> RedisError {
    (ErrorKind::Parse, "no answer of a Redis").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All that is said, if it comes in pieces of this size.
    fn read(bytes: &[u8], size: usize) -> Result<Vec<Said>, RedisError> {
        let (mut reader, mut said) = (Reader::default(), Vec::new());
        for piece in bytes.chunks(size) {
            reader.room()[..piece.len()].copy_from_slice(piece);
            reader.came(piece.len());
            while let Some(next) = reader.next()? {
                said.push(next);
            }
        }
        Ok(said)
    }

    #[test]
    fn every_kind_of_answer_is_read_as_the_library_reads_it_however_it_comes() {
        let all = [
            "+OK\r\n",
            "+QUEUED\r\n",
            ":-7\r\n",
            "$5\r\na\r\nbc\r\n",
            "$0\r\n\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "_\r\n",
            "#t\r\n",
            ",1.5\r\n",
            "*3\r\n$1\r\na\r\n*1\r\n:1\r\n_\r\n",
            "*0\r\n",
            "%1\r\n+a\r\n*1\r\n:2\r\n",
            "~1\r\n+a\r\n",
            "=5\r\ntxt:a\r\n",
            "-MOVED 7 host:1\r\n",
            "-NOSCRIPT none\r\n",
            "*2\r\n-ERR inner\r\n:1\r\n",
        ];
        let expected: Vec<_> =
            all.iter().map(|text| Said::Answer(parse_redis_value(text.as_bytes()).unwrap())).collect();
        for size in [1, 2, 7, 10_000] {
            assert_eq!(read(all.concat().as_bytes(), size).unwrap(), expected, "{size}");
        }
    }

    #[test]
    fn a_push_is_told_from_an_answer() {
        let said = read(b">2\r\n$7\r\nmessage\r\n$1\r\nx\r\n:1\r\n", 3).unwrap();
        let words = ["message", "x"].map(|word| Value::BulkString(word.into()));
        assert_eq!(said, [Said::Push(words.to_vec()), Said::Answer(Value::Int(1))]);
    }

    #[test]
    fn a_large_answer_leaves_no_large_buffer() {
        let large = format!("${}\r\n{}\r\n", 1 << 20, "x".repeat(1 << 20));
        let mut reader = Reader::default();
        for piece in large.as_bytes().chunks(READ) {
            reader.room()[..piece.len()].copy_from_slice(piece);
            reader.came(piece.len());
        }
        assert!(matches!(reader.next(), Ok(Some(Said::Answer(Value::BulkString(text)))) if text.len() == 1 << 20));
        assert!(reader.room().len() <= KEPT);
    }

    #[test]
    fn what_is_no_redis_is_found_out_at_once() {
        let deep = "*1\r\n".repeat(40);
        for text in ["HTTP/1.1 400 Bad Request\r\n", "$x\r\n", "$1\r\nabc", "$99999999999\r\n", "+a\rb", "*\r\n", &deep]
        {
            assert!(read(text.as_bytes(), 3).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), proptest::sample::select(b"0123456789+-:$*>%~|=!_#,(".to_vec()), any::<u8>()], 0..200)) {
            let _ = read(&bytes, 7);
        }
    }
}
