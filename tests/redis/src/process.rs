//! The process of one server: started in its folder, signalled by number, ended on drop.

use crate::{
    guardian,
    patience::{hold, until},
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

pub struct Process {
    folder: PathBuf,
    arguments: &'static [&'static str],
    child: Mutex<Child>,
}

impl Process {
    /// Runs `redis-server` with the arguments, in the folder.
    pub fn start(folder: &Path, arguments: &'static [&'static str]) -> Self {
        let folder = folder.to_owned();
        let child = Mutex::new(spawn(&folder, arguments));
        Self { folder, arguments, child }
    }

    /// The same once more, after a kill where it still runs.
    pub fn restart(&self) {
        self.kill();
        *hold(&self.child) = spawn(&self.folder, self.arguments);
    }

    pub fn pid(&self) -> u32 {
        hold(&self.child).id()
    }

    pub fn runs(&self) -> bool {
        hold(&self.child).try_wait().is_ok_and(|status| status.is_none())
    }

    /// SIGKILL, which reaches a stopped process as well; returns when it is gone.
    pub fn kill(&self) {
        let mut child = hold(&self.child);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// SIGSTOP; returns when it stands, since an answer that comes after `stop` would be a surprise.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        until("the process stands", Duration::from_secs(5), || (self.stat(0) == "T").then_some(()));
    }

    pub fn cont(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        assert!(self.runs(), "a process that is gone takes no {signal:?}");
        let pid = Pid::from_raw(self.pid().cast_signed()).expect("a number");
        kill_process(pid, signal).expect("a child takes a signal");
    }

    /// What it has computed so far, in the kernel as well; in steps of a clock tick (10 ms).
    pub fn cpu(&self) -> Duration {
        let [utime, stime] = [11, 12].map(|place| self.stat(place).parse::<u64>().expect("a number"));
        Duration::from_millis((utime + stime) * 1000 / rustix::param::clock_ticks_per_second())
    }

    /// A word of `/proc/<pid>/stat`, counted from the state, which follows the name in parentheses.
    fn stat(&self, place: usize) -> String {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("a process");
        let (_, after) = stat.rsplit_once(") ").expect("a name");
        after.split(' ').nth(place).expect("a word").to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(folder: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new("redis-server");
    // A group of its own: Ctrl-C ends the test, and that ends the server.
    command.args(arguments).current_dir(folder).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("redis-server starts (Debian: apt-get install redis-server)");
    guardian::watch(child.id(), folder);
    child
}
