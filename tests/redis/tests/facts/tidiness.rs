//! What becomes of servers whose test program ends without a word.

use servers::Server;
use std::{
    fs, mem,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, exit},
    thread::sleep,
    time::{Duration, Instant},
};

const NOTE: &str = "HOLDFAST_FORGETFUL";

/// No test of its own: what the next one runs as a program. It leaves its server to nobody.
#[test]
#[ignore = "part of `a_forgotten_server_ends_with_its_program`"]
fn forgetful() {
    if let Ok(note) = std::env::var(NOTE) {
        let server = Server::start();
        let folder = server.ca_file();
        fs::write(note, format!("{} {}", server.pid(), folder.parent().unwrap().display())).unwrap();
        mem::forget(server);
        exit(0);
    }
}

#[test]
fn a_forgotten_server_ends_with_its_program() {
    let folder = Server::start();
    let note = folder.ca_file().with_file_name("note");
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "tidiness::forgetful", "--ignored"]).env(NOTE, &note).process_group(0);
    assert!(program.output().unwrap().status.success());
    let said = fs::read_to_string(note).unwrap();
    let (pid, folder) = said.split_once(' ').unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while Path::new(folder).exists() || Path::new("/proc").join(pid).exists() {
        assert!(Instant::now() < deadline, "process {pid} or {folder} is left");
        sleep(Duration::from_millis(20));
    }
}
