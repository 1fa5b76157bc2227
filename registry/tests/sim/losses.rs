//! Whether something was lost that is missing, as `verify.rs` of the registry finds it out.

use super::{
    node::Then,
    wire::{Op, Said},
    world::{News, World},
};
use crate::model::Flaw;
use registry::{
    SocketId,
    rules::{LOSS_LOOKS, is_lost},
};

/// One partition, while it is looked at.
#[derive(Debug, Default)]
pub struct Doubt {
    looks: usize,
    /// As they were when this look began.
    steps: u64,
    /// Rows that are still to come.
    left: usize,
    /// One that was lost, and whether it has a row.
    lost: Option<(SocketId, bool)>,
    failed: bool,
}

impl World {
    /// A partition differs.
    pub fn doubt(&mut self, n: usize, k: usize) {
        self.nodes[n].doubts.insert(k, Doubt::default());
        self.look_for_loss(n, k);
    }

    fn look_for_loss(&mut self, n: usize, k: usize) {
        let node = &mut self.nodes[n];
        let Some(doubt) = node.doubts.get_mut(&k) else { return };
        if doubt.looks == LOSS_LOOKS {
            return self.doubted(n, k, true);
        }
        *doubt = Doubt { looks: doubt.looks + 1, steps: node.owner.steps(k), ..Doubt::default() };
        let of = node.own.clone();
        self.send(n, Op::Entries { k, of }, None, Then::Missing { k });
    }

    pub fn resume_doubt(&mut self, n: usize, then: Then, said: Option<Said>) {
        let node = &mut self.nodes[n];
        let (Then::Missing { k } | Then::MissingRow { k, .. }) = then else { return };
        let Some(doubt) = node.doubts.get_mut(&k) else { return };
        match (then, said) {
            (Then::Missing { .. }, Some(Said::Entries(theirs))) => {
                let missing = node.owner.missing(k, &theirs);
                doubt.left = missing.len();
                for record in &missing {
                    let then = Then::MissingRow { k, id: record.id, session: record.session };
                    self.send(n, Op::Row { id: record.id }, None, then);
                }
            }
            (Then::MissingRow { id, session, .. }, Some(Said::Row(row))) => {
                doubt.left -= 1;
                let theirs = row.map(|row| (row.record.session, row.state));
                if is_lost(session, theirs) || self.flaw == Some(Flaw::MissingIsLost) {
                    doubt.lost = Some((id, theirs.is_some()));
                }
            }
            (then, _) => {
                doubt.left = doubt.left.saturating_sub(usize::from(matches!(then, Then::MissingRow { .. })));
                doubt.failed = true;
            }
        }
        let node = &self.nodes[n];
        if let Some(doubt) = node.doubts.get(&k).filter(|doubt| doubt.left == 0) {
            match !doubt.failed && node.owner.steps(k) == doubt.steps {
                true => {
                    let lost = doubt.lost;
                    if let Some((id, has_row)) = lost {
                        self.judge_loss(n, id, has_row);
                    }
                    self.doubted(n, k, lost.is_some());
                }
                false => self.look_for_loss(n, k),
            }
        }
    }

    fn doubted(&mut self, n: usize, k: usize, lost: bool) {
        self.tell(|| format!("{n}: of partition {k} something was lost: {lost}"));
        if lost {
            self.send(n, Op::SetBorn { k, at: self.now, nx: false }, None, Then::Nothing);
            // What a server lost here it lost elsewhere, too.
            self.nodes[n].owner.suspect_all();
        }
        self.nodes[n].doubts.remove(&k);
        self.news(1, n, News::Mend);
    }
}
