//! A real nginx in front of gateways, with a file of `nginx/` as it is shipped: only ports and places on the disk are
//! others. A fact may change its text, to show what a line is for.

use crate::{holdfast::TempFolder, http::Request, patience::eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};
use tokio::net::TcpStream;

/// For gateways behind it: without a token nothing that comes through a proxy is answered.
pub const TOKEN: (&str, &str) = ("API_TOKEN", "t0ken");

/// The one that people start with.
pub const MAIN: &str = "holdfast.conf";

/// What stands around each file in an nginx.conf, which is called `kit.conf` there.
const AROUND: &str = "daemon off; worker_processes 1; pid nginx.pid;
events { worker_connections 4096; }
http {
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
  scgi_temp_path scgi; access_log off; error_log stderr crit;
  include kit.conf;
}
";

pub struct Nginx {
    program: Child,
    folder: TempFolder,
    pub address: SocketAddr,
}

impl Nginx {
    /// Starts one with `nginx/holdfast.conf`, and waits until it listens.
    pub async fn before(gateways: &[SocketAddr]) -> Self {
        Self::with(MAIN, gateways).await
    }

    pub async fn with(file: &str, gateways: &[SocketAddr]) -> Self {
        Self::changed(file, gateways, str::to_owned).await
    }

    /// With this done to the text of each file.
    pub async fn changed(file: &str, gateways: &[SocketAddr], change: impl Fn(&str) -> String) -> Self {
        // Free a moment ago; who takes it meanwhile makes nginx end, and the fact fail with its words.
        let address = SocketAddr::from(([127, 0, 0, 1], servers::free_port()));
        Self::of(holding(file, gateways, address, change), address).await
    }

    /// With this folder as its own, in which [`starting`] finds `kit.conf`, a server at this address.
    pub async fn of(folder: TempFolder, address: SocketAddr) -> Self {
        let program = starting(folder.path(), &[]).stdin(Stdio::null()).spawn().unwrap();
        let nginx = Self { program, folder, address };
        eventually("nginx listens", async || TcpStream::connect(address).await.ok()).await;
        nginx
    }

    /// Reads its files anew: those who are connected stay with the old worker.
    pub async fn reloads(&self) {
        let workers = || {
            let pid = self.program.id();
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap()
        };
        let before = workers();
        self.signal(Signal::HUP);
        eventually("there is a new worker", async || (workers() != before).then_some(())).await;
    }

    /// All that it has written into its logs.
    pub fn logs(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.file(name)).unwrap();
        read("holdfast.log") + &read("holdfast-error.log")
    }

    /// The file that it was started with, as it is there.
    pub fn file(&self) -> PathBuf {
        self.folder.file("kit.conf")
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.program.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Asked, so that it takes its worker along.
        self.signal(Signal::TERM);
        let _ = self.program.wait();
    }
}

/// A request with that token, of one of the team's own servers.
pub fn own(address: SocketAddr, method: &str, target: &str) -> Request {
    Request::new(address, method, target).with("Authorization", &format!("Bearer {}", TOKEN.1))
}

/// What nginx says of a file.
pub fn tried(file: &str) -> Output {
    let gateways = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let address = SocketAddr::from(([127, 0, 0, 1], servers::free_port()));
    let folder = holding(file, &gateways, address, str::to_owned);
    starting(folder.path(), &["-t"]).output().unwrap()
}

/// The files in `nginx/` whose names end so, with their texts.
pub fn kit(ending: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nginx");
    let files = fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|file| file.path().is_file());
    let files = files.map(|file| (file.file_name().into_string().unwrap(), file.path()));
    let mut files: Vec<_> = files
        .filter(|(name, _)| name.ends_with(ending))
        .map(|(name, path)| (name, fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// A folder with that file of the kit in it, and what it includes and shows.
fn holding(file: &str, gateways: &[SocketAddr], address: SocketAddr, change: impl Fn(&str) -> String) -> TempFolder {
    let folder = TempFolder::new("nginx");
    let write = |name: &str, text: &str| fs::write(folder.file(name), text).unwrap();
    for (name, text) in kit(".inc") {
        write(&name, &change(&fitted(&text, gateways, address)));
    }
    let (_, text) = kit(".conf").into_iter().find(|(name, _)| name == file).expect("a file of nginx/");
    if text.contains("ssl_certificate") {
        let papers = servers::Papers::issue();
        write("fullchain.pem", &papers.certificate);
        write("privkey.pem", &papers.key);
        write("authority.pem", &papers.authority);
    }
    write("kit.conf", &change(&fitted(&text, gateways, address)));
    folder
}

/// nginx with `kit.conf` in this folder, and all that it writes there, too.
pub fn starting(folder: &Path, args: &[&str]) -> Command {
    let user = if rustix::process::getuid().is_root() { "user root;\n" } else { "" };
    fs::write(folder.join("nginx.conf"), format!("{user}{AROUND}")).unwrap();
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| fs::exists(path).unwrap_or(false));
    let mut command = Command::new(program.expect("nginx is missing: apt-get install nginx"));
    command.args(["-p", folder.to_str().unwrap(), "-c", "nginx.conf", "-e", "stderr"]).args(args);
    command
}

/// The same at this address and before these gateways, the first for the first that is named. Where there are fewer, the
/// others go.
fn fitted(text: &str, gateways: &[SocketAddr], address: SocketAddr) -> String {
    let is_secure = text.contains("listen 443");
    let mut lines = Vec::new();
    for line in text.lines() {
        let words = line.trim_start();
        if let Some(rest) = words.strip_prefix("server 127.0.0.1:") {
            let (port, rest) = rest.split_at(4);
            let nth = match port {
                "8081" | "5000" => 0,
                "8082" | "5001" => 1,
                "8083" => 2,
                other => panic!("the ports are other ones than they were: {other}"),
            };
            lines.extend(gateways.get(nth).map(|gateway| format!("server {gateway}{rest}")));
        } else if words.starts_with("listen 443") || (words == "listen 80;" && !is_secure) {
            let rest = words.trim_start_matches("listen ").trim_start_matches(|c: char| c.is_ascii_digit());
            lines.push(format!("listen {address}{rest}"));
        } else if words == "listen 80;" {
            lines.push(format!("listen 127.0.0.2:{};", address.port()));
        } else if !words.starts_with("listen [::]:") {
            lines.push(line.replace("/var/log/nginx/", "").replace("/etc/letsencrypt/live/example.com/", ""));
        }
    }
    lines.join("\n")
}
