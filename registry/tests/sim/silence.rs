//! Who is not heard may hold what has no row, as `lookups.rs` of the registry finds it out.

use super::{
    node::Then,
    wire::{Op, Said},
    world::World,
};
use crate::model::Flaw;
use registry::{Incarnation, SocketId, rules::Sign};

/// A longer silence is one.
const BEATS_APART: u64 = 4_000;

/// A look at the others, and what will be said of a stranger if all of them are heard.
#[derive(Debug)]
pub struct Question {
    about: Option<(SocketId, u64, String)>,
    looked: u64,
    left: usize,
    signs: Vec<(Incarnation, Sign)>,
}

impl World {
    /// Nobody told of it: it is said so only if everybody is heard.
    pub fn ask_around(&mut self, n: usize, id: SocketId, asked: u64, what: String) {
        match self.nodes[n].silence.lately(self.now) {
            None => self.look_around(n, Some((id, asked, what))),
            Some(silent) if !silent || self.flaw == Some(Flaw::SilenceIsAssent) => {
                self.judge_gone(n, id, asked, &what);
            }
            Some(_) => {}
        }
    }

    /// Done now and then by itself, so that a silence is noticed while nobody asks.
    pub fn look_around(&mut self, n: usize, about: Option<(SocketId, u64, String)>) {
        let (looked, questions) = (self.now, &mut self.nodes[n].questions);
        let nth = questions.len();
        questions.push(Question { about, looked, left: 0, signs: Vec::new() });
        self.send(n, Op::Known, None, Then::Listed { nth });
    }

    pub fn resume_question(&mut self, n: usize, then: Then, said: Option<Said>) {
        let node = &mut self.nodes[n];
        match (then, said) {
            (Then::Listed { nth }, Some(Said::Known(known))) => {
                let others: Vec<_> = known.into_keys().filter(|other| *other != node.own).collect();
                node.questions[nth].left = others.len();
                for of in others {
                    self.send(n, Op::Heard { of: of.clone() }, None, Then::Sign { nth, of });
                }
                self.answer(n, nth);
            }
            (Then::Sign { nth, of }, Some(Said::Heard { beat, dead, .. })) => {
                let question = &mut node.questions[nth];
                let sign = match beat {
                    _ if dead => Sign::Dead,
                    Some(beat) if beat + BEATS_APART >= question.looked => Sign::Beats,
                    _ => Sign::Silent,
                };
                question.left -= 1;
                question.signs.push((of, sign));
                self.answer(n, nth);
            }
            // Redis does not answer, and nobody can say.
            _ => {}
        }
    }

    fn answer(&mut self, n: usize, nth: usize) {
        let node = &mut self.nodes[n];
        let question = &mut node.questions[nth];
        if question.left > 0 {
            return;
        }
        let silent = node.silence.look(question.looked, std::mem::take(&mut question.signs));
        let about = question.about.take();
        if let Some((id, asked, what)) = about.filter(|_| !silent || self.flaw == Some(Flaw::SilenceIsAssent)) {
            self.judge_gone(n, id, asked, &what);
        }
    }
}
