//! Server-sent events, as a command reads them: those of a gateway, which ends lines as Unix does.

/// What has come and was not read yet.
#[derive(Default)]
pub struct Events {
    unread: Vec<u8>,
    /// So much of it holds no end of an event.
    searched: usize,
}

impl Events {
    pub fn add(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// How much of an event is there that is not whole.
    pub fn unread(&self) -> usize {
        self.unread.len()
    }

    /// The next event that is whole: its name, and its data on one line, which in JSON is the same. Comments have neither.
    pub fn take(&mut self) -> Option<(String, String)> {
        let from = self.searched.saturating_sub(1);
        let Some(at) = self.unread[from..].windows(2).position(|pair| pair == b"\n\n") else {
            self.searched = self.unread.len();
            return None;
        };
        self.searched = 0;
        let event: Vec<u8> = self.unread.drain(..from + at + 2).collect();
        let text = String::from_utf8_lossy(&event);
        let field = |name: &'static str| {
            text.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
        };
        Some((field("event").next().unwrap_or_default(), field("data").collect::<Vec<_>>().join(" ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_come() {
        let text = "event: accepted\ndata: {}\n\n: \n\nid: 7\nevent: progress\ndata: {\ndata: \"a\":1}\n\nevent: cut\n";
        let wanted = [("accepted", "{}"), ("", ""), ("progress", "{ \"a\":1}")];
        for size in [1, 2, 7, text.len()] {
            let (mut events, mut read) = (Events::default(), Vec::new());
            for bytes in text.as_bytes().chunks(size) {
                events.add(bytes);
                read.extend(std::iter::from_fn(|| events.take()));
            }
            let read: Vec<_> = read.iter().map(|(name, data)| (&**name, &**data)).collect();
            assert_eq!((read, events.unread()), (wanted.to_vec(), 11), "{size}");
        }
    }
}
