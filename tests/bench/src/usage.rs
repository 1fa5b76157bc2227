//! What a process costs, read from /proc: processor time, memory, open files.

use std::collections::HashMap;
use std::fs;

use crate::Result;

/// The processor time of a process up to some moment.
pub struct Cpu {
    /// Nanoseconds of each thread, by its id: `stat` has the sum too, but only in hundredths of a second.
    threads: HashMap<String, u64>,
    user_ticks: u64,
    system_ticks: u64,
}

/// The processor time between two moments.
#[derive(Clone, Copy)]
pub struct Spent {
    pub micros: f64,
    /// Between 0 and 1. The kernel samples it at its ticks, so it means little below half a second.
    pub user_share: f64,
}

impl Cpu {
    pub fn of(pid: u32) -> Result<Self> {
        let mut threads = HashMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let entry = entry?;
            // A thread may end between being listed and being read.
            let Ok(line) = fs::read_to_string(entry.path().join("schedstat")) else {
                continue;
            };
            let nanos = number(line.split(' ').next(), "schedstat")?;
            threads.insert(entry.file_name().to_string_lossy().into_owned(), nanos);
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The second field is the program's name in brackets, which may hold spaces itself.
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11);
        Ok(Self { threads, user_ticks: number(fields.next(), "stat")?, system_ticks: number(fields.next(), "stat")? })
    }

    /// A thread that ended meanwhile is left out; neither server has such threads under load.
    pub fn since(&self, earlier: &Self) -> Spent {
        let nanos: u64 = self
            .threads
            .iter()
            .map(|(id, now)| now.saturating_sub(earlier.threads.get(id).copied().unwrap_or(0)))
            .sum();
        let user = (self.user_ticks - earlier.user_ticks) as f64;
        let system = (self.system_ticks - earlier.system_ticks) as f64;
        Spent { micros: nanos as f64 / 1e3, user_share: user / (user + system).max(1.0) }
    }
}

impl Spent {
    pub const NOTHING: Self = Self { micros: 0.0, user_share: 0.0 };

    /// Of two processes together.
    pub fn and(self, other: Self) -> Self {
        let micros = self.micros + other.micros;
        let user = self.micros * self.user_share + other.micros * other.user_share;
        Self { micros, user_share: user / micros.max(f64::MIN_POSITIVE) }
    }

    pub fn per(self, count: f64) -> Self {
        Self { micros: self.micros / count.max(1.0), ..self }
    }
}

/// Bytes of a process. What the kernel keeps for its sockets is in none of them.
#[derive(Clone, Copy)]
pub struct Memory {
    pub pss: f64,
    pub private_dirty: f64,
    pub anonymous: f64,
}

impl Memory {
    pub fn of(pid: u32) -> Result<Self> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let bytes = |name: &str| -> Result<f64> {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kilobytes = line.and_then(|rest| rest.split_whitespace().next());
            Ok(number(kilobytes, name)? as f64 * 1024.0)
        };
        Ok(Self { pss: bytes("Pss")?, private_dirty: bytes("Private_Dirty")?, anonymous: bytes("Anonymous")? })
    }
}

/// Open files of a process, its sockets among them.
pub fn files(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

fn number(text: Option<&str>, place: &str) -> Result<u64> {
    text.and_then(|text| text.parse().ok()).ok_or_else(|| format!("/proc: no number in {place}").into())
}
