//! Whether a user may have one more socket.

use super::{Flaw, Place, Said, Store};
use registry::{Cap, GroupKey, Policy};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Welcome,
    Full,
    Cooling,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    pub answer: Answer,
    /// Members that the same client left.
    pub replaced: Vec<String>,
    /// Clients that cool down from now on, and did not before.
    pub cooled: Vec<String>,
    /// Everybody else, oldest first; nobody without a cap.
    pub others: Vec<String>,
}

/// Who asks: a member as `admit.lua` writes it, and when it was accepted.
#[derive(Debug, Clone)]
pub struct Newcomer {
    pub member: String,
    pub since: u64,
}

/// As in the script.
const APART_MS: u64 = 1000;

/// The parts of a member: the socket's id, and its client.
pub fn parts(member: &str) -> (&str, &str) {
    (&member[22..44], &member[55..])
}

impl Store {
    /// `admit.lua`.
    pub fn admit(
        &mut self,
        user: GroupKey,
        newcomer: &Newcomer,
        cap: Cap,
        cool_ms: u64,
        stale: &[String],
        now: u64,
    ) -> Said<Admitted> {
        self.ours(Place::User(user))?;
        let (id, client) = parts(&newcomer.member);
        let members = self.users.entry(user).or_default();
        members.retain(|(_, held)| !stale.contains(held));
        // Of one socket the connection counts that was accepted last; whether an earlier one gives way is decided
        // elsewhere. Of one client, too, as far as the clocks of two instances agree: then the one that asks last.
        let counts_late = self.flaw == Some(Flaw::LateAdmits);
        let is_later =
            |since: u64, held: &str| parts(held).0 == id && *held != newcomer.member && since > newcomer.since;
        let is_late = !counts_late && members.iter().any(|(since, held)| is_later(*since, held));
        if is_late {
            let none = Vec::new;
            return Ok(Admitted { answer: Answer::Welcome, replaced: none(), cooled: none(), others: none() });
        }
        let is_named = client.starts_with('c');
        let same_client = |held: &str| is_named && parts(held).1 == client;
        let of_others = members.iter().filter(|(_, held)| parts(held).0 != id).cloned();
        let (same, others): (Vec<_>, Vec<_>) = of_others
            .partition(|(since, held)| same_client(held) && (*since <= newcomer.since + APART_MS || counts_late));
        let names = |members: Vec<(u64, String)>| members.into_iter().map(|(_, held)| held).collect::<Vec<_>>();
        let (same, others) = (names(same), names(others));
        let outdone = others.iter().any(|held| same_client(held));
        let max = cap.sockets_max;
        let full = max > 0 && others.len() + 1 > max;
        if full && cap.policy == Policy::EvictOldest && self.is_foreign(&Place::Cooling(user)) {
            return Err(Place::Cooling(user));
        }
        let cooling = self.cooling.get(&(user, client.to_owned())).is_some_and(|until| *until > now);
        let answer = match cap.policy {
            _ if !full => Answer::Welcome,
            Policy::Reject => Answer::Full,
            Policy::EvictOldest if outdone || cooling => Answer::Cooling,
            Policy::EvictOldest => Answer::Welcome,
        };
        let members = self.users.entry(user).or_default();
        if answer == Answer::Welcome {
            members.retain(|(_, held)| !same.contains(held) && *held != newcomer.member);
            members.insert((newcomer.since, newcomer.member.clone()));
        }
        let mut cooled = Vec::new();
        if answer == Answer::Welcome && full {
            self.cooling.retain(|(of, _), until| *of != user || *until > now);
            for evicted in others.iter().take(others.len() + 1 - max) {
                let client = parts(evicted).1.to_owned();
                if self.cooling.insert((user, client.clone()), now + cool_ms).is_none() {
                    cooled.push(client);
                }
            }
        }
        if members.is_empty() {
            self.users.remove(&user);
        }
        let replaced = if answer == Answer::Welcome { same } else { Vec::new() };
        Ok(Admitted { answer, replaced, cooled, others: if max > 0 { others } else { Vec::new() } })
    }
}
