//! The links of an instance: to each master, and to its bell. One that breaks is rebuilt; what was on it is
//! settled as unanswered.

use super::{
    node::UNSURE,
    world::{News, World},
};
use registry::Incarnation;

impl World {
    /// The connection is gone; the instance hears of it when it can.
    pub fn break_link(&mut self, n: usize, shard: usize) {
        let link = &mut self.nodes[n].links[shard];
        if link.is_up {
            link.epoch += 1;
            let epoch = link.epoch;
            self.news(1, n, News::Broken { shard, epoch });
        }
    }

    pub fn lose_link(&mut self, n: usize, shard: usize) {
        let node = &mut self.nodes[n];
        node.links[shard].is_up = false;
        node.links[shard].was_away = true;
        let gone: Vec<_> =
            node.flights.iter().filter(|(_, flight)| flight.shard == shard).map(|(flight, _)| *flight).collect();
        for flight in gone {
            self.settle(n, flight, None);
        }
        if self.spread.instance(&self.nodes[n].own) == shard {
            self.listen_anew(n);
        }
        let wait = self.between(25, 75);
        self.news(wait, n, News::Reconnect { shard });
    }

    pub fn reconnect(&mut self, n: usize, shard: usize) {
        if self.nodes[n].links[shard].is_up {
            return;
        }
        if !self.reaches(n, shard) {
            self.nodes[n].links[shard].was_away = true;
            let wait = self.between(100, 1_000);
            return self.news(wait, n, News::Reconnect { shard });
        }
        let run = self.shards[shard].run;
        let node = &mut self.nodes[n];
        let link = &mut node.links[shard];
        link.is_up = true;
        // What others were told while the store was away comes now.
        if link.was_away {
            node.unsure_until = self.now + UNSURE;
        }
        link.there_at = 0;
        link.back_at = 0;
        // A new connection is noticed at once, another server behind a cluster's client later.
        let longest = if self.shards.len() == 1 { 250 } else { 10_000 };
        let wait = self.between(0, longest);
        self.news(wait, n, News::Noticed { shard, run });
        self.news(1, n, News::Mend);
    }

    pub fn notice(&mut self, n: usize, shard: usize, run: u32) {
        let node = &mut self.nodes[n];
        let before = node.links[shard].run.replace(run);
        if before.is_some_and(|before| before != run) {
            node.unsure_until = self.now + UNSURE;
            self.everything_is_suspect(n);
        }
    }

    pub fn listen_anew(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.is_subscribed = false;
        let of = node.own.clone();
        self.subs.retain(|_, listener| *listener != n);
        let wait = self.between(100, 300);
        self.news(wait, n, News::Subscribe { of });
    }

    pub fn subscribe(&mut self, n: usize, of: Incarnation) {
        if self.nodes[n].own != of || self.nodes[n].is_subscribed {
            return;
        }
        let shard = self.spread.instance(&of);
        let wait = if self.reaches(n, shard) {
            self.subs.insert(of.clone(), n);
            let wait = self.delay();
            self.news(wait, n, News::Subscribed { of: of.clone() });
            // Unconfirmed after a while, it is tried again.
            2_000
        } else {
            self.between(100, 300)
        };
        self.news(wait, n, News::Subscribe { of });
    }
}
