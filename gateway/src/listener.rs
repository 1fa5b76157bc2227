//! The listener: bound early, and plain about what is in its way.

use crate::upstream;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener, ToSocketAddrs},
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Handshakes that may wait to be accepted; a fleet that reconnects comes in a burst.
const BACKLOG: u32 = 4096;
/// Open files kept back for everything that is no connection.
const FILES_RESERVED: usize = 64;

/// A bound listener.
pub struct Listener {
    listener: TcpListener,
    pub address: SocketAddr,
    /// Whether it is a manager's, who keeps it open when we are gone, and gives it to the next process.
    pub is_lent: bool,
}

impl Listener {
    /// Binds, or says in a sentence what is in the way and what to do.
    pub fn bind(host: &str, port: u16) -> Result<Self, (io::ErrorKind, String)> {
        let addresses = (host, port)
            .to_socket_addrs()
            .map_err(|error| (error.kind(), format!("HOST={host} cannot be resolved: {error}")))?;
        let mut failure = (io::ErrorKind::NotFound, format!("HOST={host} names no address"));
        for address in addresses {
            match listen(address) {
                Ok(listener) => {
                    let address = listener.local_addr().unwrap_or(address);
                    return Ok(Self { listener, address, is_lent: false });
                }
                Err(error) => {
                    let sentence = match error.kind() {
                        io::ErrorKind::AddrInUse => in_use(address),
                        io::ErrorKind::PermissionDenied => format!(
                            "no permission to listen on {address}; ports below 1024 need root or CAP_NET_BIND_SERVICE, PORT=8080 does not"
                        ),
                        _ => format!("cannot listen on {address}: {error}"),
                    };
                    failure = (error.kind(), sentence);
                }
            }
        }
        Err(failure)
    }

    /// Serves at one that somebody else has opened.
    pub fn lent(listener: StdListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        Ok(Self { address: listener.local_addr()?, listener, is_lent: true })
    }

    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.listener.accept().await
    }

    /// Closes it. Those who came in time are let in all the same, since to close on them would reset what they ask. At one
    /// that is lent they wait for the next process, which can let them stay.
    pub fn close(self) -> Vec<(TcpStream, SocketAddr)> {
        if self.is_lent {
            return Vec::new();
        }
        let Ok(listener) = self.listener.into_std() else { return Vec::new() };
        let came = (0..BACKLOG).map_while(|_| listener.accept().ok());
        let taken = came.filter_map(|(stream, peer)| {
            stream.set_nonblocking(true).ok()?;
            Some((TcpStream::from_std(stream).ok()?, peer))
        });
        taken.collect()
    }

    /// An address at which this machine reaches it: who listens everywhere has no address of its own.
    pub fn reachable(&self) -> SocketAddr {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.address.port())
    }

    /// Host name and port, and the number that a manager has given: told apart on one host, readable, and the same after a
    /// restart.
    pub fn default_instance_name(&self, number: Option<u32>) -> String {
        let name = rustix::system::uname();
        let number = number.map_or_else(String::new, |number| format!("-{number}"));
        format!("{}{number}:{}", name.nodename().to_string_lossy(), self.address.port())
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn in_use(address: SocketAddr) -> String {
    let holder = holder_of(address.port()).map(|(pid, name)| format!(" by {name} (pid {pid})")).unwrap_or_default();
    let free = free_port_after(address).map(|port| format!("; try PORT={port}")).unwrap_or_default();
    format!("Address already in use: port {} of {} is taken{holder}{free}", address.port(), address.ip())
}

fn free_port_after(address: SocketAddr) -> Option<u16> {
    let next = address.port().checked_add(1)?;
    (next..=u16::MAX).take(100).find(|port| StdListener::bind((address.ip(), *port)).is_ok())
}

/// Who listens on a port, as far as `/proc` lets us see.
fn holder_of(port: u16) -> Option<(u32, String)> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| listening_inode(table, port))?;
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find_map(|pid| {
        let mut files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        files.find(|file| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()))?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some((pid, name.trim().to_owned()))
    })
}

fn listening_inode(table: &str, port: u16) -> Option<String> {
    let text = fs::read_to_string(table).ok()?;
    text.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let at = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (at == port && *state == "0A").then(|| (*inode).to_owned())
    })
}

/// Raises the limit of open files as far as we may; every socket is one.
pub fn raise_open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where this is not allowed, the lower limit stands, and is what is printed.
    let _ = setrlimit(Resource::Nofile, raised);
    open_files_max()
}

/// The limit that is in force.
pub fn open_files_max() -> usize {
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(1 << 20)
}

/// Sockets that fit: 95 % of the open files.
pub fn sockets_max() -> usize {
    open_files_max() * 95 / 100
}

/// Connections of any kind that fit, before accepting itself would fail, or what is asked of so many applications.
pub fn connections_max(applications: usize) -> usize {
    open_files_max().saturating_sub(FILES_RESERVED + applications * upstream::AT_ONCE).max(1)
}
