//! `holdfast init`: what it writes is tried by those who will read it.

use crate::{
    holdfast::{Finished, Holdfast, TempFolder},
    http::Request,
    patience::note,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

/// A folder for a site that is set up.
struct Site(TempFolder);

impl Site {
    fn new() -> Self {
        Self(TempFolder::new("site"))
    }

    fn path(&self) -> &str {
        self.0.name()
    }

    async fn init(&self, args: &[&str]) -> Finished {
        Holdfast::command(&[&["init"], args, &["--dir", self.path()]].concat()).run().await
    }

    async fn inits(&self, what: &str, args: &[&str]) -> Finished {
        let finished = self.init(&[&[what, "--domain", "chat.test"], args].concat()).await;
        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""), "{finished:?}");
        let next: Vec<_> = finished.stdout.lines().skip_while(|line| *line != "next:").skip(1).collect();
        assert_eq!(next.len(), 3, "{finished:?}");
        finished
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    /// What it makes up is a secret, for its owner alone.
    fn keeps(&self, name: &str, finished: &Finished) {
        let mode = fs::metadata(self.0.file(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
        let secret = self.read(name).trim().rsplit('=').next().unwrap().to_owned();
        assert!(secret.len() >= 43 && !finished.said().contains(&secret), "{name}");
    }

    /// Whether nginx takes the server in `holdfast.conf`, at a door and with logs that anybody may open.
    fn nginx_takes_it(&self) {
        let server = self.read("holdfast.conf").replace("/var/log/nginx", self.path());
        assert!(server.contains("listen 80;"), "{server}");
        let own = format!("listen unix:{}/socket;", self.path());
        let server = server.replace("listen 80;", &own).replace("listen [::]:80;", "");
        // Names that only the network of the containers knows.
        let server = (1..=9).fold(server, |text, nth| text.replace(&format!("holdfast-{nth}:"), "127.0.0.1:"));
        let whole = format!("pid {}/pid; events {{}} http {{ {server} }}", self.path());
        fs::write(self.0.file("nginx.conf"), whole).unwrap();
        let Some(nginx) = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| fs::exists(path).unwrap())
        else {
            return note("there is no nginx here");
        };
        succeeds(Command::new(nginx).args(["-t", "-p", self.path(), "-c", "nginx.conf", "-e", "stderr"]));
    }
}

/// What it says; nothing where it is not installed.
fn succeeds(command: &mut Command) -> Option<Output> {
    match command.output() {
        Ok(output) => {
            let said = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).join("\n");
            assert!(output.status.success(), "{command:?}: {said}");
            Some(output)
        }
        Err(error) => {
            note(&format!("{command:?} does not run here: {error}"));
            None
        }
    }
}

/// Checklist 134, 226.
#[tokio::test]
async fn nginx_takes_what_is_written_for_it() {
    let site = Site::new();
    let finished = site.inits("nginx", &["--instances", "2", "--port", "5000"]).await;
    // It has no TLS, and nobody without it opens wss://.
    for step in ["certbot --nginx -d chat.test", "doctor https://chat.test"] {
        assert!(finished.stdout.contains(step), "{step} in {finished:?}");
    }
    assert_eq!(site.files(), ["holdfast.conf"]);
    let text = site.read("holdfast.conf");
    for part in ["server_name chat.test;", "server 127.0.0.1:5000", "server 127.0.0.1:5001"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("127.0.0.1:5002") && !text.contains("127.0.0.1:808"), "{text}");
    site.nginx_takes_it();
}

/// Checklist 134, 226.
#[tokio::test]
async fn pm2_is_told_of_this_program_and_its_ports() {
    let site = Site::new();
    let finished = site.inits("pm2", &["--instances", "4", "--port", "5000"]).await;
    assert_eq!(site.files(), ["api_token", "ecosystem.config.cjs", "holdfast.toml", "redis_url"]);
    site.keeps("api_token", &finished);
    let script = "const [app] = require(process.argv[1]).apps; const fs = require('fs'); const all = JSON.stringify(app);
        const ports = Number(app.env.PORT), files = all.match(/[^\"]*\\/(holdfast\\.toml|api_token|redis_url|holdfast)(?=\")/g);
        if (app.instances !== 4 || ports !== 5000 || app.exec_mode === 'cluster') throw all;
        if (files.length < 3) throw all;
        for (const file of files) fs.accessSync(file);
        fs.accessSync(app.script, fs.constants.X_OK);";
    succeeds(Command::new("node").args(["-e", script]).arg(site.0.file("ecosystem.config.cjs")));
    let check = Holdfast::command(&["check", "--config", &format!("{}/holdfast.toml", site.path())])
        .env("API_TOKEN_FILE", &format!("{}/api_token", site.path()))
        .env("REDIS_URL_FILE", &format!("{}/redis_url", site.path()))
        .run()
        .await;
    assert!(check.code == 0, "{check:?}");
    let config = format!("{}/holdfast.toml", site.path());
    let gateway = Holdfast::command(&["--config", &config]).env("PORT", "0").serve().await;
    // Before there is TLS and with it.
    for (origin, status) in [("http://chat.test", 101), ("https://chat.test", 101), ("http://other.test", 403)] {
        let answer = Request::knock(gateway.address(), "/ws?user_id=ann").with("Origin", origin).await;
        assert_eq!(answer.status, status, "{origin}");
    }
}

/// Checklist 134, 226.
#[tokio::test]
async fn systemd_takes_the_units_that_are_written_for_it() {
    let site = Site::new();
    let finished = site.inits("systemd", &["--instances", "2"]).await;
    site.keeps("api_token", &finished);
    // Each with the socket that keeps its port open, as the README of the units does it.
    for port in [8081, 8082] {
        let both = format!(" holdfast@{port}.socket holdfast@{port}.service");
        assert!(finished.stdout.contains(&both), "{finished:?}");
    }
    assert!(finished.stdout.contains(" init nginx --domain chat.test --instances 2 "), "{finished:?}");
    // The program is not installed here, nor is its configuration; all else is as it will be.
    let unit = site.read("holdfast@.service");
    assert!(unit.contains("/usr/local/bin/holdfast"), "{unit}");
    // A service whose secrets are not there does not start.
    let secrets: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("LoadCredential=")).collect();
    assert!(!secrets.is_empty(), "{unit}");
    for secret in secrets {
        let (_, place) = secret.split_once(":/etc/holdfast/").expect(secret);
        assert!(site.files().iter().any(|file| file == place), "{place}");
    }
    let ours =
        [("service", unit.replace("/usr/local/bin/holdfast", "/bin/true")), ("socket", site.read("holdfast@.socket"))];
    let paths = ours.map(|(kind, text)| {
        let path = site.0.file(&format!("holdfast@8081.{kind}"));
        fs::write(&path, text).unwrap();
        path
    });
    if let Some(output) = succeeds(Command::new("systemd-analyze").args(["verify", "--man=no"]).args(paths)) {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains(site.path()) && !said.contains("Unknown"), "{said}");
    }
}

/// Checklist 134, 226. No engine is asked: what is named must be there, and nginx must take its file.
#[tokio::test]
async fn what_is_written_for_docker_names_what_is_there() {
    let site = Site::new();
    let finished = site.inits("docker", &["--instances", "4"]).await;
    site.keeps("holdfast.env", &finished);
    let (compose, dockerfile) = (site.read("compose.yaml"), site.read("Dockerfile"));
    for nth in 1..=4 {
        assert!(
            compose.contains(&format!("  holdfast-{nth}: {{ <<: *holdfast, hostname: holdfast-{nth} }}")),
            "{compose}"
        );
        assert!(compose.contains(&format!("      - holdfast-{nth}\n")), "{compose}");
    }
    for named in
        ["env_file: holdfast.env", "./holdfast.conf:/etc/nginx", "CORS_ORIGINS: https://chat.test,http://chat.test"]
    {
        assert!(compose.contains(named), "{named} in {compose}");
    }
    let instructions: Vec<_> = dockerfile.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let last = instructions.iter().rposition(|line| line.starts_with("FROM ")).unwrap();
    assert_eq!(instructions[last], "FROM scratch");
    // Nothing runs in an empty image, and what is copied comes from here or from the stage before.
    assert!(instructions[last..].iter().all(|line| !line.starts_with("RUN ")), "{dockerfile}");
    let copied = |line: &&&str| line.starts_with("COPY ") && !line.contains("--from=");
    let sources: Vec<_> = instructions.iter().filter(copied).map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(sources, ["holdfast"]);
    assert!(finished.stdout.contains(&format!("{}/holdfast", site.path())), "{finished:?}");
    site.nginx_takes_it();
}

#[tokio::test]
async fn nothing_is_written_over_unless_it_is_forced() {
    let site = Site::new();
    fs::write(site.0.file("redis_url"), "redis://mine").unwrap();
    fs::set_permissions(site.0.file("redis_url"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(site.0.file("holdfast.toml"), "mine").unwrap();
    let refused = site.init(&["pm2", "--domain", "chat.test"]).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{refused:?}");
    for part in ["holdfast.toml", "redis_url", "--force", site.path()] {
        assert!(refused.stderr.contains(part), "{part} in {refused:?}");
    }
    assert!(!refused.stderr.contains("ecosystem"), "{refused:?}");
    assert_eq!(site.files(), ["holdfast.toml", "redis_url"]);
    // A secret that somebody uses cannot be made up again.
    let forced = site.inits("pm2", &["--force"]).await;
    assert!(forced.stdout.contains("redis_url  (left as it was)"), "{forced:?}");
    assert_eq!(site.read("redis_url"), "redis://mine");
    assert!(site.read("holdfast.toml").contains("chat.test"));
    // Whether others may read it is for whoever wrote it to say; nothing is no secret.
    fs::write(site.0.file("api_token"), "\n").unwrap();
    for name in ["redis_url", "api_token"] {
        fs::set_permissions(site.0.file(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let forced = site.inits("pm2", &["--force"]).await;
    assert!(forced.stdout.contains("redis_url  (left as it was; other users can read it"), "{forced:?}");
    site.keeps("api_token", &forced);
}

/// What is put in may look like what is replaced.
#[tokio::test]
async fn what_is_given_is_written_as_it_is() {
    let site = Site::new();
    let folder = format!("{}/i8081", site.path());
    let args = ["init", "pm2", "--domain", "chat.test", "--port", "8080", "--dir", &folder];
    let finished = Holdfast::command(&args).run().await;
    assert_eq!(finished.code, 0, "{finished:?}");
    let pm2 = site.read("i8081/ecosystem.config.cjs");
    for part in ["on the ports 8080, 8081 and 8082.", &format!("'{folder}/holdfast.toml'")] {
        assert!(pm2.contains(part), "{part} in {pm2}");
    }
    let docker = site.init(&["docker", "--domain", "holdfast-1.example.com"]).await;
    assert_eq!(docker.code, 0, "{docker:?}");
    assert!(
        site.read("compose.yaml")
            .contains("CORS_ORIGINS: https://holdfast-1.example.com,http://holdfast-1.example.com\n")
    );
}

#[tokio::test]
async fn the_last_port_is_a_port() {
    let site = Site::new();
    let finished = site.inits("systemd", &["--port", "65437", "--instances", "99"]).await;
    assert!(finished.stdout.contains(" holdfast@65535.socket holdfast@65535.service "), "{finished:?}");
}

#[tokio::test]
async fn what_cannot_be_set_up_is_refused_with_a_sentence() {
    let site = Site::new();
    for (args, code, part) in [
        (&["nginx"][..], 2, "--domain"),
        (&["apache", "--domain", "chat.test"], 2, "pm2, systemd, nginx, docker"),
        (&["nginx", "--domain", "https://chat.test"], 2, "without scheme"),
        (&["nginx", "--domain", "chat.test;"], 2, "no host name"),
        (&["nginx", "--domain", "chat.test", "--instances", "0"], 2, "1..=99"),
        (&["systemd", "--domain", "chat.test", "--port", "65438"], 2, "1..=65437"),
        (&["docker", "--domain", "chat.test", "--port", "80"], 2, "--port means nothing to docker"),
    ] {
        let finished = site.init(args).await;
        assert!(finished.code == code && finished.stderr.contains(part), "{args:?}: {finished:?}");
    }
    let spaced = format!("{}/my files", site.path());
    let refused = Holdfast::command(&["init", "nginx", "--domain", "chat.test", "--dir", &spaced]).run().await;
    assert!(refused.code == 1 && refused.stderr.contains("quoted"), "{refused:?}");
}
