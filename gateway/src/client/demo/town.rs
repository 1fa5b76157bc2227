//! The parts together: Redis, instances and nginx, each on a free port and all in one folder.

use super::{cannot, folder::Folder, parts::Part, programs::Programs};
use crate::{client::init::templates, config::value::Secret};
use rustix::process::Signal;
use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    io::Write,
    net::{SocketAddr, TcpListener},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::sleep;

const NGINX: &str = "nginx";
const TOKEN: &str = "api_token";
const REDIS_CONF: &str = "redis.conf";
/// What nginx may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// How often a port may be taken in the moment since it was found free.
const TRIES: usize = 5;
/// Short, since somebody looks on, and longer for each so many sockets.
const DRAIN: Duration = Duration::from_secs(2);
const DRAINED_PER_SECOND: usize = 400;
/// Between two looks at whether all parts are there.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub struct Town {
    parts: Mutex<Vec<Arc<Part>>>,
    drains_longer: Duration,
    /// What the server plane asks for, and the file that has it.
    pub token: Secret,
    pub token_file: PathBuf,
    folder: Folder,
}

/// One that serves, or has ended a moment ago.
#[derive(Debug)]
pub struct Instance {
    pub name: String,
    pub address: SocketAddr,
    part: Arc<Part>,
}

impl Town {
    pub fn of(sockets: usize) -> Result<Self, String> {
        let drains_longer = Duration::from_secs((sockets / DRAINED_PER_SECOND) as u64);
        let (token, folder) = (registry::Secret::fresh().to_text(), Folder::new()?);
        let token_file = folder.path().join(TOKEN);
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&token_file);
        let written = written.and_then(|mut file| writeln!(file, "{token}"));
        written.map_err(cannot("the API_TOKEN cannot be written"))?;
        Ok(Self { parts: Mutex::default(), drains_longer, token: Secret::new(token), token_file, folder })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Arc<Part>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what runs, and removes the folder.
    pub fn remove(self) -> Result<(), String> {
        // A master that is asked takes its workers along. What has not ended when it is dropped is killed.
        let masters: Vec<_> = self.parts().iter().filter(|part| part.name == NGINX).cloned().collect();
        masters.iter().for_each(|part| part.end_by(Signal::TERM));
        let deadline = Instant::now() + ENDS_WITHIN;
        while masters.iter().any(|part| !part.has_ended()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        drop((masters, self.parts));
        self.folder.remove()
    }

    /// Whatever ends without being told to is the end of all.
    pub async fn falls(&self) -> String {
        loop {
            let fallen = self.parts().iter().find(|part| part.has_ended() && !part.is_to_end()).cloned();
            if let Some(part) = fallen {
                return part.obituary();
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn start(&self, name: &str, program: &Path, args: &[&str], env: &[(&str, String)]) -> Result<Arc<Part>, String> {
        let args: Vec<_> = args.iter().map(OsStr::new).collect();
        let part = Arc::new(Part::start(self.folder(), name, program, &args, env)?);
        self.parts().push(part.clone());
        Ok(part)
    }

    fn forget(&self, part: &Arc<Part>) {
        self.parts().retain(|other| !Arc::ptr_eq(other, part));
    }

    /// Starts something at a port that was free, and at another one if it was taken since.
    async fn at_free_port(
        &self,
        start: impl Fn(&Self, SocketAddr) -> Result<Arc<Part>, String>,
        is_up: impl Fn(&Part) -> bool,
    ) -> Result<SocketAddr, String> {
        let mut outcome = Err("no port is free".to_owned());
        for _ in 0..TRIES {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            let address = free.map_err(cannot("no port is free"))?;
            let part = start(self, address)?;
            outcome = part.until("start", |part| is_up(part).then_some(address)).await;
            if outcome.is_ok() {
                break;
            }
            part.end_by(Signal::KILL);
            self.forget(&part);
        }
        outcome
    }

    /// The URL of an empty Redis that keeps nothing. Others on this machine reach its port, and one that is root's could
    /// be told to write any file, so it has a password; that stands in a file, since a command line is no secret.
    pub async fn redis(&self, program: &Path) -> Result<String, String> {
        let password = registry::Secret::fresh().to_text();
        let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.folder().join(REDIS_CONF));
        let written = new.and_then(|mut file| writeln!(file, "requirepass {password}"));
        written.map_err(cannot("redis.conf cannot be written"))?;
        let start = |town: &Self, address: SocketAddr| {
            let port = address.port().to_string();
            let args = [REDIS_CONF, "--bind", "127.0.0.1", "--port", &port];
            let args = [&args[..], &["--save", "", "--appendonly", "no", "--dir", "."]].concat();
            town.start("redis", program, &args, &[])
        };
        let address = self.at_free_port(start, |part| part.said().contains("eady to accept connections")).await?;
        Ok(format!("redis://:{password}@{address}"))
    }

    /// An nginx in front of the instances.
    pub async fn nginx(&self, program: &Path, instances: &[Instance], sockets: usize) -> Result<SocketAddr, String> {
        let instances: Vec<_> = instances.iter().map(|instance| instance.address).collect();
        let user = if rustix::process::getuid().is_root() { "user root;\n" } else { "" };
        let start = |town: &Self, address: SocketAddr| {
            let text = include_str!("nginx.conf")
                .replace("@user", user)
                .replace("@connections", &(sockets * 3 + 1000).to_string());
            let prefix = town.folder();
            for (name, text) in [("nginx.conf", text), ("holdfast.conf", templates::nginx_at(address, &instances)?)] {
                fs::write(prefix.join(name), text).map_err(cannot(&format!("{name} cannot be written")))?;
            }
            let args = ["-p", &*prefix.to_string_lossy(), "-c", "nginx.conf", "-e", "stderr"];
            town.start(NGINX, program, &args, &[])
        };
        // It writes its number when it has its ports.
        let number = self.folder().join("nginx.pid");
        self.at_free_port(start, |_| fs::metadata(&number).is_ok_and(|about| about.len() > 0)).await
    }

    /// An instance, at a port of its own if it has had one.
    pub async fn serve(
        &self,
        exe: &Path,
        name: String,
        address: Option<SocketAddr>,
        redis: Option<&str>,
    ) -> Result<Instance, String> {
        let port = address.map_or(0, |address| address.port());
        let mut env = vec![
            ("HOST", "127.0.0.1".to_owned()),
            ("PORT", port.to_string()),
            ("INSTANCE", name.clone()),
            ("API_TOKEN_FILE", self.token_file.to_string_lossy().into_owned()),
            ("DRAIN_TIMEOUT", format!("{}s", (DRAIN + self.drains_longer).as_secs())),
        ];
        env.extend(redis.map(|url| ("REDIS_URL", url.to_owned())));
        let part = self.start(&name, exe, &["serve"], &env)?;
        let address = part
            .until("get ready", |part| {
                let said = part.said();
                said.lines().find(|line| *line == "ready")?;
                let line = said.lines().find(|line| line.trim_start().starts_with("http "))?;
                line.split_once("://")?.1.split_whitespace().next()?.parse().ok()
            })
            .await?;
        Ok(Instance { name, address, part })
    }

    /// Ends an instance, returns when it is gone.
    pub async fn end(&self, instance: &Instance, signal: Signal) -> Result<(), String> {
        instance.part.end_by(signal);
        instance.part.until("end", |part| part.has_ended().then_some(())).await?;
        self.forget(&instance.part);
        Ok(())
    }
}

/// Redis and nginx as they are called here.
pub fn company(programs: &Programs) -> String {
    let named = |program: &Option<PathBuf>, name: &str| {
        let version = super::programs::version(program.as_deref()?);
        Some(format!(", {name} {version}"))
    };
    let parts = [named(&programs.redis, "Redis"), named(&programs.nginx, "nginx")];
    parts.into_iter().flatten().collect()
}
