//! `holdfast healthcheck`: for containers that have no curl.

use super::exit;
use crate::config::Reading;
use std::{
    io::{self, BufRead, BufReader, Write},
    net::{TcpStream, ToSocketAddrs},
    process::ExitCode,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(3);

/// Asks `/health/live`.
pub fn run(reading: &Reading, url: Option<&str>) -> ExitCode {
    let address = match (url, &reading.config) {
        (Some(url), _) => url.trim_start_matches("http://").split('/').next().unwrap_or_default().to_owned(),
        (None, Ok(config)) => {
            // Who listens everywhere is asked on this machine.
            let host = match config.host.as_str() {
                "0.0.0.0" => "127.0.0.1",
                "::" => "[::1]",
                host => host,
            };
            format!("{host}:{}", config.port)
        }
        (None, Err(faults)) => {
            faults.iter().for_each(|fault| complain!("{fault}"));
            return ExitCode::from(exit::CONFIGURATION);
        }
    };
    match ask(&address) {
        Ok(status) if status.contains(" 200 ") => {
            say!("{address} lives");
            ExitCode::SUCCESS
        }
        Ok(status) => {
            complain!("{address} answered {status}");
            ExitCode::from(exit::FAILED)
        }
        Err(error) => {
            complain!("{address} cannot be reached: {error}");
            ExitCode::from(exit::UNREACHABLE)
        }
    }
}

fn ask(address: &str) -> io::Result<String> {
    let target = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /health/live HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status)?;
    Ok(status.trim().to_owned() + " ")
}
