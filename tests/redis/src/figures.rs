//! What a server says of itself in figures, and what the kernel says of it.

use crate::server::{Server, read};
use std::time::Duration;

impl Server {
    /// A line of INFO: `server.info("replication", "master_link_status")`.
    pub fn info(&self, section: &str, name: &str) -> Option<String> {
        let text: String = read(self.try_ask(&["INFO", section]).ok()?);
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned))
    }

    fn figure(&self, section: &str, name: &str) -> u64 {
        self.info(section, name).and_then(|figure| figure.parse().ok()).expect("INFO has the figure")
    }

    /// What it has computed so far, in the kernel as well; in steps of a clock tick (10 ms).
    pub fn cpu(&self) -> Duration {
        self.process().cpu()
    }

    pub fn used_memory(&self) -> u64 {
        self.figure("memory", "used_memory")
    }

    /// How many commands it has run, our own included: two looks in a row differ by one.
    pub fn calls(&self) -> u64 {
        self.figure("stats", "total_commands_processed")
    }
}
