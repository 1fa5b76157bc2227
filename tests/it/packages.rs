//! What Holdfast is packed into: the Debian package is installed, into a root of its own, and what cannot be run here
//! is read.

use crate::{
    holdfast::{Holdfast, TempFolder},
    patience::note,
};
use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Where packages are installed.
struct Root(TempFolder);

impl Root {
    fn new() -> Self {
        let folder = TempFolder::new("root");
        fs::create_dir_all(folder.file("var/lib/dpkg/updates")).unwrap();
        fs::create_dir_all(folder.file("var/lib/dpkg/info")).unwrap();
        fs::write(folder.file("var/lib/dpkg/status"), "").unwrap();
        Self(folder)
    }

    fn dpkg(&self, args: &[&str]) {
        let mut command = Command::new("dpkg");
        // Its scripts run here and not there, where there is no shell; nor are there the packages that it needs.
        command.arg(format!("--root={}", self.0.name())).args(["--force-script-chrootless", "--force-depends"]);
        succeeds(command.args(["--force-not-root", "--force-bad-path"]).args(args));
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

fn succeeds(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// Checklist 226.
#[tokio::test]
async fn the_debian_package_is_installed_and_leaves_again() {
    if Command::new("dpkg-deb").arg("--version").stdout(Stdio::null()).status().is_err() {
        return note("there is no dpkg-deb here");
    }
    let root = Root::new();
    let build = top().join("deploy/debian/build");
    // Not made small: that takes longer than all the rest.
    let mut command = Command::new(build);
    command.arg(Holdfast::program()).arg(root.0.file("out")).env("DPKG_DEB_COMPRESSOR_TYPE", "none");
    let package = succeeds(&mut command).trim().to_owned();
    root.dpkg(&["--install", &package]);

    let program = root.0.file("usr/bin/holdfast");
    assert_eq!(succeeds(Command::new(&program).arg("version")), Holdfast::command(&["version"]).run().await.stdout);
    let token = root.0.file("etc/holdfast/api_token");
    assert_eq!(fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
    let made_up = root.read("etc/holdfast/api_token");
    assert_eq!(made_up.trim().len(), 64);
    // What the unit reads is there, and it starts what is there.
    let unit = root.read("lib/systemd/system/holdfast@.service");
    for (word, place) in [
        ("ExecStart=/usr/bin/holdfast --config /etc/holdfast/holdfast.toml", "etc/holdfast/holdfast.toml"),
        ("EnvironmentFile=-/etc/holdfast/holdfast.env", "etc/holdfast/holdfast.env"),
        ("\nLoadCredential=api_token:/etc/holdfast/api_token\n", "etc/holdfast/api_token"),
        ("\nLoadCredential=redis_url:/etc/holdfast/redis_url\n", "etc/holdfast/redis_url"),
    ] {
        assert!(unit.contains(word) && root.0.file(place).is_file(), "{word} and {place}: {unit}");
    }
    assert_eq!(unit.matches("\nLoadCredential=").count(), 2, "{unit}");
    let settings = root.0.file("etc/holdfast/holdfast.toml");
    let check = Command::new(&program)
        .args(["check", "--config"])
        .arg(&settings)
        .env_clear()
        .env("API_TOKEN_FILE", &token)
        .env("REDIS_URL_FILE", root.0.file("etc/holdfast/redis_url"))
        .output()
        .unwrap();
    assert!(check.status.success(), "{check:?}");
    let manual = succeeds(Command::new("gzip").arg("-dc").arg(root.0.file("usr/share/man/man1/holdfast.1.gz")));
    for command in ["serve", "demo", "init", "why"] {
        assert!(manual.contains(&format!("holdfast\\-{command}(1)")), "{command}");
        assert!(root.0.file(&format!("usr/share/man/man1/holdfast-{command}.1.gz")).is_file(), "{command}");
    }
    for script in [
        "usr/share/bash-completion/completions/holdfast",
        "usr/share/zsh/vendor-completions/_holdfast",
        "usr/share/fish/vendor_completions.d/holdfast.fish",
    ] {
        assert!(root.read(script).contains("healthcheck"), "{script}");
    }
    succeeds(Command::new("bash").arg("-n").arg(root.0.file("usr/share/bash-completion/completions/holdfast")));

    // Once more: what is secret, and what somebody wrote, stays.
    fs::write(&settings, "log_level = \"warn\"\n").unwrap();
    root.dpkg(&["--install", &package]);
    assert_eq!(root.read("etc/holdfast/api_token"), made_up);
    assert_eq!(root.read("etc/holdfast/holdfast.toml"), "log_level = \"warn\"\n");
    root.dpkg(&["--remove", "holdfast"]);
    assert!(!program.exists() && token.exists() && settings.exists());
    root.dpkg(&["--purge", "holdfast"]);
    assert!(!root.0.file("etc/holdfast").exists());
}

/// Checklist 226. No engine is asked; what an image is made of is.
#[test]
fn the_image_holds_the_program_and_nothing_else() {
    let text = fs::read_to_string(top().join("deploy/docker/Dockerfile")).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let last = lines.iter().rposition(|line| line.starts_with("FROM ")).unwrap();
    let (before, image) = lines.split_at(last);
    assert_eq!(image[0], "FROM scratch");
    let stages: Vec<_> = before.iter().filter_map(|line| line.split_once(" AS ")).map(|(_, name)| name).collect();
    for line in image {
        assert!(!line.starts_with("RUN "), "{line}: there is no shell in it");
        if let Some((_, from)) = line.split_once("--from=") {
            assert!(stages.contains(&from.split(' ').next().unwrap()), "{line}");
        }
    }
    for wanted in [
        "USER 65534:65534",
        "STOPSIGNAL SIGTERM",
        "EXPOSE 8080",
        "ENV HOST=0.0.0.0 PORT=8080",
        "ENTRYPOINT [\"/holdfast\"]",
        "CMD [\"/holdfast\", \"healthcheck\"]",
    ] {
        assert!(image.iter().any(|line| line.ends_with(wanted)), "{wanted}");
    }
    // The toolchain of the image is not older than the one that the source wants.
    let manifest = fs::read_to_string(top().join("Cargo.toml")).unwrap();
    let wanted = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(before[0].starts_with(&format!("FROM rust:{wanted}-alpine")), "{}", before[0]);
    let copied: Vec<_> = before.iter().filter(|line| line.starts_with("COPY ")).collect();
    assert_eq!(copied, [&"COPY . ."]);
}
