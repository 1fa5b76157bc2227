//! The binary under test, in an environment that holds nothing but what a fact gives it.

use crate::{gateway::Gateway, patience::soon};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};
use tokio::process::{Child, Command};

/// A command line that has not run yet.
pub struct Holdfast {
    command: Command,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Both streams: where a sentence goes is not what most facts are about.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl Holdfast {
    pub fn command(args: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command
            .args(args)
            .env_clear()
            .envs(env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Self { command }
    }

    /// Where the binary is.
    pub fn program() -> PathBuf {
        binary()
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Runs to its end.
    pub async fn run(mut self) -> Finished {
        let output = soon("the command ends", self.command.output()).await.expect("holdfast runs");
        Finished {
            code: output.status.code().expect("it exits by itself"),
            stdout: String::from_utf8_lossy(&output.stdout).into(),
            stderr: String::from_utf8_lossy(&output.stderr).into(),
        }
    }

    /// The same, with this on its standard input.
    pub async fn typing(self, text: &str) -> Finished {
        self.reading(text).run().await
    }

    /// This is on its standard input.
    pub fn reading(mut self, text: &str) -> Self {
        let file = TempFile::holding(text);
        self.command.stdin(fs::File::open(file.path()).expect("it was written just now"));
        self
    }

    /// Begins to run.
    pub fn begins(mut self) -> Child {
        self.command.spawn().expect("holdfast runs")
    }

    /// Runs until it is ready.
    pub async fn serve(self) -> Gateway {
        Gateway::of(self.begins()).await
    }
}

/// `HOLDFAST_BIN`, or what `./x test` has built beside this test.
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os("HOLDFAST_BIN") {
        return path.into();
    }
    let own = env::current_exe().unwrap();
    let target = own.ancestors().nth(2).unwrap();
    let path = target.join("holdfast");
    assert!(path.exists(), "{} is not there: cargo build -p holdfast, or set HOLDFAST_BIN", path.display());
    path
}

/// Sends a signal to a command that has begun.
pub fn signal(command: &Child, signal: Signal) {
    kill_process(Pid::from_raw(command.id().expect("it runs").cast_signed()).unwrap(), signal).unwrap();
}

/// A file that lives as long as the fact that needs it.
pub struct TempFile(PathBuf);

impl TempFile {
    pub fn holding(text: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = Self(env::temp_dir().join(format!("holdfast-it-{}-{count}", std::process::id())));
        file.rewrite(text);
        file
    }

    pub fn rewrite(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // Gone already is as good. `holdfast keys` leaves a lock beside the file that it writes.
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_file(format!("{}.lock", self.path()));
    }
}

/// A folder that lives as long as the fact that needs it.
pub struct TempFolder(PathBuf);

impl TempFolder {
    /// An empty one, with this in its name.
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("holdfast-{name}-{}-{count}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder.canonicalize().unwrap())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// For those who want it as text.
    pub fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Where a file of it is, or would be.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
