//! Where one may knock, in turn, and with which token.

use crate::{
    client::{
        address::Address,
        asking::{Failure, Remote},
    },
    config::value::Secret,
};
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

#[derive(Debug)]
pub struct Doors {
    pub addresses: Vec<SocketAddr>,
    token: Secret,
    next: AtomicUsize,
}

impl Doors {
    pub fn new(addresses: Vec<SocketAddr>, token: Secret) -> Self {
        Self { addresses, token, next: AtomicUsize::new(0) }
    }

    pub fn next(&self) -> Option<SocketAddr> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.addresses.get(turn % self.addresses.len().max(1)).copied()
    }

    /// The gateway behind the next one, for its server plane.
    pub fn remote(&self) -> Result<Remote, Failure> {
        let door = self.next().ok_or_else(|| Failure::new(1, "there is no door"))?;
        let address: Address = door.to_string().parse().map_err(|fault: String| Failure::new(1, fault))?;
        Remote::with_token(address, &self.token)
    }
}
