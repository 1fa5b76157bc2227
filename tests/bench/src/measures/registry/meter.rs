//! What a Redis server has spent between two moments.

use std::time::{Duration, Instant};

use servers::Server;

use crate::Result;
use crate::usage::{Cpu, Spent};

pub struct Meter {
    pid: u32,
    cpu: Cpu,
    began: Instant,
}

impl Meter {
    pub fn start(server: &Server) -> Result<Self> {
        let pid = server.pid();
        Ok(Self { pid, cpu: Cpu::of(pid)?, began: Instant::now() })
    }

    pub fn spent(&self) -> Result<Spent> {
        Ok(Cpu::of(self.pid)?.since(&self.cpu))
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Which part of one processor it used, in percent.
    pub fn share(&self) -> Result<f64> {
        Ok(self.spent()?.micros / self.elapsed().as_secs_f64() / 1e4)
    }
}
