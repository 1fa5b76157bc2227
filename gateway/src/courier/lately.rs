//! Where sockets of other instances were a moment ago. Who is asked again and again is found without asking the
//! registry each time; a place that is wrong by now shows when it is written to, and is never told to anybody.

use registry::{Holder, Map, SocketId};
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// As long as a claim may need to be known everywhere anyway.
const MOMENT: Duration = Duration::from_millis(250);
/// Places kept at most.
const PLACES_MAX: usize = 4096;

/// The places that were read from the registry lately.
#[derive(Default)]
pub struct Lately(Mutex<Places>);

#[derive(Default)]
struct Places {
    of: Map<SocketId, (Instant, Holder)>,
    order: VecDeque<(Instant, SocketId)>,
}

impl Lately {
    pub fn get(&self, id: SocketId) -> Option<Holder> {
        self.places().of.get(&id).filter(|(read, _)| read.elapsed() < MOMENT).map(|(_, holder)| holder.clone())
    }

    /// It was read that it is there.
    pub fn note(&self, holder: Holder) {
        let now = Instant::now();
        let mut places = self.places();
        while places.order.len() >= PLACES_MAX || places.order.front().is_some_and(|(read, _)| *read + MOMENT <= now) {
            let Some((read, id)) = places.order.pop_front() else { break };
            if places.of.get(&id).is_some_and(|(latest, _)| *latest == read) {
                places.of.remove(&id);
            }
        }
        places.order.push_back((now, holder.id));
        places.of.insert(holder.id, (now, holder));
    }

    /// It is not there any more.
    pub fn forget(&self, id: SocketId) {
        self.places().of.remove(&id);
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use registry::{Incarnation, Session};
    use tokio::time::advance;

    fn holder() -> Holder {
        let owner = Incarnation::fresh("web2");
        Holder { id: SocketId::fresh(), owner, session: Session::fresh(), user: None, store: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_known_for_a_moment_unless_it_proved_wrong() {
        let (lately, one, other) = (Lately::default(), holder(), holder());
        lately.note(one.clone());
        lately.note(other.clone());
        assert_eq!(lately.get(one.id).map(|holder| holder.session), Some(one.session));
        lately.forget(other.id);
        assert!(lately.get(other.id).is_none());
        advance(MOMENT).await;
        assert!(lately.get(one.id).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn it_does_not_grow() {
        let (lately, hot) = (Lately::default(), holder());
        for _ in 0..PLACES_MAX {
            lately.note(holder());
            lately.note(hot.clone());
        }
        let sizes = || {
            let places = lately.places();
            (places.order.len(), places.of.len())
        };
        assert!(sizes().0 <= PLACES_MAX && sizes().1 <= PLACES_MAX, "{:?}", sizes());
        assert!(lately.get(hot.id).is_some());
        advance(MOMENT).await;
        lately.note(hot);
        assert_eq!(sizes(), (1, 1));
    }
}
