//! What one node knows of all: an answer to CLUSTER NODES.

use crate::server::{Server, read};

/// A node as another sees it.
pub struct Entry {
    pub id: String,
    pub port: u16,
    /// The id of its master, for a replica.
    pub master: Option<String>,
    /// Neither suspected, nor failed, nor only heard of, and linked.
    pub sound: bool,
    slots: Vec<(u16, u16)>,
}

pub struct Roster(Vec<Entry>);

impl Roster {
    /// What this node says; `None` where it does not answer.
    pub fn of(node: &Server) -> Option<Self> {
        let text: String = read(node.try_ask(&["CLUSTER", "NODES"]).ok()?);
        Some(Self(text.lines().filter_map(entry).collect()))
    }

    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    pub fn at(&self, port: u16) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.port == port)
    }

    pub fn owner_of(&self, slot: u16) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot)))
    }

    /// Who follows whom, for comparing what nodes know.
    pub fn bonds(&self, among: &[u16]) -> Vec<(u16, Option<&str>)> {
        let ours = self.0.iter().filter(|entry| among.contains(&entry.port));
        let mut all: Vec<_> = ours.map(|entry| (entry.port, entry.master.as_deref())).collect();
        all.sort_unstable();
        all
    }

    /// Who has what, for comparing what nodes know.
    pub fn slots(&self) -> Vec<(u16, u16, u16)> {
        let ranges = |entry: &Entry| entry.slots.iter().map(|(a, b)| (*a, *b, entry.port)).collect::<Vec<_>>();
        let mut all: Vec<_> = self.0.iter().flat_map(ranges).collect();
        all.sort_unstable();
        all
    }
}

/// `<id> <ip:port@bus> <flags> <master> <ping> <pong> <epoch> <link> <slot> …`
fn entry(line: &str) -> Option<Entry> {
    let words: Vec<&str> = line.split(' ').collect();
    let [id, address, flags, master, _, _, _, link, slots @ ..] = words.as_slice() else { return None };
    let port = address.split('@').next()?.rsplit(':').next()?.parse().ok()?;
    let flag = |name| flags.split(',').any(|flag| flag == name);
    Some(Entry {
        id: (*id).to_owned(),
        port,
        master: (*master != "-").then(|| (*master).to_owned()),
        sound: *link == "connected" && !["fail", "fail?", "handshake", "noaddr"].into_iter().any(flag),
        // A slot on its way stands in brackets, and counts where it comes from until it has moved.
        slots: slots.iter().filter(|slot| !slot.starts_with('[')).filter_map(|slot| range(slot)).collect(),
    })
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}
