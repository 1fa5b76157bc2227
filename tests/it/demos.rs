//! `holdfast demo`: everything at work by one command, and nothing left of it however it ends.

use crate::{
    holdfast::{Holdfast, TempFolder, signal},
    patience::{eventually, note, soon},
};
use rustix::process::{Pid, Signal, kill_process};
use std::{fs, os::unix::fs::PermissionsExt, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::sleep,
};

/// Where a demo makes its folder, so that it can be seen what is left.
struct Ground(TempFolder);

impl Ground {
    fn new() -> Self {
        Self(TempFolder::new("ground"))
    }

    fn demo(&self, args: &[&str]) -> Holdfast {
        Holdfast::command(&[&["demo"], args].concat()).env("TMPDIR", self.0.name())
    }

    /// One with a few sockets that has made its first call.
    async fn calling(&self) -> Child {
        let mut demo = self.demo(&["--sockets", "20"]).begins();
        calls(&mut demo).await;
        demo
    }

    /// The processes that work in it, with their names.
    fn processes(&self) -> Vec<(Pid, String)> {
        let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let number: i32 = entry.file_name().to_str()?.parse().ok()?;
            let place = fs::read_link(entry.path().join("cwd")).ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            place.starts_with(self.0.path()).then_some((Pid::from_raw(number)?, name.trim().to_owned()))
        });
        numbers.collect()
    }

    fn folders(&self) -> usize {
        fs::read_dir(self.0.path()).unwrap().count()
    }

    /// Nothing is left. Whoever was killed, and is nobody's child there, may take a moment.
    async fn is_empty(&self) {
        assert_eq!(self.folders(), 0);
        eventually("no process is left", async || self.processes().is_empty().then_some(())).await;
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Its output up to the first call.
async fn calls(demo: &mut Child) -> String {
    let mut lines = BufReader::new(demo.stdout.as_mut().unwrap()).lines();
    let mut said = String::new();
    loop {
        let line = soon("the demo calls", lines.next_line()).await.unwrap();
        let line = line.unwrap_or_else(|| panic!("the demo ended: {said}"));
        said += &format!("{line}\n");
        if line.contains("answered by") {
            return said;
        }
    }
}

async fn complains(demo: &mut Child) -> (i32, String) {
    let mut said = String::new();
    let stderr = demo.stderr.as_mut().unwrap();
    soon("the demo ends", stderr.read_to_string(&mut said)).await.unwrap();
    (soon("the demo ends", demo.wait()).await.unwrap().code().expect("it exits by itself"), said)
}

#[tokio::test]
async fn a_demo_shows_restarts_and_kills_in_which_no_call_fails() {
    let ground = Ground::new();
    let finished = ground.demo(&["--for", "5s", "--sockets", "60"]).run().await;
    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""), "{}", finished.said());
    for part in [
        "3 instances, Redis ",
        ", nginx 1",
        "60 sockets",
        "open http://127.0.0.1:",
        "/api/call -H",
        " instances --url http",
        " doctor --quick http",
        "answered by ws_",
        "is told to end (SIGTERM)",
        "is killed (SIGKILL)",
        "serves again, and all 60 sockets are there",
        "1012: instance restart",
        " 0 failed",
        " resumed",
    ] {
        assert!(finished.stdout.contains(part), "{part} in {}", finished.stdout);
    }
    ground.is_empty().await;
}

/// What a newcomer does next: the doctor, by the line that the demo prints. An instance may be restarted under it; then
/// he looks again.
#[tokio::test]
async fn a_demo_is_well_by_the_word_of_the_doctor() {
    let ground = Ground::new();
    let mut demo = ground.demo(&["--sockets", "30", "--no-kill"]).begins();
    let said = calls(&mut demo).await;
    let line = said.lines().find(|line| line.contains(" doctor --quick http://")).expect(&said);
    let (token, url) = (line.split([' ', '=']).find(|word| word.ends_with("/api_token")), line.split(' ').next_back());
    let (token, url) = (token.expect(line), url.expect(line));
    assert_eq!(fs::metadata(token).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(token).unwrap();
    for (pid, name) in ground.processes() {
        let argv = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        assert!(!argv.contains(secret.trim()), "{name}");
    }
    eventually("the doctor finds nothing", async || {
        let doctor = Holdfast::command(&["doctor", "--quick", url]).env("API_TOKEN_FILE", token).run().await;
        note(&doctor.said());
        (doctor.code == 0).then_some(())
    })
    .await;
    signal(&demo, Signal::INT);
    let (code, said) = complains(&mut demo).await;
    assert_eq!((code, said.as_str()), (0, ""));
    ground.is_empty().await;
}

#[tokio::test]
async fn a_demo_that_is_ended_early_leaves_nothing() {
    // Whatever it is about to start or to wait for by then.
    for (word, after_ms) in [(Signal::INT, 0), (Signal::TERM, 30), (Signal::INT, 120), (Signal::HUP, 500)] {
        let ground = Ground::new();
        let mut demo = ground.demo(&["--sockets", "20"]).begins();
        // Before that it has heard of no signal, and begun nothing.
        eventually("it begins", async || (ground.folders() > 0).then_some(())).await;
        sleep(Duration::from_millis(after_ms)).await;
        signal(&demo, word);
        let (code, said) = complains(&mut demo).await;
        assert_eq!((code, said.as_str()), (0, ""));
        ground.is_empty().await;
    }
}

#[tokio::test]
async fn a_demo_that_is_killed_leaves_nothing() {
    let ground = Ground::new();
    let demo = ground.calling().await;
    assert!(ground.processes().len() >= 6, "{:?}", ground.processes());
    // Somebody who looks at its logs.
    let place = fs::read_dir(ground.0.path()).unwrap().next().unwrap().unwrap().path();
    let mut bystander =
        Command::new("sleep").arg("600").current_dir(place).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    signal(&demo, Signal::KILL);
    let others = || ground.processes().into_iter().any(|(_, name)| name != "sleep");
    eventually("everything is gone", async || (ground.folders() == 0 && !others()).then_some(())).await;
    assert_eq!(bystander.try_wait().unwrap(), None);
}

#[tokio::test]
async fn a_demo_ends_when_nobody_reads_it() {
    let ground = Ground::new();
    let mut demo = ground.calling().await;
    drop(demo.stdout.take());
    let (code, said) = complains(&mut demo).await;
    assert_eq!((code, said.as_str()), (0, ""));
    ground.is_empty().await;
}

#[tokio::test]
async fn the_redis_of_a_demo_obeys_nobody_else() {
    let ground = Ground::new();
    let mut demo = ground.calling().await;
    let pid = ground.processes().into_iter().find(|(_, comm)| comm == "redis-server").unwrap().0;
    // It names itself redis-server 127.0.0.1:PORT.
    let title = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap();
    let address = title.trim_matches([' ', '\0']).rsplit([' ', '\0']).next().unwrap();
    let mut redis = TcpStream::connect(address).await.expect(&title);
    redis.write_all(b"CONFIG SET dir /\r\n").await.unwrap();
    let mut said = [0; 7];
    soon("it answers", redis.read_exact(&mut said)).await.unwrap();
    assert_eq!(&said, b"-NOAUTH");
    signal(&demo, Signal::INT);
    complains(&mut demo).await;
}

#[tokio::test]
async fn a_demo_ends_with_the_part_that_ends() {
    for (name, part) in [("redis-server", "redis has ended"), ("nginx", "nginx has ended")] {
        let ground = Ground::new();
        let mut demo = ground.calling().await;
        let pid = ground.processes().into_iter().find(|(_, comm)| comm == name).expect(name).0;
        kill_process(pid, Signal::KILL).unwrap();
        let (code, said) = complains(&mut demo).await;
        assert!(code == 1 && said.contains(part) && said.contains("last words"), "{code} {said}");
        ground.is_empty().await;
    }
}

#[tokio::test]
async fn a_demo_without_redis_and_nginx_says_how_to_get_them_and_shows_what_it_can() {
    let ground = Ground::new();
    let finished = ground.demo(&["--for", "1s", "--sockets", "20"]).env("PATH", "/nowhere").run().await;
    assert_eq!(finished.code, 0, "{}", finished.said());
    for part in ["sudo apt-get install redis-server nginx", "1 instance, 20 sockets", "answered by ws_", " 0 failed"] {
        assert!(finished.stdout.contains(part), "{part} in {}", finished.stdout);
    }
    ground.is_empty().await;
}

#[tokio::test]
async fn a_demo_says_what_it_cannot_show() {
    for (args, part) in [
        (&["--for", "0"][..], "1s to 24h"),
        (&["--for", "soon"], "soon"),
        (&["--sockets", "0"], "1..=10000"),
        (&["--instances", "12"], "1..=9"),
    ] {
        let finished = Holdfast::command(&[&["demo"], args].concat()).run().await;
        assert!(finished.code == 2 && finished.stderr.contains(part), "{finished:?}");
    }
    let ground = Ground::new();
    let lost = ground.demo(&[]).env("TMPDIR", "/nowhere/at/all").run().await;
    assert!(lost.code == 1 && lost.stderr.contains("/nowhere/at/all"), "{lost:?}");
}
