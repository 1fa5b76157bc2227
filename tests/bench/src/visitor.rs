//! One client that comes alone, for whoever waits for each thing it does.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::member::Member;
use crate::{Result, wire};

const PATIENCE: Duration = Duration::from_secs(20);
const SCRATCH_BYTES: usize = 8 * 1024;
const NORMAL: u16 = 1000;

pub struct Visitor {
    member: Member,
    /// What it was greeted with.
    pub hi: Value,
}

impl Visitor {
    /// Returns with its greeting.
    pub fn come(address: SocketAddr, target: &str) -> Result<Self> {
        let began = Instant::now();
        let mut member = Member::dial(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), address, target)?;
        member.stream().set_nonblocking(false)?;
        member.stream().set_read_timeout(Some(PATIENCE))?;
        let (mut scratch, mut hi) = ([0; SCRATCH_BYTES], None);
        while began.elapsed() < PATIENCE {
            member.read(&mut scratch, 0, |text| {
                if hi.is_none() {
                    hi = Some(serde_json::from_slice(text)?);
                }
                Ok(())
            })?;
            if let Some(hi) = hi.take() {
                return Ok(Self { member, hi });
            }
        }
        Err(format!("no greeting within {} s", PATIENCE.as_secs()).into())
    }

    /// Says goodbye, and hears it. Who does not leave breaks off: its connection ends by reset.
    pub fn leave(self) -> Result<()> {
        self.member.write(&wire::masked(wire::CLOSE, &NORMAL.to_be_bytes()))?;
        let (mut stream, mut scratch) = (self.member.stream(), [0; SCRATCH_BYTES]);
        while stream.read(&mut scratch).map_err(|error| format!("no goodbye: {error}"))? > 0 {}
        Ok(())
    }
}
