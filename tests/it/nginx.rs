//! A real nginx in front of gateways, as every guide sets it up: nothing in it is about streams. About drains there is one line: a
//! new socket that an instance refuses is let in by the next.

use crate::patience::eventually;
use std::{
    env, fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};
use tokio::net::TcpStream;

pub struct Nginx {
    program: Child,
    folder: PathBuf,
    pub address: SocketAddr,
}

impl Nginx {
    /// Starts one, and waits until it listens; nothing where none is installed.
    pub async fn before(gateways: &[SocketAddr]) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let program =
            ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| fs::exists(path).unwrap_or(false))?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("holdfast-nginx-{}-{count}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        // Free a moment ago; who takes it meanwhile makes nginx end, and the fact fail with its words.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
        let servers: String = gateways.iter().map(|gateway| format!("server {gateway} max_fails=0;")).collect();
        let configuration = format!(
            "daemon off; worker_processes 1; {user} pid nginx.pid; error_log stderr crit;
            events {{ worker_connections 4096; }}
            http {{
              access_log off; client_body_temp_path body; proxy_temp_path proxy;
              fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
              map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
              upstream gateways {{ {servers} keepalive 16; }}
              server {{
                listen {address};
                location = /metrics {{ return 403; }}
                location / {{
                  proxy_pass http://gateways; proxy_http_version 1.1;
                  proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade;
                  proxy_set_header Connection $connection_upgrade;
                  proxy_next_upstream error timeout http_503;
                }}
              }}
            }}"
        );
        fs::write(folder.join("nginx.conf"), configuration).unwrap();
        let prefix = folder.to_str().unwrap();
        let program = Command::new(program)
            .args(["-p", prefix, "-c", "nginx.conf", "-e", "stderr"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { program, folder, address };
        eventually("nginx listens", async || TcpStream::connect(address).await.ok()).await;
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Asked, so that it takes its worker along.
        if let Some(pid) = i32::try_from(self.program.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.program.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
