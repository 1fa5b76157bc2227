//! The examples in `nginx/other/`, with the real Apache, Caddy and HAProxy: `./x proxies`. Not part of `./x test`, since
//! most teams have none of them and three more servers would be installed for it.

use crate::{
    fleet::Fleet,
    holdfast::TempFolder,
    http::Request,
    kit::{Leaving, carries},
    nginx::TOKEN,
    patience::eventually,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    env, fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};
use tokio::net::TcpStream;

/// What stands around the site in an apache2.conf of Debian's.
const APACHE: &str = r#"
ServerName localhost
PidFile apache.pid
ErrorLog apache.err
DefaultRuntimeDir .
Mutex file:. default
User www-data
Group www-data
LoadModule mpm_event_module MODULES/mod_mpm_event.so
LoadModule authz_core_module MODULES/mod_authz_core.so
LoadModule authz_host_module MODULES/mod_authz_host.so
LoadModule headers_module MODULES/mod_headers.so
LoadModule slotmem_shm_module MODULES/mod_slotmem_shm.so
LoadModule proxy_module MODULES/mod_proxy.so
LoadModule proxy_http_module MODULES/mod_proxy_http.so
LoadModule proxy_balancer_module MODULES/mod_proxy_balancer.so
LoadModule lbmethod_bybusyness_module MODULES/mod_lbmethod_bybusyness.so
LoadModule proxy_hcheck_module MODULES/mod_proxy_hcheck.so
"#;

struct Proxy {
    program: Child,
    folder: TempFolder,
    address: SocketAddr,
}

impl Proxy {
    /// Starts one with its example, changed in nothing but addresses and places.
    async fn before(gateways: &[SocketAddr], file: &str, around: &str, program: &str, args: &[&str]) -> Self {
        let folder = TempFolder::new(file);
        let address = SocketAddr::from(([127, 0, 0, 1], servers::free_port()));
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nginx/other").join(file);
        let mut text = fs::read_to_string(example).unwrap();
        for (port, gateway) in ["127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:8083"].iter().zip(gateways) {
            assert!(text.contains(port), "{file} names no {port}");
            text = text.replace(port, &gateway.to_string());
        }
        let text = text
            .replace("Listen 80\n", &format!("Listen {address}\n"))
            .replace("*:80>", &format!("{address}>"))
            .replace("bind :80\n", &format!("bind {address}\n"))
            .replace("example.com {", &format!("http://:{} {{", address.port()))
            .replace("/var/log/apache2/", "");
        fs::write(folder.file("example"), format!("{around}{text}")).unwrap();
        let fill = |arg: &&str| arg.replace("FOLDER", folder.path().to_str().unwrap());
        let mut command = Command::new(program);
        command.args(args.iter().map(fill)).current_dir(folder.path()).env("HOME", folder.path()).stdin(Stdio::null());
        let log = fs::File::create(folder.file("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let program = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; ./x proxies installs it"));
        let mut proxy = Self { program, folder, address };
        eventually("it listens", async || {
            if let Some(end) = proxy.program.try_wait().unwrap() {
                panic!("{end}: {}", fs::read_to_string(proxy.folder.file("log")).unwrap());
            }
            TcpStream::connect(address).await.ok()
        })
        .await;
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.program.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.program.wait();
    }
}

/// Traffic through it, and new clients while an instance leaves. `at_once`: nobody of them notices.
async fn serves(fleet: &mut Fleet, proxy: &Proxy, at_once: bool) {
    carries(&fleet[0], proxy.address, "", &[400, 403, 404]).await;

    let leaving = Leaving::begins(fleet).await;
    let knocks = async || {
        let mut refused = 0;
        for n in 0..20 {
            let answer = Request::knock(proxy.address, &format!("/ws?user_id=u{n}")).await;
            assert!(matches!(answer.status, 101 | 503), "{}", answer.text());
            refused += usize::from(answer.status == 503);
        }
        refused
    };
    let first = knocks().await;
    assert!(!at_once || first == 0, "{first} of 20 were refused");
    eventually("nobody is refused", async || (knocks().await == 0).then_some(())).await;
    leaving.ends(fleet).await;
    assert_eq!(knocks().await, 0, "nobody listens there any more");
}

async fn three() -> (Fleet, [SocketAddr; 3]) {
    let fleet = Fleet::with(&[TOKEN, ("DRAIN_TIMEOUT", "20s")]).await;
    let gateways = [0, 1, 2].map(|at| fleet[at].address());
    (fleet, gateways)
}

#[ignore = "installs Apache: ./x proxies"]
#[tokio::test]
async fn apache_carries_sockets_calls_and_streams() {
    let (mut fleet, gateways) = three().await;
    let around = APACHE.replace("MODULES", "/usr/lib/apache2/modules");
    let args = ["-d", "FOLDER", "-f", "FOLDER/example", "-DFOREGROUND"];
    let apache = Proxy::before(&gateways, "apache.conf", &around, "/usr/sbin/apache2", &args).await;
    serves(&mut fleet, &apache, false).await;
}

#[ignore = "installs Caddy: ./x proxies"]
#[tokio::test]
async fn caddy_carries_sockets_calls_and_streams() {
    let (mut fleet, gateways) = three().await;
    // Without the second line it would wait for those that nobody has told that their client is gone.
    let around = "{\n\tadmin off\n\tgrace_period 1s\n}\n";
    let args = ["run", "--adapter", "caddyfile", "--config", "FOLDER/example"];
    let caddy = Proxy::before(&gateways, "Caddyfile", around, "caddy", &args).await;
    serves(&mut fleet, &caddy, false).await;
}

#[ignore = "installs HAProxy: ./x proxies"]
#[tokio::test]
async fn haproxy_carries_sockets_calls_and_streams() {
    let (mut fleet, gateways) = three().await;
    let haproxy =
        Proxy::before(&gateways, "haproxy.cfg", "", "/usr/sbin/haproxy", &["-db", "-f", "FOLDER/example"]).await;
    serves(&mut fleet, &haproxy, true).await;
}
