//! What a process manager is told, what it passes, and what is shown of it. pm2 itself is driven in `tests/browser`.

use crate::{
    gateway::Gateway,
    holdfast::{Holdfast, TempFile, TempFolder, binary},
    http::{Answer, Request},
    patience::{eventually, soon},
};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::{Value, json};
use servers::Server;
use std::{
    fs,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    net::{TcpStream, UnixDatagram},
    process::{Child, Command},
    time::timeout,
};

/// systemd's `Type=notify`: ready once it is, and stopping as soon as it was asked to, with the time that it takes.
#[tokio::test]
async fn systemd_hears_ready_and_stopping() {
    let manager = Manager::new();
    let gateway = Gateway::with([manager.notify(), ("DRAIN_TIMEOUT", "200s")]).await;
    assert_eq!(manager.hears().await, "READY=1");
    gateway.stop().await;
    // Five more for what comes after the drain; without it systemd kills after TimeoutStopSec.
    assert_eq!(manager.hears().await, "STOPPING=1\nEXTEND_TIMEOUT_USEC=205000000");
}

/// Checklist 295: the watchdog is fed by an answer at the own door, and by nothing else.
#[tokio::test]
async fn the_watchdog_is_fed_by_who_answers_and_not_by_who_only_runs() {
    let manager = Manager::new();
    let settings = [manager.notify(), ("WATCHDOG_USEC", "600000"), ("DRAIN_TIMEOUT", "2s")];
    let mut gateway = Gateway::with(settings).await;
    assert_eq!(manager.hears().await, "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.hears().await, "WATCHDOG=1");
    }
    // No descriptor more than those it has: it runs, and nobody gets in.
    let pid = Pid::from_raw(i32::try_from(gateway.pid()).unwrap());
    let few = Rlimit { current: Some(0), maximum: None };
    let many = prlimit(pid, Resource::Nofile, Rlimit { maximum: many_files().maximum, ..few }).unwrap();
    gateway.logs(&["does not answer at 127.0.0.1:", "watchdog is not fed"]).await;
    manager.hears_nothing_for(Duration::from_millis(900)).await;
    prlimit(pid, Resource::Nofile, many).unwrap();
    gateway.logs(&["answers at 127.0.0.1:", "again"]).await;
    assert_eq!(manager.hears().await, "WATCHDOG=1");
    gateway.stands_still().await;
    manager.hears_nothing_for(Duration::from_millis(900)).await;
    gateway.signal(Signal::CONT);
    assert_eq!(manager.hears().await, "WATCHDOG=1");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exits().await, 0, "{}", gateway.output());
}

/// Who is only full answers too, with 503: it must not be killed for it, with all who are there.
#[tokio::test]
async fn the_watchdog_is_fed_by_who_has_no_room_for_more() {
    let manager = Manager::new();
    let settings = [manager.notify(), ("WATCHDOG_USEC", "600000"), ("HOST", "127.0.0.1"), ("PORT", "0")];
    // Of these files 64 are kept back; the others are connections.
    let gateway = Gateway::of(under_a_shell("ulimit -n 104; exec \"$0\"", &settings)).await;
    assert_eq!(manager.hears().await, "READY=1");
    let mut crowd = Vec::new();
    eventually("there is no room for more", async || {
        crowd.push(gateway.raw().await);
        let said = gateway.get("/health/live").await.status;
        (said == 503).then_some(())
    })
    .await;
    while manager.socket.try_recv(&mut [0; 64]).is_ok() {}
    for _ in 0..3 {
        assert_eq!(manager.hears().await, "WATCHDOG=1");
    }
    assert!(!gateway.output().contains("watchdog is not fed"), "{}", gateway.output());
}

/// A wrapper hands on the environment and not the descriptor: what its number means here is ours.
#[tokio::test]
async fn a_channel_that_was_not_passed_is_none() {
    for fd in ["3", "4", "7", "9"] {
        let settings = [("NODE_CHANNEL_FD", fd), ("pm_id", "0"), ("HOST", "127.0.0.1"), ("PORT", "0")];
        let gateway = Gateway::of(under_a_shell("exec \"$0\" 3>&- 4>&- 7>&- 9>&-", &settings)).await;
        gateway.is_unharmed().await;
    }
}

/// Whoever wants a PROXY header, and whoever lets no neighbour in, lives all the same.
#[tokio::test]
async fn the_watchdog_comes_by_the_door_as_it_is() {
    for proxies in ["127.0.0.1", "192.0.2.1"] {
        let manager = Manager::new();
        let watched = [manager.notify(), ("WATCHDOG_USEC", "300000")];
        let shut = [("PROXY_PROTOCOL", "on"), ("TRUSTED_PROXIES", proxies), ("API_TOKEN", "t")];
        let gateway = Gateway::with(watched.into_iter().chain(shut)).await;
        assert_eq!(manager.hears().await, "READY=1");
        for _ in 0..3 {
            assert_eq!(manager.hears().await, "WATCHDOG=1", "{proxies}");
        }
        assert!(!gateway.output().contains("watchdog is not fed"), "{}", gateway.output());
    }
}

/// The real tool of systemd, which starts the program when somebody connects, and passes the port.
#[tokio::test]
async fn a_port_that_systemd_opens_is_served() {
    let address = SocketAddr::from(([127, 0, 0, 1], servers::free_port()));
    let mut activate = Command::new("systemd-socket-activate");
    activate.args(["-l", &address.to_string(), "--fdname=http", "-E", "LOG_LEVEL=debug", "-E", "PORT=1"]);
    let child = activate.arg(binary()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
    let child = child.expect("systemd-socket-activate is there: apt-get install systemd");
    // Whoever comes first starts it, and is served by it.
    let first = eventually("the port is open", async || TcpStream::connect(address).await.ok()).await;
    let mut gateway = Gateway::of(child).await;
    assert_eq!(gateway.address(), address);
    drop(first);
    gateway.greeted("/ws").await;
    gateway.logs(&["PORT=1 is not used", &address.to_string()]).await;
    assert!(gateway.output().contains("lent by systemd"), "{}", gateway.output());
    let shown = gateway.get("/api/instances").await.json();
    let shown = &shown["instances"][0];
    assert_eq!((&shown["manager"], &shown["address"]), (&json!("systemd"), &json!(address.to_string())), "{shown}");
    gateway.is_unharmed().await;
}

/// Checklist 274: nobody finds the port taken, since it is never given back; and nobody is refused.
#[tokio::test]
async fn a_lent_port_stays_open_while_the_process_is_restarted() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    let lend = || Gateway::of(lent(port.try_clone().unwrap(), 1));
    let first = lend().await;
    first.greeted("/ws").await;
    first.stop().await;
    let ask = tokio::spawn(async move { Request::new(address, "GET", "/health").await });
    let knock = tokio::spawn(async move { Request::knock(address, "/ws").await });
    // Both are connected, and wait: nobody accepts.
    eventually("both are in the queue of the port", async || (queue_of(address) == 2).then_some(())).await;
    let mut second = lend().await;
    let answers: Vec<Answer> =
        vec![soon("it is answered", ask).await.unwrap(), soon("it is let in", knock).await.unwrap()];
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 101]);
    second.signal(Signal::TERM);
    assert_eq!(second.exits().await, 0);
}

#[tokio::test]
async fn what_is_no_port_of_ours_is_named_with_the_fix() {
    let udp = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    for (child, parts) in [
        (lent(udp(), 1), ["no listening TCP socket", "ListenStream="]),
        (lent(tcp, 2), ["2 sockets (http, unknown)", "one ListenStream="]),
    ] {
        let output = soon("it ends", child.wait_with_output()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
}

/// Checklist 284: the units are right in systemd's own eyes, and leave a stranger little.
#[tokio::test]
async fn the_units_are_sound_and_hardened() {
    let units = Units::filled_in();
    let verified =
        analyze(&["verify", "--man=no", &units.path("service"), &units.path("socket"), &units.target()]).await;
    assert_eq!(verified, "", "systemd-analyze verify");
    let judged = analyze(&["security", "--offline=true", "--no-pager", &units.path("service")]).await;
    let exposure = judged.lines().find_map(|line| line.split_once("Overall exposure level for ")).expect(&judged).1;
    let exposure: f64 = exposure.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(exposure <= 2.0, "{judged}");
    // What stands in the unit is what the program reads.
    let unit = fs::read_to_string(units.path("service")).unwrap();
    let settings: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("Environment=")).collect();
    let credentials = TempFile::holding("redis://127.0.0.1:1");
    let mut check = Holdfast::command(&["check", "--json"]);
    for (name, value) in settings.iter().flat_map(|line| line.split(' ')).filter_map(|pair| pair.split_once('=')) {
        let (_, is_file) = (value, value.starts_with("%d/"));
        check = check.env(name, if is_file { credentials.path() } else { "8081" });
    }
    let shown: Value = serde_json::from_str(&check.env("HOST", "127.0.0.1").run().await.stdout).unwrap();
    for name in ["PORT", "API_TOKEN", "REDIS_URL"] {
        assert_ne!(shown["settings"][name]["source"], "default", "{name} in {shown:#}");
    }
    assert_eq!(shown["problems"], json!([]), "{shown:#}");
}

/// Checklist 45, 163, 214, 221: what an instance says of itself, read everywhere, and how those differ that should not.
#[tokio::test]
async fn instances_say_who_restarts_them_how_often_and_in_what_they_differ() {
    let redis = Server::start();
    let url = redis.url();
    let pm2 = |number: &'static str| {
        [("REDIS_URL", url.as_str()), ("pm_id", number), ("NODE_APP_INSTANCE", number), ("kill_timeout", "15000")]
    };
    let file = TempFile::holding("cors_origins = \"https://one.example\"\n");
    let mut first = Gateway::with(pm2("0").into_iter().chain([("restart_time", "3"), ("CONFIG", file.path())])).await;
    let canary = [("CANARY", "true"), ("WS_PING_INTERVAL", "20s"), ("INSTANCE", "canary")];
    let second = Gateway::with(pm2("1").into_iter().chain([("restart_time", "0"), ("CONFIG", file.path())])).await;
    let third = Gateway::with([("REDIS_URL", url.as_str())].into_iter().chain(canary)).await;
    first.logs(&["instance starts", "restarts=3", "configuration="]).await;
    let shown = listed(&third, "", &[]).await;
    let mut all = shown["instances"].as_array().unwrap().iter();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let named =
        |name: &str| all.clone().find(|one| one["instance"] == name).unwrap_or_else(|| panic!("{name}: {shown}"));
    for (gateway, number, restarts) in [(&first, 0, 3), (&second, 1, 0)] {
        let one = named(&format!("{host}-{number}:{}", gateway.port()));
        let said = json!([one["restarts"], one["manager"], one["address"], one["pid"]]);
        assert_eq!(said, json!([restarts, "pm2", gateway.address().to_string(), gateway.pid()]));
    }
    let one = named("canary");
    assert_eq!(json!([one["restarts"], one["manager"], one["canary"]]), json!([null, null, true]));
    assert!(all.all(|one| one["configuration"].as_str().is_some_and(|hash| hash.len() == 8)), "{shown}");

    // Only one is told of a new configuration.
    file.rewrite("cors_origins = \"https://two.example\"\n");
    first.signal(Signal::HUP);
    let shown = listed(&second, "configuration", &[]).await;
    assert_eq!(shown["drift"], json!(["configuration"]));
    let said = Holdfast::command(&["instances", "--url", &format!("http://{}", third.address())]).run().await;
    for part in ["differ in configuration", &format!("{host}-0:"), &format!("{host}-1:"), "holdfast check --json"] {
        assert!(said.stderr.contains(part), "{part} in {said:?}");
    }
    second.signal(Signal::HUP);
    listed(&third, "", &[]).await;

    // As an instance of an earlier version would have said it.
    for one in listed(&third, "", &[]).await["instances"].as_array().unwrap() {
        let (_, mark) = one["incarnation"].as_str().unwrap().rsplit_once('.').unwrap();
        redis.ask(&[
            "HDEL",
            &format!("holdfast:{{i:{mark}}}:lease"),
            "restarts",
            "manager",
            "address",
            "configuration",
        ]);
    }
    let shown = listed(&third, "", &["manager", "address", "restarts"]).await;
    assert_eq!(shown["instances"].as_array().map(Vec::len), Some(3), "{shown}");
}

/// The list, when it shows this drift, and says nothing of these.
async fn listed(asked: &Gateway, drift: &str, unknown: &[&str]) -> Value {
    let drift = if drift.is_empty() { json!([]) } else { json!([drift]) };
    eventually("the beats have told it", async || {
        let shown = asked.get("/api/instances").await.json();
        let instances = shown["instances"].as_array().unwrap();
        let silent = instances.iter().all(|one| unknown.iter().all(|name| one[name].is_null()));
        (shown["drift"] == drift && instances.len() == 3 && silent).then_some(shown)
    })
    .await
}

/// Checklist 258, 295: what is in force, as an environment file, and what stands around.
#[tokio::test]
async fn check_shows_an_environment_that_can_be_copied_and_where_it_runs() {
    let given = [("CORS_ORIGINS", "https://example.com"), ("PORT", "8081"), ("API_TOKEN", "hush"), ("INSTANCE", "a b")];
    let check = |args: &[&str]| {
        given.iter().fold(Holdfast::command(args).env("pm_id", "0").env("container", "lxc"), |one, (name, value)| {
            one.env(name, value)
        })
    };
    let shown = check(&["check", "--env"]).run().await;
    assert!(
        shown.code == 0
            && shown.stdout.contains("\n# HOST=127.0.0.1\n") | shown.stdout.starts_with("# HOST=127.0.0.1\n"),
        "{shown:?}"
    );
    // A shell takes it as it is, and what it takes is the same configuration.
    let file = TempFile::holding(&shown.stdout);
    let again = format!("set -a; . {}; \"$0\" check --env", file.path());
    let again = Command::new("sh").args(["-c", &again]).arg(binary()).env_clear().output();
    let again = soon("the shell ends", again).await.unwrap();
    let plain = |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    let copied = plain(&String::from_utf8_lossy(&again.stdout));
    assert_eq!(copied, plain(&shown.stdout), "{again:?}");
    assert_eq!(copied, ["PORT=8081", "INSTANCE='a b'", "CORS_ORIGINS=https://example.com"]);
    assert!(shown.stdout.contains("# API_TOKEN is set") && !shown.said().contains("hush"), "{shown:?}");

    let shown = check(&["check", "--json"]).run().await;
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    let host = &shown["host"];
    assert_eq!((&host["manager"], &host["container"]), (&json!("pm2"), &json!("lxc")), "{shown:#}");
    assert_eq!(host["openFiles"].as_u64(), many_files().maximum, "{shown:#}");
    assert_eq!(shown["configuration"].as_str().map(str::len), Some(8), "{shown:#}");
}

/// Checklist 276: what does harm later is said at the start, and by `check`, with its fix.
#[tokio::test]
async fn what_does_harm_later_is_warned_of_by_name() {
    let harmful = [
        ("pm_id", "0", "kill_timeout: 15000"),
        ("WS_PING_INTERVAL", "70s", "proxy_read_timeout"),
        ("TRUSTED_PROXIES", "127.0.0.1", "API_TOKEN is not set"),
    ];
    let with =
        |args: &[&str]| harmful.iter().fold(Gateway::command(args), |one, (name, value, _)| one.env(name, value));
    let shown = with(&["check", "--json"]).run().await;
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    let text = with(&["check"]).run().await.stdout;
    let mut gateway = with(&[]).serve().await;
    for (.., fix) in harmful {
        let said = |warning: &Value| warning.as_str().is_some_and(|warning| warning.contains(fix));
        assert!(shown["warnings"].as_array().unwrap().iter().any(said), "{fix} in {shown:#}");
        assert!(text.lines().any(|line| line.starts_with("warning: ") && line.contains(fix)), "{fix} in {text}");
        gateway.logs(&["WARN", fix]).await;
    }
    // The first call that a proxy brings is refused, and the log says what to set; once.
    let through = || gateway.get("/api/sockets").with("X-Forwarded-For", "192.0.2.1");
    for _ in 0..3 {
        assert_eq!(through().await.status, 401);
    }
    gateway.logs(&["/api/sockets is refused", "through a proxy", "set API_TOKEN"]).await;
    let output = gateway.stop().await;
    assert_eq!(output.matches("came through a proxy").count(), 1, "{output}");
}

/// Checklist 42: the mark by which a query compares a canary with the rest, as deploy/systemd/README.md shows it.
#[tokio::test]
async fn a_canarys_figures_can_be_told_from_the_rest() {
    let (canary, usual) = (Gateway::with([("CANARY", "true")]).await, Gateway::start().await);
    let readme = fs::read_to_string(deploy().join("systemd/README.md")).unwrap();
    for (gateway, mark) in [(&canary, "true"), (&usual, "false")] {
        assert_eq!(gateway.knock("/ws").but("Sec-WebSocket-Version", "7").await.status, 426);
        gateway.greeted("/ws").await.leaves().await;
        eventually("the end is counted", async || {
            (gateway.metric("holdfast_sockets_closed_total{cause=\"client_closed\"}").await == 1.0).then_some(())
        })
        .await;
        let text = gateway.get("/metrics").await.text();
        let info: Vec<_> = text.lines().filter(|line| line.starts_with("holdfast_build_info{")).collect();
        // One series, so that a join by instance is one to one.
        assert!(
            info.len() == 1 && info[0].contains(&format!("canary=\"{mark}\"")) && info[0].ends_with(" 1"),
            "{info:?}"
        );
        let queries: Vec<_> = readme.lines().filter(|line| line.contains("group_left (canary)")).collect();
        assert_eq!(queries.len(), 3, "refusals, closes and latencies");
        for query in queries {
            let name = query.split_once("rate(").and_then(|(_, rest)| rest.split_once('[')).expect(query).0;
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} is no metric: {query}");
        }
    }
}

/// The other end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    path: TempFile,
}

impl Manager {
    fn new() -> Self {
        let path = TempFile::holding("");
        fs::remove_file(path.path()).unwrap();
        Self { socket: UnixDatagram::bind(path.path()).unwrap(), path }
    }

    fn notify(&self) -> (&'static str, &str) {
        ("NOTIFY_SOCKET", self.path.path())
    }

    async fn hears(&self) -> String {
        let mut buffer = [0; 64];
        let length = soon("a word to the manager", self.socket.recv(&mut buffer)).await.unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    }

    /// What was said before this moment does not count.
    async fn hears_nothing_for(&self, span: Duration) {
        let mut buffer = [0; 64];
        while self.socket.try_recv(&mut buffer).is_ok() {}
        let heard = timeout(span, self.socket.recv(&mut buffer)).await;
        assert!(heard.is_err(), "{:?}", String::from_utf8_lossy(&buffer));
    }
}

/// The program, as these words of a shell begin it.
fn under_a_shell(words: &str, settings: &[(&str, &str)]) -> Child {
    let mut shell = Command::new("sh");
    shell.args(["-c", words]).arg(binary()).env_clear().envs(settings.iter().copied());
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

/// The program with a socket at the place where systemd passes the first of so many.
fn lent(socket: impl Into<OwnedFd>, count: usize) -> Child {
    let mut shell = Command::new("sh");
    // The number of the process is the shell's, as it is systemd's fork's.
    let words = "LISTEN_PID=$$ exec \"$0\" 3<&0 </dev/null";
    shell.args(["-c", words]).arg(binary()).env_clear().env("LISTEN_FDS", count.to_string());
    shell.env("LISTEN_FDNAMES", "http").env("LOG_LEVEL", "debug").stdin(Stdio::from(socket.into()));
    shell.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

/// How many connections wait to be accepted there, as the kernel counts them.
fn queue_of(address: SocketAddr) -> u32 {
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let own = format!("0100007F:{:04X}", address.port());
    let line = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut line = line.filter(|fields| fields.get(1) == Some(&own.as_str()) && fields.get(3) == Some(&"0A"));
    let queues = line.next().expect("somebody listens there")[4];
    u32::from_str_radix(queues.split_once(':').unwrap().1, 16).unwrap()
}

fn many_files() -> Rlimit {
    rustix::process::getrlimit(Resource::Nofile)
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// What it says, on either stream.
async fn analyze(args: &[&str]) -> String {
    let command = Command::new("systemd-analyze").args(args).output();
    let output =
        soon("systemd-analyze ends", command).await.expect("systemd-analyze is there: apt-get install systemd");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    String::from_utf8_lossy(&said).into_owned()
}

/// The units as somebody installs them for port 8081, but with the program of this test.
struct Units(TempFolder);

impl Units {
    fn filled_in() -> Self {
        let units = Self(TempFolder::new("units"));
        for kind in ["service", "socket"] {
            let unit = fs::read_to_string(deploy().join(format!("systemd/holdfast@.{kind}"))).unwrap();
            fs::write(units.path(kind), unit.replace("/usr/local/bin/holdfast", binary().to_str().unwrap())).unwrap();
        }
        fs::copy(deploy().join("systemd/holdfast.target"), units.target()).unwrap();
        units
    }

    fn path(&self, kind: &str) -> String {
        self.0.file(&format!("holdfast@8081.{kind}")).to_str().unwrap().to_owned()
    }

    fn target(&self) -> String {
        self.0.file("holdfast.target").to_str().unwrap().to_owned()
    }
}
