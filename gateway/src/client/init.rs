//! `holdfast init`: the shipped files for pm2, systemd, nginx or docker, filled in for one site.

mod site;
pub mod templates;

use super::{
    asking::{Failure, ended},
    exit,
    given::Given,
};
use clap::{Arg, ArgAction, Command, value_parser};
use site::{Site, plain};
use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
};
use templates::{
    COMPOSE, DOCKERFILE, FOLDER, NGINX, NGINX_IN_DOCKER, PM2, PROGRAM, SETTINGS, Template, UNITS, program_of_a_service,
};

/// Secrets, in files of their own: what the shipped files call them.
const TOKEN: &str = "api_token";
const REDIS: &str = "redis_url";
const DOCKER_ENV: &str = "holdfast.env";
/// Where Redis is unless somebody says otherwise.
const REDIS_URL: &str = "redis://127.0.0.1:6379";
/// What an ELF file is looked at for: its program headers stand at its beginning.
const ELF_HEAD_BYTES: usize = 4096;

pub fn command() -> Command {
    Command::new("init")
        .about("Write the files for pm2, systemd, nginx or docker, filled in for your domain")
        .arg(
            Arg::new("for")
                .required(true)
                .value_name("WHAT")
                .value_parser(["pm2", "systemd", "nginx", "docker"])
                .help("What they are for"),
        )
        .arg(
            Arg::new("domain")
                .long("domain")
                .required(true)
                .value_name("HOST")
                .value_parser(site::domain)
                .help("The host name that clients use, as gateway.example.com"),
        )
        .arg(
            Arg::new("instances")
                .long("instances")
                .value_name("NUMBER")
                .value_parser(value_parser!(u16).range(1..=99))
                .default_value("3")
                .help("How many instances"),
        )
        .arg(
            Arg::new("first-port")
                .long("port")
                .value_name("PORT")
                .value_parser(value_parser!(u16).range(1..=65_437))
                .help("The port of the first instance, the others follow [default: 8081]; in docker each has 8080"),
        )
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_name("FOLDER")
                .value_parser(value_parser!(PathBuf))
                .default_value(".")
                .help("Where they are written"),
        )
        .arg(
            Arg::new("force")
                .long("force")
                .action(ArgAction::SetTrue)
                .help("Write over files that are there, but for secrets"),
        )
}

/// Exit 1 when a file is there already, or cannot be written.
pub fn run(given: &Given<'_>) -> ExitCode {
    ended(write(given))
}

/// A file that is to be there.
struct Planned {
    name: &'static str,
    text: String,
    /// Nobody but its owner reads it, and one that is there stays, unless it is empty.
    is_secret: bool,
}

fn write(given: &Given<'_>) -> Result<(), Failure> {
    let failed = |sentence: String| Failure::new(exit::FAILED, sentence);
    let what = given.text("for").unwrap_or_default();
    let port = given.one::<u16>("first-port").copied();
    if what == "docker" && port.is_some() {
        let sentence = "--port means nothing to docker: each instance has port 8080 in a container of its own, and nginx has port 80 of this machine";
        return Err(Failure::new(exit::USAGE, sentence));
    }
    let site = site(given, port.unwrap_or(8081)).map_err(failed)?;
    let planned = planned(what, &site).map_err(failed)?;
    let is_there = |file: &&Planned| site.folder.join(file.name).symlink_metadata().is_ok();
    let there: Vec<_> = planned.iter().filter(is_there).map(|file| file.name).collect();
    if !there.is_empty() && !given.is_set("force") {
        return Err(failed(format!(
            "nothing was written, since {} already has {}: look at what is there, then use --force or another --dir",
            site.folder.display(),
            there.join(", ")
        )));
    }
    for file in &planned {
        let place = site.folder.join(file.name);
        let is_there = there.contains(&file.name);
        let stays = is_there && file.is_secret && !is_empty(&place);
        if !stays {
            put(&site.folder, file, is_there)
                .map_err(|error| failed(format!("{} cannot be written: {error}", place.display())))?;
        }
        let about = match (stays, file.is_secret) {
            (true, _) if others_read(&place) => "  (left as it was; other users can read it until you chmod 600 it)",
            (true, _) => "  (left as it was)",
            (_, true) => "  (secret: only you can read it)",
            _ => "",
        };
        say!("{}{about}", place.display());
    }
    say!("next:");
    next(what, &site).map_err(failed)?.iter().for_each(|command| say!("  {command}"));
    Ok(())
}

fn site(given: &Given<'_>, port: u16) -> Result<Site, String> {
    let folder = given.one::<PathBuf>("dir").cloned().unwrap_or_default();
    let made = fs::create_dir_all(&folder).and_then(|()| folder.canonicalize());
    let folder = made.map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
    plain(&folder)?;
    let program = env::current_exe().map_err(|error| format!("this program cannot be found: {error}"))?;
    Ok(Site {
        domain: given.one::<String>("domain").cloned().unwrap_or_default(),
        instances: given.one("instances").copied().unwrap_or(1),
        port,
        folder,
        program,
    })
}

fn planned(what: &str, site: &Site) -> Result<Vec<Planned>, String> {
    let open = |template: &Template| {
        Ok::<_, String>(Planned { name: template.name, text: template.filled(site)?, is_secret: false })
    };
    let secret = |name: &'static str, text: String| Planned { name, text: format!("{text}\n"), is_secret: true };
    let token = || registry::Secret::fresh().to_text();
    let secrets = || [secret(TOKEN, token()), secret(REDIS, REDIS_URL.to_owned())];
    Ok(match what {
        "pm2" => [open(&PM2)?, open(&SETTINGS)?].into_iter().chain(secrets()).collect(),
        "systemd" => {
            let units = UNITS.iter().chain([&SETTINGS]).map(open).collect::<Result<Vec<_>, _>>()?;
            units.into_iter().chain(secrets()).collect()
        }
        "docker" => vec![
            open(&DOCKERFILE)?,
            open(&COMPOSE)?,
            open(&NGINX_IN_DOCKER)?,
            secret(DOCKER_ENV, format!("API_TOKEN={}", token())),
        ],
        _ => vec![open(&NGINX)?],
    })
}

/// A file that no secret is in has none to be kept.
fn is_empty(place: &Path) -> bool {
    fs::read(place).is_ok_and(|bytes| bytes.trim_ascii().is_empty())
}

fn others_read(place: &Path) -> bool {
    place.metadata().is_ok_and(|about| about.mode() & 0o044 != 0)
}

/// In place of one that is there, it is written beside it first, so that there is always one whole file. One that was
/// not there when it was looked for, and has come since, is somebody's, and stays.
fn put(folder: &Path, file: &Planned, is_there: bool) -> io::Result<()> {
    let place = folder.join(file.name);
    let first = match is_there {
        true => folder.join(format!(".{}.{}", file.name, std::process::id())),
        false => place.clone(),
    };
    let mode = if file.is_secret { 0o600 } else { 0o644 };
    let mut to = OpenOptions::new().write(true).create_new(true).mode(mode).open(&first)?;
    let written = to.write_all(file.text.as_bytes());
    let put = written.and_then(|()| if is_there { fs::rename(&first, &place) } else { Ok(()) });
    if put.is_err() {
        let _ = fs::remove_file(&first);
    }
    put
}

/// What to type now.
fn next(what: &str, site: &Site) -> Result<[String; 3], String> {
    let Site { domain, instances, port, .. } = site;
    let (folder, program) = (plain(&site.folder)?, plain(&site.program)?);
    let nginx = |program: &str| {
        format!("{program} init nginx --domain {domain} --instances {instances} --port {port} --dir {folder}")
    };
    Ok(match what {
        "pm2" => [
            format!("pm2 start {folder}/{} && pm2 save   # with a Redis at the address in {REDIS}", PM2.name),
            format!("API_TOKEN_FILE={folder}/{TOKEN} {program} instances --url http://127.0.0.1:{port}"),
            nginx(program),
        ],
        "systemd" => {
            let installed = program_of_a_service(site)?;
            let install = match installed == program {
                true => String::new(),
                false => format!("sudo install -m 755 {program} {PROGRAM} && "),
            };
            let units = UNITS.each_ref().map(|unit| format!("{folder}/{}", unit.name)).join(" ");
            // Both: the socket keeps the port open while its service is restarted.
            let names: String =
                site.ports().map(|port| format!(" holdfast@{port}.socket holdfast@{port}.service")).collect();
            [
                format!(
                    "{install}sudo install -m 644 {units} /etc/systemd/system && sudo install -D -m 600 -t {FOLDER} {folder}/{TOKEN} {folder}/{REDIS} && sudo install -m 644 {folder}/{} {FOLDER}",
                    SETTINGS.name
                ),
                format!(
                    "sudo systemctl daemon-reload && sudo systemctl enable --now holdfast.target{names} && sudo API_TOKEN_FILE={FOLDER}/{TOKEN} {installed} instances --url http://127.0.0.1:{port}"
                ),
                nginx(installed),
            ]
        }
        "docker" => {
            let copy = match is_static(&site.program) {
                true => format!("cp {program} {folder}/holdfast"),
                false => format!(
                    "./x static {folder}/holdfast   # in a checkout of the source: {program} needs a C library, and the image has none"
                ),
            };
            [
                copy,
                format!("docker compose -f {folder}/{} up -d --build", COMPOSE.name),
                format!(
                    "curl -i -H 'Host: {domain}' http://127.0.0.1/health/ready   # TLS comes next: the lines of nginx/tls.conf in {folder}/{}, port 443 and the certificate in {}",
                    NGINX_IN_DOCKER.name, COMPOSE.name
                ),
            ]
        }
        _ => [
            format!(
                "sudo install -m 644 {folder}/{} /etc/nginx/conf.d/ && sudo nginx -t && sudo nginx -s reload",
                NGINX.name
            ),
            format!(
                "sudo certbot --nginx -d {domain}   # TLS, for wss:// (package python3-certbot-nginx); then take http://{domain} out of cors_origins"
            ),
            format!("{program} doctor https://{domain} --origin https://{domain}"),
        ],
    })
}

/// Whether a program needs no other one to be loaded, by its headers: 64 bits, little-endian, no interpreter.
fn is_static(program: &Path) -> bool {
    let mut head = Vec::new();
    let read = fs::File::open(program).and_then(|file| file.take(ELF_HEAD_BYTES as u64).read_to_end(&mut head));
    let number = |at: usize, bytes: usize| {
        let bytes = head.get(at..at + bytes)?;
        Some(bytes.iter().rev().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let interpreter = || {
        let (start, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
        let kinds = (0..count).map(|nth| number(start + nth * size, 4)).collect::<Option<Vec<_>>>()?;
        Some(kinds.contains(&3))
    };
    read.is_ok() && head.starts_with(b"\x7fELF\x02\x01") && interpreter() == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_came_meanwhile_stays() {
        let folder = env::temp_dir().join(format!("holdfast-put-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (file, place) = (Planned { name: "file", text: "new".into(), is_secret: false }, folder.join("file"));
        let read = || fs::read_to_string(&place).unwrap();
        fs::write(&place, "somebody's").unwrap();
        assert_eq!(put(&folder, &file, false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(), "somebody's");
        put(&folder, &file, true).unwrap();
        assert_eq!((read().as_str(), fs::read_dir(&folder).unwrap().count()), ("new", 1));
        fs::remove_dir_all(&folder).unwrap();
    }
}
