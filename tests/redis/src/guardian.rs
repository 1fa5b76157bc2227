//! What ends everything when a test can no longer do it itself. A killed or aborted test program runs no
//! `Drop`, and neither does a server that a test keeps in a `static`. So one shell per test program
//! reads, from a pipe that only this program holds, which processes there are; when the pipe ends, it
//! ends what is still there.

use crate::patience::hold;
use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::{LazyLock, Mutex},
};

/// A process is ours only while it works in the folder we gave it: numbers of processes come back.
const SCRIPT: &str = r#"
    all=
    while read -r pid folder; do all="$all$pid $folder
"; done
    printf %s "$all" | while read -r pid folder; do
        if [ "$(readlink "/proc/$pid/cwd")" = "$folder" ]; then kill -9 "$pid"; fi
    done
    printf %s "$all" | while read -r pid folder; do
        case $folder in */holdfast-redis-*) rm -rf -- "$folder" ;; esac
    done
"#;

static PIPE: LazyLock<Mutex<ChildStdin>> = LazyLock::new(|| {
    let mut shell = Command::new("sh");
    // A group of its own, since Ctrl-C must not end it before its work.
    shell.args(["-c", SCRIPT]).current_dir("/").process_group(0);
    let shell = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Mutex::new(shell.expect("sh starts").stdin.take().expect("a pipe"))
});

/// From now on this process ends, and its folder goes, with the test program at the latest.
pub fn watch(pid: u32, folder: &Path) {
    writeln!(hold(&PIPE), "{pid} {}", folder.display()).expect("the guardian reads");
}
