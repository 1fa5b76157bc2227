//! What the kernel says of this process, by the names that every Prometheus dashboard knows; read when somebody looks.

use crate::listener::open_files_max;
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

pub struct Process {
    resident_bytes: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    cpu_seconds: Counter<f64, AtomicU64>,
    /// Since when it counts; a restart shows as a step.
    start_seconds: Gauge,
}

impl Default for Process {
    /// Made at the start.
    fn default() -> Self {
        let start_seconds = Gauge::default();
        start_seconds.set((registry::epoch_ms() / 1000) as i64);
        Self {
            resident_bytes: Gauge::default(),
            open_fds: Gauge::default(),
            max_fds: Gauge::default(),
            cpu_seconds: Counter::default(),
            start_seconds,
        }
    }
}

impl Process {
    /// As it is now.
    pub fn register(&self, registry: &mut Registry) {
        self.read();
        registry.register("process_resident_memory_bytes", "Memory in use", self.resident_bytes.clone());
        registry.register("process_open_fds", "Open files", self.open_fds.clone());
        registry.register("process_max_fds", "Open files that are allowed", self.max_fds.clone());
        registry.register("process_cpu_seconds", "User and system time", self.cpu_seconds.clone());
        let began = self.start_seconds.clone();
        registry.register("process_start_time_seconds", "When it started, in seconds since 1970", began);
    }

    fn read(&self) {
        self.resident_bytes.set(resident_bytes().unwrap_or(0));
        let open = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        self.open_fds.set(i64::try_from(open).unwrap_or(i64::MAX));
        self.max_fds.set(i64::try_from(open_files_max()).unwrap_or(i64::MAX));
        self.cpu_seconds.inner().store(cpu_seconds().unwrap_or(0.0).to_bits(), Ordering::Relaxed);
    }
}

fn resident_bytes() -> Option<i64> {
    let pages: i64 = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * i64::try_from(rustix::param::page_size()).ok()?)
}

pub fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name may hold anything, so fields are counted from behind it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
