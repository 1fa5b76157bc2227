//! Readiness: a thin layer over epoll, the same for the fleet and the floor.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::Result;

const EVENTS_PER_WAIT: usize = 1024;

pub struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub fn new() -> Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(EVENTS_PER_WAIT) })
    }

    /// Level-triggered: whoever leaves bytes unread hears of them at the next wait.
    pub fn watch(&self, source: impl AsFd, token: u64) -> Result<()> {
        let token = epoll::EventData::new_u64(token);
        Ok(epoll::add(&self.epoll, source, token, epoll::EventFlags::IN)?)
    }

    /// Returns how many sources are ready; [`Poller::token`] names them.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<usize> {
        let timeout = timeout.map(Timespec::try_from).transpose()?;
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(self.events.len()),
            Err(error) => Err(error.into()),
        }
    }

    pub fn token(&self, index: usize) -> u64 {
        self.events[index].data.u64()
    }
}
