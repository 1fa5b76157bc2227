//! Who waits for what becomes of a call.

use super::{Caller, Calls, NEWS_MAX, News, Place, lock};
use registry::{CallId, SocketId};
use std::sync::Arc;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

/// One caller who waits. Dropping it before the end withdraws the call.
pub struct Ears {
    calls: Arc<Calls>,
    pub id: CallId,
    heard: mpsc::Receiver<News>,
    place: Option<Place>,
}

impl Ears {
    /// Whoever speaks of it from now on is believed, and nobody else but the socket that has it, wherever that goes.
    pub fn point_to(&mut self, place: Place, socket: Option<SocketId>) {
        if let Some(asked) = lock(&self.calls.asked).calls.get_mut(&self.id) {
            asked.place = Some(place.clone());
            asked.socket = socket;
            asked.since = Instant::now();
        }
        if let Place::There(_) = place {
            // Its owner is looked at from now on.
            self.calls.wake.notify_one();
        }
        self.place = Some(place);
    }

    /// It was not given to anybody after all.
    pub fn point_nowhere(&mut self) {
        if let Some(asked) = lock(&self.calls.asked).calls.get_mut(&self.id) {
            asked.place = None;
            asked.socket = None;
        }
        self.place = None;
    }

    /// The next word, unless the time is over before.
    pub async fn next(&mut self, by: Instant) -> Option<News> {
        let news = timeout_at(by, self.heard.recv()).await.ok().flatten();
        if !matches!(news, None | Some(News::Accepted(_) | News::Progress(..))) {
            // Nothing is left to withdraw.
            self.place = None;
        }
        news
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        lock(&self.calls.asked).remove(&self.id);
        if let Some(place) = self.place.take() {
            self.calls.withdraw(&self.id, place);
        }
    }
}

impl Calls {
    /// Begins a call; who holds the ears hears what becomes of it.
    pub fn begin(self: &Arc<Self>) -> Ears {
        let id = CallId::fresh(&self.registry.incarnation());
        self.listen(id)
    }

    /// Begins to listen for what becomes of a call here.
    pub(super) fn listen(self: &Arc<Self>, id: CallId) -> Ears {
        let (news, heard) = mpsc::channel(NEWS_MAX);
        let caller = Caller { place: None, socket: None, since: Instant::now(), news };
        lock(&self.asked).calls.insert(id.clone(), caller);
        Ears { calls: self.clone(), id, heard, place: None }
    }
}
