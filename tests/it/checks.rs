//! `holdfast check --nginx`: what it says of the files of `nginx/`, of one that strips the upgrade, and of what is none.

use crate::{
    gateway::Gateway,
    holdfast::{Finished, Holdfast, TempFile},
    http::Request,
    nginx::{MAIN, Nginx, TOKEN, kit},
};
use serde_json::{Value, json};

async fn check(file: &str, more: &[&str]) -> Finished {
    let words = [&["check", "--nginx", file], more].concat();
    Holdfast::command(&words).env(TOKEN.0, TOKEN.1).run().await
}

/// Checklist 212, 225, 279.
#[tokio::test]
async fn of_the_shipped_files_only_ip_hash_is_not_needed() {
    for (name, _) in kit(".conf") {
        let path = format!("{}/../nginx/{name}", env!("CARGO_MANIFEST_DIR"));
        let said = check(&path, &["--json"]).await;
        let report: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!((said.code, &report["valid"]), (0, &json!(true)), "{name}: {}", report["nginx"]);
        let warnings: Vec<_> =
            report["nginx"]["warnings"].as_array().unwrap().iter().map(|one| &one["directive"]).collect();
        let expected: &[&str] = if name == "ip_hash.conf" { &["ip_hash"] } else { &[] };
        assert_eq!(warnings, expected, "{name}: {}", report["nginx"]);
    }
    // With other pings it would be another matter.
    let path = format!("{}/../nginx/{MAIN}", env!("CARGO_MANIFEST_DIR"));
    let said = check(&path, &["--ws-ping-interval", "70s"]).await;
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    let warned =
        |line: &str| line.starts_with("warning: ") && line.contains("WS_PING_INTERVAL + WS_PING_TIMEOUT (80s)");
    assert!(said.stdout.lines().any(|line| warned(line) && line.contains("proxy_read_timeout")), "{}", said.stdout);
    // The settings are not told on the way; the end says how much there is to read.
    let count = said.stdout.lines().filter(|line| line.starts_with("warning: ")).count();
    assert!(count > 1 && said.stdout.ends_with(&format!("\nok, {count} warnings\n")), "{}", said.stdout);
    assert_eq!(said.stdout.lines().count(), count + 1, "{}", said.stdout);
}

/// Checklist 278: nginx lets the line out, the client is told, and the check names it in the same file.
#[tokio::test]
async fn a_stripped_upgrade_is_named_with_its_fix() {
    let gateway = Gateway::with([TOKEN]).await;
    let without = |text: &str| text.replace("proxy_set_header Upgrade $http_upgrade;", "");
    let nginx = Nginx::changed(MAIN, &[gateway.address()], without).await;
    let refused = Request::knock(nginx.address, "/ws?user_id=ann").await;
    let problem = refused.refuses(426, "Expected Upgrade: websocket");
    assert!(problem["hint"].as_str().unwrap().contains("proxy_set_header Upgrade $http_upgrade;"), "{problem}");

    let file = nginx.file();
    let said = check(file.to_str().unwrap(), &[]).await;
    assert_eq!(said.code, 78);
    let line = said.stdout.lines().find(|line| line.starts_with("problem: ")).unwrap();
    assert!(line.contains("kit.conf:") && line.ends_with("add proxy_set_header Upgrade $http_upgrade;"), "{line}");
    assert!(!said.stdout.contains("\nok"), "{}", said.stdout);
    // The whole of it says the same.
    let whole = check(file.with_file_name("nginx.conf").to_str().unwrap(), &[]).await;
    assert!(whole.code == 78 && whole.stdout.contains(line), "{}", whole.stdout);
}

#[tokio::test]
async fn what_is_no_configuration_is_a_problem_with_a_sentence() {
    let broken = TempFile::holding("server {\n listen 80\n}");
    let own = TempFile::holding("");
    own.rewrite(&format!("include {};", own.path()));
    let binary = TempFile::holding("");
    std::fs::write(binary.path(), [0xff, 0xfe, 0]).unwrap();
    for (file, sentence) in [
        ("/nowhere/nginx.conf", "/nowhere/nginx.conf cannot be read: No such file"),
        ("/", "/ is no file"),
        (broken.path(), ":2: listen does not end with ;"),
        (own.path(), "does a file include itself?"),
        (binary.path(), "is no text"),
        ("/dev/zero", "is no file"),
    ] {
        let said = check(file, &[]).await;
        assert_eq!(said.code, 78, "{file}: {said:?}");
        let problems: Vec<_> = said.stdout.lines().filter(|line| line.starts_with("problem: ")).collect();
        assert!(problems.len() == 1 && problems[0].contains(sentence), "{file}: {problems:?}");
        let told = check(file, &["--json"]).await;
        let report: Value = serde_json::from_str(&told.stdout).unwrap();
        assert_eq!((told.code, &report["valid"]), (78, &json!(false)));
        assert_eq!(report["nginx"]["problems"].as_array().unwrap().len(), 1);
    }
}
