//! Sessions of the application: its cookie or token says who comes, and it is asked whose it is.

use crate::{
    application::{Application, Manner},
    client::Client,
    gateway::Gateway,
    holdfast::{Holdfast, TempFile},
    patience::{eventually, note},
};
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn behind(application: &Application, more: &[(&str, &str)]) -> Gateway {
    let url = application.url("/session");
    let settings = [("AUTH", "session"), ("SESSION_URL", &url)];
    Gateway::with(settings.into_iter().chain(more.iter().copied())).await
}

/// Checklist 64, 73, 74, 88, 125.
#[tokio::test]
async fn a_session_says_who_comes_by_its_cookie_or_its_token() {
    let application = Application::start().await;
    let secret = ("HOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let gateway = behind(&application, &[("SESSION_COOKIE", "sid"), secret]).await;
    application.at("/session", Manner::json(&json!({"userId": 7, "stores": ["s"], "rooms": ["r"]})));
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let cookies = [("Cookie", "theme=dark; sid=planted; _ga=1"), ("traceparent", parent.as_str())];
    let mut client = Client::open(gateway.address(), "/ws?store_id=s&room_id=r", &cookies).await;
    client.is_greeted().await;
    let record = gateway.get(&format!("/api/sockets/{}", client.id)).await.json();
    assert_eq!((&record["userId"], &record["storeId"]), (&json!("7"), &json!("s")));
    let asked = application.asked("/session");
    assert_eq!((asked.len(), asked[0].method.as_str()), (1, "GET"));
    assert!(asked[0].header("traceparent").is_some_and(|trace| trace.contains(TRACE)), "{}", asked[0].head());
    assert!(asked[0].header("webhook-signature").is_some());
    // What is none of its business it does not get.
    assert_eq!(asked[0].header("Cookie"), Some("sid=planted"));

    application.at("/session", Manner::Says(200, "X-User-ID: ann\r\n", "<html>".into()));
    let told = gateway.get("/api/auth/session?session_token=planted-token").await.json();
    assert_eq!((&told["auth"], &told["userId"], &told["stores"]), (&json!("session"), &json!("ann"), &json!([])));
    let asked = application.asked("/session");
    assert_eq!(asked.last().unwrap().header("Authorization"), Some("Bearer planted-token"));
    for (query, title) in [("store_id=t", "Not your store"), ("user_id=bob", "Not your user_id")] {
        gateway.knock(&format!("/ws?{query}&session_token=planted-token")).await.refuses(403, title);
    }
    gateway.knock("/ws").with("Cookie", "theme=dark").await.refuses(401, "Unauthorized. Please log in.");
    let output = gateway.stop().await;
    assert!(!output.contains("planted"), "{output}");
}

#[tokio::test]
async fn only_what_is_certain_is_a_no() {
    let application = Application::start().await;
    let gateway = behind(&application, &[("HOOK_TIMEOUT", "500ms")]).await;
    let json = |text: &str| Manner::Says(200, "", text.into());
    let nobody = [
        Manner::status(401),
        Manner::status(403),
        Manner::status(404),
        Manner::status(200),
        json("{}"),
        json("null"),
        json("<html>please log in</html>"),
        json(r#"{"userId":null}"#),
        json(r#"{"userId":""}"#),
        json(r#"{"userId":"anonymous"}"#),
        json(r#"{"userId":"ann","expiresAt":1}"#),
    ];
    for (n, manner) in nobody.into_iter().enumerate() {
        application.at("/session", manner);
        let cookie = format!("c={n}");
        let knock = || gateway.knock("/ws").with("X-Forwarded-For", &format!("10.1.0.{n}"));
        let refused = knock().with("Cookie", &cookie).await;
        refused.refuses(401, "Unauthorized. Please log in.");
        assert!(refused.header("WWW-Authenticate").is_some());
        gateway
            .knock(&format!("/ws?session_token={n}"))
            .with("X-Forwarded-For", &format!("10.1.0.{n}"))
            .await
            .refuses(401, "Invalid session token");
    }
    let unknown = [
        Manner::status(500),
        Manner::status(204),
        Manner::status(418),
        Manner::Says(302, "Location: /session\r\n", String::new()),
        Manner::Says(101, "Connection: Upgrade\r\nUpgrade: websocket\r\n", String::new()),
        json("{\"userId\":"),
        json(r#"{"userId":1.5}"#),
        json(r#"{"userId":"ann","stores":[""]}"#),
        Manner::Floods(10 << 20),
        Manner::Babbles,
        Manner::Breaks,
        Manner::Hangs,
    ];
    for (n, manner) in unknown.into_iter().enumerate() {
        application.at("/session", manner.clone());
        let answer = gateway.knock("/ws").with("Cookie", &format!("d={n}")).await;
        answer.refuses(503, "Credentials cannot be checked");
        // An answer that was read between them, since ten that were not would be enough to be left alone.
        application.at("/session", Manner::status(401));
        gateway.knock("/ws").with("Cookie", &format!("e={n}")).with("X-Forwarded-For", &format!("10.2.0.{n}")).await;
    }
    // Nobody is sent where a redirect points, and nothing that the application said is passed on.
    assert_eq!(application.asked("/session").len(), 11 * 2 + 12 * 2);
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn an_answer_is_good_for_a_while_and_a_refusal_is_not() {
    let application = Application::start().await;
    let gateway = behind(&application, &[]).await;
    application.at("/session", Manner::status(401));
    let knock = || gateway.get("/api/auth/session").with("Cookie", "sid=1");
    assert_eq!(knock().await.status, 401);
    // Whoever logs in keeps the cookie, and comes in at once.
    application.at("/session", Manner::Slowly(Duration::from_millis(300), 200, json!({"userId": "ann"}).to_string()));
    let all = join_all((0..20).map(|_| async { knock().await.status })).await;
    assert_eq!(all, [200; 20]);
    assert_eq!(application.asked("/session").len(), 2, "those who came at once shared one answer");
    application.at("/session", Manner::Hangs);
    assert_eq!(knock().await.json()["userId"], "ann");
    assert_eq!(application.asked("/session").len(), 2);
}

#[tokio::test]
async fn a_session_that_is_over_ends_its_socket() {
    let application = Application::start().await;
    let gateway = behind(&application, &[]).await;
    let until = registry::epoch_ms() + 1500;
    application.at("/session", Manner::json(&json!({"userId": "ann", "expiresAt": until})));
    let mut client = Client::open(gateway.address(), "/ws", &[("Cookie", "sid=1")]).await;
    client.is_greeted().await;
    assert_eq!(client.closed().await, (4401, "session token expired".to_owned()));
}

/// A token that fits no header must not be asked about with the gateway's own login.
#[tokio::test]
async fn nobody_comes_in_by_the_login_of_the_gateway() {
    let application = Application::start().await;
    application.at("/session", Manner::json(&json!({"userId": "the-gateway"})));
    let url = application.url("/session").replace("://", "://gateway:password@");
    let gateway = Gateway::with([("AUTH", "session"), ("SESSION_URL", url.as_str())]).await;
    for token in ["%0a", "x%0ay", "%00", "%0d%0aX-User-ID:%20ann"] {
        gateway.knock(&format!("/ws?session_token={token}")).await.refuses(401, "Invalid session token");
    }
    assert!(application.asked("/session").is_empty());
    // It is what opens the application itself, beside a cookie.
    assert_eq!(gateway.get("/api/auth/session").with("Cookie", "sid=1").await.json()["userId"], "the-gateway");
    assert!(application.asked("/session")[0].header("Authorization").is_some_and(|login| login.starts_with("Basic ")));
}

/// However many come at once from one address, half of the turns are left to others, and refusals count.
#[tokio::test]
async fn one_address_does_not_take_all_of_the_application() {
    let application = Application::start().await;
    let gateway = behind(&application, &[]).await;
    application.at("/session", Manner::Slowly(Duration::from_millis(500), 401, String::new()));
    let all = join_all((0..200).map(async |n| gateway.knock("/ws").with("Cookie", &format!("sid={n}")).await.status));
    let answers = all.await;
    let refused = answers.iter().filter(|status| **status == 401).count();
    assert_eq!(answers.iter().filter(|status| **status == 429).count(), 200 - refused);
    assert!(refused < 200 && application.asked("/session").len() == refused, "{refused}");
    assert!(application.most_at_once() <= 64, "{}", application.most_at_once());
    application.at("/session", Manner::json(&json!({"userId": "ann"})));
    let elsewhere = gateway.get("/api/auth/session").with("X-Forwarded-For", "203.0.113.7");
    assert_eq!(elsewhere.with("Cookie", "sid=1").await.json()["userId"], "ann");
}

/// One client that makes an application say too much keeps nobody else from it.
#[tokio::test]
async fn answers_that_make_no_sense_are_a_sign_of_life() {
    let application = Application::start().await;
    let gateway = behind(&application, &[]).await;
    for (n, manner) in [Manner::Floods(1 << 20), Manner::status(500), Manner::status(302)].into_iter().enumerate() {
        application.at("/session", manner);
        for m in 0..15 {
            let answer = gateway.knock("/ws").with("Cookie", &format!("sid={n}.{m}")).await;
            answer.refuses(503, "Credentials cannot be checked");
        }
    }
    application.at("/session", Manner::json(&json!({"userId": "ann"})));
    assert_eq!(gateway.get("/api/auth/session").with("Cookie", "sid=1").await.json()["userId"], "ann");
    let output = gateway.output();
    assert_eq!(output.matches("/session fails: the application's answer is too large").count(), 1, "{output}");
}

/// Checklist 28: established sockets do not depend on it; those who come are told at once, and come in when it is back.
#[tokio::test]
async fn an_application_that_is_away_is_left_alone_and_found_again() {
    let mut application = Application::start().await;
    let mut gateway = behind(&application, &[]).await;
    application.at("/session", Manner::json(&json!({"userId": "ann"})));
    let mut client = Client::open(gateway.address(), "/ws", &[("Cookie", "sid=1")]).await;
    client.is_greeted().await;
    application.stops().await;
    for n in 0..30 {
        gateway.knock("/ws").with("Cookie", &format!("sid=x{n}")).await.refuses(503, "Credentials cannot be checked");
    }
    let away = r#"holdfast_upstream_requests_total{upstream="session",outcome="resting"}"#;
    assert!(gateway.metric(away).await >= 1.0);
    client.heard_all().await;
    application.returns().await;
    eventually("it is asked again", async || {
        let answer = gateway.get("/api/auth/session").with("Cookie", "sid=2").await;
        (answer.status == 200).then_some(())
    })
    .await;
    gateway.logs(&["/session answers as it should again"]).await;
    let output = gateway.output();
    assert_eq!(output.matches("/session fails: ").count(), 1, "{output}");
}

#[tokio::test]
async fn a_session_wants_origins_by_name() {
    let refused = Holdfast::command(&["serve"])
        .env("AUTH", "session")
        .env("SESSION_URL", "http://me:planted@127.0.0.1:1/?token=planted")
        .env("CORS_ORIGINS", "*")
        .run()
        .await;
    assert_eq!(refused.code, 78);
    assert!(refused.stderr.contains("CORS_ORIGINS=*"), "{refused:?}");
    let check = Holdfast::command(&["check"])
        .env("AUTH", "session")
        .env("SESSION_URL", "http://me:planted@127.0.0.1:1/x?token=planted")
        .env("HOOK_SECRET", "planted-hook-secret")
        .run()
        .await;
    assert_eq!(check.code, 0, "{check:?}");
    assert!(check.said().contains("http://127.0.0.1:1/x?***") && !check.said().contains("planted"), "{check:?}");
}

/// Another `AUTH` waits for a restart, and so must what is allowed with it alone.
#[tokio::test]
async fn no_reload_opens_a_session_to_every_origin() {
    let application = Application::start().await;
    application.at("/session", Manner::json(&json!({"userId": "ann"})));
    let session = format!("auth = \"session\"\nsession_url = \"{}\"\n", application.url("/session"));
    let file = TempFile::holding(&format!("{session}cors_origins = \"https://one.example\"\n"));
    let mut gateway = Gateway::command(&["--config", file.path()]).serve().await;
    let from = |origin: &str| gateway.knock("/ws").with("Cookie", "sid=1").with("Origin", origin);
    assert_eq!((from("https://one.example").await.status, from("https://evil.example").await.status), (101, 403));
    file.rewrite("auth = \"none\"\ncors_origins = \"*\"\n");
    gateway.signal(Signal::HUP);
    gateway.logs(&["ERROR", "not reloaded", "CORS_ORIGINS=*", "cookies"]).await;
    let from = |origin: &str| gateway.knock("/ws").with("Cookie", "sid=1").with("Origin", origin);
    assert_eq!((from("https://one.example").await.status, from("https://evil.example").await.status), (101, 403));
}

/// Who is there already does not notice it; of those who come each is told, and no more ask at once than may.
#[tokio::test]
async fn those_who_come_at_once_meet_a_slow_application() {
    storm(1000).await;
}

/// The same at night scale: `./x storm`.
#[tokio::test]
#[ignore = "takes the whole machine for ten seconds"]
async fn ten_thousand_who_come_at_once_meet_a_slow_application() {
    storm(10_000).await;
}

async fn storm(count: usize) {
    let application = Application::start().await;
    let gateway = behind(&application, &[("MAX_SOCKETS_PER_USER", "0")]).await;
    application.at("/session", Manner::json(&json!({"userId": "ann"})));
    let mut there = Vec::new();
    for n in 0..10 {
        let cookie = format!("sid=there{n}");
        let mut client = Client::open(gateway.address(), "/ws", &[("Cookie", cookie.as_str())]).await;
        client.is_greeted().await;
        there.push(client);
    }
    application.at("/session", Manner::Slowly(Duration::from_secs(1), 200, json!({"userId": "bob"}).to_string()));
    let all = join_all((0..count).map(|n| {
        // A crowd, and not one house.
        let address = format!("10.{}.{}.{}", n / 65_536, n / 256 % 256, n % 256);
        let knock = gateway.knock("/ws").with("Cookie", &format!("sid={n}")).with("X-Forwarded-For", &address);
        async move { knock.await.status }
    }));
    let mut talk = async || {
        for n in 0.. {
            there[n % 10].heard_all().await;
            sleep(Duration::from_millis(10)).await;
        }
    };
    let began = Instant::now();
    let answers = tokio::select! {
        answers = all => answers,
        () = talk() => unreachable!("it goes on for as long as they come"),
    };
    let came = answers.iter().filter(|status| **status == 101).count();
    let told = answers.iter().filter(|status| **status == 503).count();
    note(&format!("{came} came in, {told} were told to come again, in {:?}", began.elapsed()));
    assert!(came >= 100 && came + told == count, "{came} {told}");
    // 128 at once, and as many that were given up and that it works on still.
    assert!(application.most_at_once() <= 256, "{}", application.most_at_once());
    for client in &mut there {
        client.heard_all().await;
    }
    gateway.is_unharmed().await;
}
