//! A running gateway: its log, its signals, and what can be asked of it.

use crate::{
    client::Client,
    holdfast::Holdfast,
    http::Request,
    patience::{eventually, soon},
    raw::Raw,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{fs, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Child,
    sync::{Mutex, OwnedMutexGuard, watch},
    task::JoinSet,
};

pub struct Gateway {
    child: Child,
    address: SocketAddr,
    /// What requests of a fact show, where one is wanted of them.
    token: Option<String>,
    /// Everything it has printed so far, on either stream.
    output: watch::Receiver<String>,
    readers: JoinSet<()>,
    /// Readers take it for every line.
    turn: Arc<Mutex<()>>,
    /// While this is held, they do not get it.
    not_listening: Option<OwnedMutexGuard<()>>,
}

impl Gateway {
    /// With the settings of the fixture alone.
    pub async fn start() -> Self {
        Self::with([]).await
    }

    /// With these settings too.
    pub async fn with<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let plain = Self::command(&[]);
        settings.into_iter().fold(plain, |command, (name, value)| command.env(name, value)).serve().await
    }

    /// `holdfast` on a free port, telling everything, before it starts.
    pub fn command(args: &[&str]) -> Holdfast {
        Holdfast::command(args).env("HOST", "127.0.0.1").env("PORT", "0").env("LOG_LEVEL", "debug")
    }

    /// Takes a fresh process and waits for `ready`.
    pub(crate) async fn of(mut child: Child) -> Self {
        let (writer, mut output) = watch::channel(String::new());
        let writer = Arc::new(writer);
        let turn = Arc::new(Mutex::new(()));
        let mut readers = JoinSet::new();
        readers.spawn(read_lines(child.stdout.take().unwrap(), writer.clone(), turn.clone()));
        readers.spawn(read_lines(child.stderr.take().unwrap(), writer, turn.clone()));
        let started = printed(&mut output, "ready", |text| text.lines().any(is_ready).then(|| text.to_owned())).await;
        let text = started.unwrap_or_else(|| panic!("ended before it was ready:\n{}", *output.borrow()));
        let address = listener(&text).unwrap_or_else(|| panic!("no listener is printed:\n{text}"));
        Self { child, address, token: None, output, readers, turn, not_listening: None }
    }

    pub fn with_token(self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it is running")
    }

    /// Everything printed until now.
    pub fn output(&self) -> String {
        self.output.borrow().clone()
    }

    /// Waits for a line with all of these in it, and returns it.
    pub async fn logs(&mut self, parts: &[&str]) -> String {
        let wanted = |line: &&str| parts.iter().all(|part| line.contains(part));
        let line = |text: &str| text.lines().find(wanted).map(str::to_owned);
        let found = printed(&mut self.output, &format!("{parts:?}"), line).await;
        found.unwrap_or_else(|| panic!("ended without a line with {parts:?}:\n{}", self.output()))
    }

    /// Leaves what it prints in the pipe, which will be full in the end.
    pub async fn stops_listening(&mut self) {
        self.not_listening = Some(self.turn.clone().lock_owned().await);
    }

    /// Closes the pipe that it prints into.
    pub async fn hangs_up(&mut self) {
        self.readers.shutdown().await;
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Stopped, all of it: a thread that runs elsewhere goes on for a moment after the signal.
    pub async fn stands_still(&self) {
        self.signal(Signal::STOP);
        let threads = format!("/proc/{}/task", self.pid());
        eventually("every thread stands still", async || {
            let states = fs::read_dir(&threads).unwrap().map(|thread| {
                let stat = fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
            });
            states.into_iter().all(|stands| stands).then_some(())
        })
        .await;
    }

    /// Waits for its end and the last of its output.
    pub async fn exits(&mut self) -> i32 {
        let status = soon("the gateway exits", self.child.wait()).await.unwrap();
        self.not_listening = None;
        soon("its output ends", async { while self.readers.join_next().await.is_some() {} }).await;
        status.code().unwrap_or_else(|| panic!("{status}:\n{}", self.output()))
    }

    /// Stops it, and returns everything that it ever printed.
    pub async fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        assert_eq!(self.exits().await, 0, "{}", self.output());
        self.output()
    }

    pub fn request(&self, method: &str, target: &str) -> Request {
        let request = Request::new(self.address, method, target);
        match &self.token {
            Some(token) => request.with("Authorization", &format!("Bearer {token}")),
            None => request,
        }
    }

    pub fn get(&self, target: &str) -> Request {
        self.request("GET", target)
    }

    pub fn post(&self, target: &str, body: &Value) -> Request {
        self.request("POST", target).json(body)
    }

    pub fn delete(&self, target: &str) -> Request {
        self.request("DELETE", target)
    }

    /// The request that becomes a socket, for those who want to see the answer to it.
    pub fn knock(&self, target: &str) -> Request {
        Request::knock(self.address, target)
    }

    /// Opens a socket; what it hears first is still to be read.
    pub async fn connect(&self, target: &str) -> Client {
        Client::open(self.address, target, &[]).await
    }

    /// Opens a socket and reads `hi` and `reset`.
    pub async fn greeted(&self, target: &str) -> Client {
        let mut client = self.connect(target).await;
        client.is_greeted().await;
        client
    }

    /// A TCP connection.
    pub async fn raw(&self) -> Raw {
        Raw::connect(self.address).await
    }

    /// A socket whose client answers nothing by itself, `hi` and `reset` read.
    pub async fn raw_greeted(&self, target: &str) -> Raw {
        Raw::greeted(self.address, target).await
    }

    /// What a metric says now; 0 when nothing was counted under that name and these labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").await.text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// The verdict on a socket, once it is gone.
    pub async fn verdict(&self, id: &str) -> Value {
        eventually(&format!("{id} is gone"), async || {
            let answer = self.get(&format!("/api/sockets/{id}")).await;
            match answer.status {
                410 => Some(answer.json()["verdict"].clone()),
                200 => None,
                other => panic!("{other}: {}", answer.text()),
            }
        })
        .await
    }

    /// How many sockets this gateway holds.
    pub async fn sockets(&self) -> u64 {
        self.get("/health").await.json()["connections"].as_u64().unwrap()
    }

    /// It still answers, and no bug was counted.
    pub async fn is_unharmed(&self) {
        let health = self.get("/health").await;
        assert_eq!((health.status, &health.json()["status"]), (200, &"healthy".into()), "{}", health.text());
        let metrics = self.get("/metrics").await.text();
        assert!(metrics.contains("\nholdfast_panics_total 0\n"), "{}", self.output());
    }
}

async fn read_lines(stream: impl AsyncRead + Unpin, output: Arc<watch::Sender<String>>, turn: Arc<Mutex<()>>) {
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).await.is_ok_and(|length| length > 0) {
        let _turn = turn.lock().await;
        output.send_modify(|text| text.push_str(&String::from_utf8_lossy(&line)));
        line.clear();
    }
}

/// Waits until something is found in what was printed; nothing if it ends without that.
async fn printed<T>(output: &mut watch::Receiver<String>, what: &str, find: impl Fn(&str) -> Option<T>) -> Option<T> {
    let mut found = None;
    let what = format!("the gateway prints {what}");
    let seen = output.wait_for(|text| {
        found = find(text);
        found.is_some()
    });
    // An end of the output is not one of the waiting's failures.
    let _ = soon(&what, seen).await;
    found
}

/// `ready`, whatever the log format puts around it.
fn is_ready(line: &str) -> bool {
    let line = line.trim_end();
    line == "ready" || line.ends_with(" ready") || line.contains(r#""message":"ready""#)
}

fn listener(text: &str) -> Option<SocketAddr> {
    let (_, rest) = text.split_once("http://127.0.0.1:")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some(([127, 0, 0, 1], rest[..digits].parse().ok()?).into())
}
