//! The folder in which everything works, and who removes it even where this process can no longer do so.

use std::{
    fs::{self, DirBuilder},
    io::Write,
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Waits for the end of a pipe that only this process holds. If no word came before it, this process was killed: then
/// the parts end, and the folder goes. A part works in the folder and has its log there as standard output; somebody who
/// only looks around there has not, and nginx and Redis write over an environment that could tell them apart. A master
/// that sees its worker end starts another, so twice.
const GUARDIAN: &str = r#"
    read -r word
    [ "$word" = gone ] && exit
    cd /
    for turn in 1 2; do
        for place in /proc/[0-9]*; do
            [ "$(readlink "$place/cwd")" = "$1" ] || continue
            case "$(readlink "$place/fd/1")" in
                "$1"/*.log) kill -9 "${place#/proc/}" ;;
            esac
        done
    done
    rm -rf -- "$1"
"#;

#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    guardian: Child,
}

impl Folder {
    pub fn new() -> Result<Self, String> {
        let parent = std::env::temp_dir();
        let name = format!("holdfast-demo-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let place = parent.join(name);
        // Nobody else has anything to look for in it; one that is there already is not ours.
        let made = DirBuilder::new().mode(0o700).create(&place).and_then(|()| place.canonicalize());
        let path = made.map_err(|error| format!("no folder can be made in {}: {error}", parent.display()))?;
        let guardian = Command::new("/bin/sh")
            .args(["-c", GUARDIAN, "guardian"])
            .arg(&path)
            // Ctrl-C is for this process, not for it.
            .process_group(0)
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match guardian {
            Ok(guardian) => Ok(Self { path, guardian }),
            Err(error) => {
                let _ = fs::remove_dir(&path);
                Err(format!("/bin/sh does not run: {error}"))
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is gone. Nothing may work in it any more.
    pub fn remove(mut self) -> Result<(), String> {
        let gone = fs::remove_dir_all(&self.path);
        if let (Ok(()), Some(pipe)) = (&gone, &mut self.guardian.stdin) {
            // Where this does not reach it, it finds nothing left to do.
            let _ = pipe.write_all(b"gone\n");
        }
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
        match (self.path.exists(), gone) {
            (true, Err(error)) => Err(format!("{} cannot be removed: {error}", self.path.display())),
            _ => Ok(()),
        }
    }
}
