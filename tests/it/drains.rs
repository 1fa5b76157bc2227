//! Draining: sockets go one after the other, calls are answered, and whoever asks is served until the end. Who has an
//! instance drain by a request or a command, and which one stays.

use crate::{
    client::Client,
    fleet::Fleet,
    gateway::Gateway,
    http::Answer,
    nginx::{Nginx, TOKEN, own},
    patience::{eventually, note, soon},
    terminal::{command, run},
};
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use servers::Cluster;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::TcpStream,
    sync::oneshot,
    task::{JoinSet, block_in_place},
    time::sleep,
};

fn problem(answer: &Answer, status: u16, code: &str) -> Value {
    let body = answer.json();
    assert_eq!((answer.status, &body["code"]), (status, &json!(code)), "{}", answer.text());
    body
}

async fn greeted(gateway: &Gateway, count: usize) -> Vec<Client> {
    join_all((0..count).map(|_| gateway.greeted("/connect"))).await
}

/// When each of them is told to come back, and that it is.
fn partings(clients: Vec<Client>) -> JoinSet<Instant> {
    let mut partings = JoinSet::new();
    for mut client in clients {
        partings.spawn(async move {
            assert_eq!(client.hears().await["type"], "retry");
            let parted = Instant::now();
            assert_eq!(client.closed().await, (1012, "restart".into()));
            parted
        });
    }
    partings
}

async fn is_draining(gateway: &Gateway) {
    eventually("it drains", async || (gateway.get("/health/ready").await.status == 503).then_some(())).await;
}

async fn replies(client: &mut Client, call: &Value, data: impl Into<Value>) {
    client.says(json!({ "type": "reply", "callId": call["callId"], "data": data.into() }).to_string()).await;
}

/// Answers every call until its socket is closed.
fn answering(mut client: Client) -> JoinSet<()> {
    let mut answering = JoinSet::new();
    answering.spawn(async move {
        loop {
            let heard = client.hears().await;
            if heard["callId"].is_string() {
                replies(&mut client, &heard, heard["data"].clone()).await;
            }
        }
    });
    answering
}

#[tokio::test]
async fn a_drain_is_spread_so_that_no_second_has_thrice_the_mean() {
    let mut gateway = Gateway::with([("DRAIN_TIMEOUT", "8s"), ("LOG_LEVEL", "info")]).await;
    let partings = partings(greeted(&gateway, 200).await);
    let began = Instant::now();
    gateway.signal(Signal::TERM);
    let mut parted = soon("all are gone", partings.join_all()).await;
    parted.sort();
    let busiest = parted.iter().map(|from| {
        let second = *from..*from + Duration::from_secs(1);
        parted.iter().filter(|at| second.contains(*at)).count()
    });
    let (busiest, took) = (busiest.max().unwrap(), parted[199] - began);
    note(&format!("200 sockets in {took:?}, {busiest} of them in the busiest second"));
    // Two and a half seconds of the eight are for the last farewells.
    assert!((4500..=7000).contains(&took.as_millis()), "{took:?}");
    assert!(busiest as f64 <= 3.0 * 200.0 / took.as_secs_f64(), "{busiest} in {took:?}");
    assert_eq!(gateway.exits().await, 0);
}

#[tokio::test]
async fn few_sockets_are_let_go_quickly() {
    let mut gateway = Gateway::with([("DRAIN_TIMEOUT", "15s")]).await;
    let partings = partings(greeted(&gateway, 10).await);
    let began = Instant::now();
    gateway.signal(Signal::TERM);
    partings.join_all().await;
    assert_eq!(gateway.exits().await, 0);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_call_that_takes_long_holds_up_its_own_socket_alone() {
    let mut gateway = Gateway::with([("DRAIN_TIMEOUT", "12s")]).await;
    let mut asked = gateway.greeted("/ws").await;
    let others = partings(greeted(&gateway, 30).await);
    let call = json!({ "socketId": asked.id, "event": "x", "timeoutMs": 60_000 });
    let asking = tokio::spawn(gateway.post("/api/call", &call).into_future());
    let call = asked.hears().await;
    gateway.signal(Signal::TERM);
    let mut parted = asked.stays_while(others.join_all()).await;
    parted.sort();
    let spread = parted[29] - parted[0];
    assert!(spread > Duration::from_secs(2), "they went at once: {spread:?}");
    let answered = Instant::now();
    replies(&mut asked, &call, "at last").await;
    assert_eq!(asked.hears().await["type"], "retry");
    assert_eq!(asked.closed().await, (1012, "restart".into()));
    let answer = asking.await.unwrap();
    assert_eq!((answer.status, &answer.json()["result"]), (200, &json!("at last")), "{}", answer.text());
    assert_eq!(gateway.exits().await, 0);
    assert!(answered.elapsed() < Duration::from_secs(4), "nothing was left to wait for: {:?}", answered.elapsed());
}

#[tokio::test]
async fn a_call_that_nobody_answers_is_over_with_its_socket() {
    let mut gateway = Gateway::with([("DRAIN_TIMEOUT", "4s")]).await;
    let mut asked = gateway.greeted("/ws").await;
    let call = json!({ "socketId": asked.id, "event": "x", "timeoutMs": 60_000 });
    let asking = tokio::spawn(gateway.post("/api/call", &call).into_future());
    asked.hears().await;
    let began = Instant::now();
    gateway.signal(Signal::TERM);
    assert_eq!(asked.hears().await["type"], "retry");
    assert!(began.elapsed() > Duration::from_secs(1), "it had no time to answer: {:?}", began.elapsed());
    assert_eq!(asked.closed().await.0, 1012);
    let body = problem(&asking.await.unwrap(), 502, "socket_lost");
    assert_eq!(body["verdict"]["cause"], "instance_restart", "{body}");
    assert_eq!(gateway.exits().await, 0);
}

/// web1 drains and takes its time, since a socket of its is being asked something: until that is answered.
async fn drains_slowly(fleet: &Fleet) -> (Client, Value, JoinSet<Answer>) {
    let mut asked = fleet[0].greeted("/ws?store_id=slow").await;
    let call = json!({ "storeId": "slow", "event": "x", "timeoutMs": 60_000 });
    let mut asking = JoinSet::new();
    asking.spawn(fleet[1].post("/api/call", &call).into_future());
    let call = asked.hears().await;
    fleet[0].signal(Signal::TERM);
    is_draining(&fleet[0]).await;
    (asked, call, asking)
}

#[tokio::test]
async fn whoever_asks_a_draining_instance_is_served() {
    let mut fleet = Fleet::with(&[]).await;
    let near = fleet[1].greeted("/ws?store_id=shop").await;
    let id = near.id.clone();
    let _answering = answering(near);
    let (mut asked, call, asking) = drains_slowly(&fleet).await;
    for target in [json!({ "socketId": id }), json!({ "storeId": "shop" })] {
        let mut call = target.clone();
        (call["event"], call["data"]) = (json!("x"), json!(7));
        let answer = fleet[0].post("/api/call", &call).without("Connection").await;
        assert_eq!((answer.status, &answer.json()["result"]), (200, &json!(7)), "{}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"));
    }
    let sent = fleet.sends(0, json!({ "socketId": id }), 1).await;
    assert_eq!((sent.status, &sent.json()["status"]), (200, &json!("delivered")), "{}", sent.text());
    // Its own sockets are not asked any more.
    problem(&fleet[0].post("/api/call", &json!({ "storeId": "slow", "event": "x" })).await, 503, "draining");
    replies(&mut asked, &call, 1).await;
    fleet.ends(0).await;
    assert_eq!(asking.join_all().await[0].status, 200);
    fleet.is_sound().await;
}

/// nginx keeps connections for later, and would answer 502 if one were closed under a request.
#[tokio::test]
async fn an_idle_connection_is_answered_to_the_end() {
    let mut fleet = Fleet::with(&[]).await;
    let mut kept = fleet[0].raw().await;
    let request = fleet[0].get("/health/live").without("Connection");
    kept.write(&request.bytes()).await;
    assert_eq!(kept.answer().await.header("connection"), None);
    let (mut asked, call, _asking) = drains_slowly(&fleet).await;
    kept.write(&request.bytes()).await;
    let answer = kept.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    kept.ends().await;
    replies(&mut asked, &call, 1).await;
    fleet.ends(0).await;
}

/// Also where nobody is connected, so that the port is closed at once: what was used a moment ago may be used just now.
#[tokio::test]
async fn a_connection_that_has_just_been_used_outlives_the_listener() {
    let mut gateway = Gateway::start().await;
    let mut kept = gateway.raw().await;
    let request = gateway.get("/health/live").without("Connection");
    kept.write(&request.bytes()).await;
    assert_eq!(kept.answer().await.status, 200);
    let used = Instant::now();
    gateway.signal(Signal::TERM);
    eventually("nobody listens", async || TcpStream::connect(gateway.address()).await.err()).await;
    let written = kept.try_write(&request.bytes()).await;
    if used.elapsed() > Duration::from_millis(800) {
        return note("this machine is too busy to tell");
    }
    written.unwrap();
    let answer = kept.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    kept.ends().await;
    assert_eq!(gateway.exits().await, 0);
}

#[tokio::test]
async fn a_drain_behind_nginx_costs_no_call() {
    let mut fleet = Fleet::with(&[("DRAIN_TIMEOUT", "6s"), TOKEN]).await;
    let addresses = [0, 1, 2].map(|at| fleet[at].address());
    let nginx = Nginx::before(&addresses).await;
    let mut answering_at = Vec::new();
    for at in [1, 2] {
        answering_at.push(answering(fleet[at].greeted("/ws?store_id=shop").await));
    }
    let leaving = partings(greeted(&fleet[0], 30).await);
    let (mut callers, at) = (JoinSet::new(), nginx.address);
    let (mut stops, made) = (Vec::new(), Arc::new(AtomicUsize::new(0)));
    for nth in 0..10_u64 {
        let (stop, mut stopped) = oneshot::channel::<()>();
        stops.push(stop);
        let made = made.clone();
        callers.spawn(async move {
            let mut statuses = Vec::new();
            let call = json!({ "storeId": "shop", "event": "x", "data": nth });
            while stopped.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                let request = own(at, "POST", "/api/call");
                let answer = request.json(&call).await;
                statuses.push((answer.status, answer.text()));
                made.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(20 + nth)).await;
            }
            statuses
        });
    }
    fleet[0].signal(Signal::TERM);
    leaving.join_all().await;
    fleet.ends(0).await;
    // Some more, that know nothing of it.
    let wanted = made.load(Ordering::Relaxed) + 100;
    eventually("some more are made", async || (made.load(Ordering::Relaxed) >= wanted).then_some(())).await;
    stops.clear();
    let statuses = callers.join_all().await.concat();
    let failed: Vec<_> = statuses.iter().filter(|(status, _)| *status != 200).collect();
    note(&format!("{} calls during the drain", statuses.len()));
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), statuses.len(), failed[0]);
    assert!(statuses.len() > 100, "{}", statuses.len());
    fleet.is_sound().await;
}

/// Has an instance drain, asked at one of them.
async fn drain(asked: &Gateway, name: &str) -> Answer {
    asked.request("POST", &format!("/api/instances/{name}/drain")).await
}

#[tokio::test]
async fn any_instance_can_be_asked_to_have_one_drain() {
    let mut fleet = Fleet::with(&[("DRAIN_TIMEOUT", "9s")]).await;
    for (asked, drained, hop) in [(1, 0, "remote"), (1, 1, "local")] {
        let name = Fleet::name(drained);
        let partings = partings(greeted(&fleet[drained], 5).await);
        let incarnation = fleet.incarnations(asked).await[&name].clone();
        let answer = drain(&fleet[asked], &name).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let said = json!({
            "status": "draining", "instance": name, "incarnation": incarnation, "hop": hop, "sockets": 5, "withinMs": 9000,
        });
        assert_eq!(answer.json(), said);
        assert_eq!(fleet[drained].knock("/ws").await.status, 503);
        partings.join_all().await;
        fleet.ends(drained).await;
        assert!(!fleet.incarnations(2).await.contains_key(&name), "its lease is given up");
        assert!(fleet[drained].output().contains("asked to stop; draining"), "{}", fleet[drained].output());
    }
    // It is believed for a while, and not for ever.
    let ms: i64 = fleet.redis().text(&["PTTL", "holdfast:{m}:draining"]).parse().unwrap();
    assert!((1..=30_000).contains(&ms), "{ms}");
    fleet.is_sound().await;
}

#[tokio::test]
async fn the_last_instance_is_drained_only_by_force() {
    let mut gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let mut client = gateway.greeted("/ws").await;
    let refused = drain(&gateway, "web1").await;
    let body = problem(&refused, 409, "last_instance");
    refused.is_problem();
    assert!(body["detail"].as_str().unwrap().contains("web1") && body["hint"].as_str().unwrap().contains("force"));
    assert_eq!(gateway.get("/health/ready").await.status, 200);
    let forced = gateway.post("/api/instances/web1/drain", &json!({ "force": true })).await;
    assert_eq!((forced.status, &forced.json()["sockets"]), (202, &json!(1)), "{}", forced.text());
    assert_eq!(client.hears().await["type"], "retry");
    assert_eq!(client.closed().await.0, 1012);
    assert_eq!(gateway.exits().await, 0);
}

/// Their leases stand for some seconds more.
#[tokio::test]
async fn those_who_were_killed_do_not_count_as_serving() {
    let mut fleet = Fleet::with(&[]).await;
    for at in [1, 2] {
        let bell = format!("holdfast:{{i:{}}}:bell", fleet.mark(0, at).await);
        fleet.kill(at);
        eventually("nobody listens to its bell", async || {
            let said = format!("{:?}", fleet.redis().ask(&["PUBSUB", "NUMSUB", &bell]));
            said.ends_with("int(0)])").then_some(())
        })
        .await;
    }
    assert_eq!(fleet.incarnations(0).await.len(), 3);
    problem(&drain(&fleet[0], "web1").await, 409, "last_instance");
    fleet.is_sound().await;
}

#[tokio::test]
async fn of_the_last_two_that_are_told_at_once_one_stays() {
    one_of_the_last_two_stays(Fleet::with(&[]).await).await;
}

/// Leases lie on all of its masters, and who is about to drain on one.
#[tokio::test(flavor = "multi_thread")]
async fn of_the_last_two_on_a_cluster_one_stays() {
    let cluster = block_in_place(|| Cluster::of(3, 0));
    one_of_the_last_two_stays(Fleet::on(&cluster.url(), &[]).await).await;
}

async fn one_of_the_last_two_stays(mut fleet: Fleet) {
    assert_eq!(drain(&fleet[0], "web3").await.status, 202);
    fleet.ends(2).await;
    let (one, two) = tokio::join!(drain(&fleet[1], "web1"), drain(&fleet[0], "web2"));
    let statuses = [one.status, two.status];
    let stays = statuses.iter().position(|status| *status == 409).unwrap_or_else(|| panic!("{statuses:?}"));
    problem([&one, &two][stays], 409, "last_instance");
    assert_eq!(statuses[1 - stays], 202, "{statuses:?}");
    fleet.ends(1 - stays).await;
    problem(&drain(&fleet[stays], &Fleet::name(stays)).await, 409, "last_instance");
    assert_eq!(fleet[stays].get("/health/ready").await.status, 200);
    fleet.is_sound().await;
}

/// Whoever cannot know whether it is the last is not drained by a request; a signal does it all the same.
#[tokio::test]
async fn without_redis_nobody_is_told_to_drain() {
    let mut fleet = Fleet::with(&[("DRAIN_TIMEOUT", "4s")]).await;
    let mut client = fleet[0].greeted("/ws").await;
    fleet.redis().kill();
    for body in [json!({}), json!({ "force": true })] {
        let answer = fleet[0].post("/api/instances/web1/drain", &body).await;
        let body = problem(&answer, 503, "registry_unavailable");
        assert!(body["hint"].as_str().unwrap().contains("SIGTERM"), "{body}");
        assert!(answer.header("retry-after").is_some());
    }
    fleet[0].signal(Signal::TERM);
    assert_eq!(client.hears().await["type"], "retry");
    assert_eq!(client.closed().await.0, 1012);
    fleet.ends(0).await;
}

#[tokio::test]
async fn who_is_meant_must_be_there_and_the_body_must_fit() {
    let fleet = Fleet::with(&[]).await;
    let unknown = drain(&fleet[0], "web9").await;
    let body = problem(&unknown, 404, "no_such_instance");
    assert_eq!(body["detail"], "no instance is called web9; there are web1, web2, web3", "{body}");
    unknown.is_problem();
    for (text, status) in [("{", 400), (r#"{"force":1}"#, 422), (r#"{"now":true}"#, 422), ("[]", 422)] {
        let answer = fleet[0].request("POST", "/api/instances/web1/drain").body(text).await;
        assert_eq!(answer.status, status, "{text}: {}", answer.text());
    }
    assert_eq!(fleet[0].get("/api/instances/web1/drain").await.status, 405);
    for at in 0..3 {
        assert_eq!(fleet[at].get("/health/ready").await.status, 200);
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn only_who_runs_the_fleet_has_it_drained() {
    let mut gateway = Gateway::with([("INSTANCE", "web1"), ("API_TOKEN", "caller"), ("ADMIN_TOKEN", "operator")]).await;
    let request = gateway.post("/api/instances/web1/drain", &json!({ "force": true }));
    for token in ["caller", "nobody"] {
        let refused = request.clone().with("Authorization", &format!("Bearer {token}")).await;
        assert_eq!(refused.status, 401, "{token}: {}", refused.text());
    }
    // The command takes the token that suffices.
    let commanded = command(&gateway, &["drain", "--force"]).env("API_TOKEN", "caller").env("ADMIN_TOKEN", "operator");
    let finished = commanded.run().await;
    assert_eq!(finished.code, 0, "{finished:?}");
    assert_eq!(gateway.exits().await, 0);
}

#[tokio::test]
async fn whoever_does_not_say_whether_it_drains_may_do_so_or_not() {
    let mut fleet = Fleet::with(&[]).await;
    fleet[0].stands_still().await;
    let body = problem(&drain(&fleet[1], "web1").await, 504, "no_reply");
    assert_eq!(body["delivered"], "unknown", "{body}");
    fleet[0].signal(Signal::CONT);
    // Its letter was over by then; asked again, it hears.
    let answer = eventually("it is told", async || {
        let answer = drain(&fleet[1], "web1").await;
        (answer.status == 202).then_some(answer)
    });
    assert_eq!(answer.await.json()["instance"], "web1");
    fleet.ends(0).await;
}

/// Whoever has an instance drain stops its process afterwards, or its manager does.
#[tokio::test]
async fn of_the_signals_that_follow_a_request_the_second_ends_it_at_once() {
    let mut gateway = Gateway::with([("INSTANCE", "web1"), ("DRAIN_TIMEOUT", "15s")]).await;
    let mut clients = greeted(&gateway, 200).await;
    assert_eq!(gateway.post("/api/instances/web1/drain", &json!({ "force": true })).await.status, 202);
    is_draining(&gateway).await;
    gateway.signal(Signal::TERM);
    gateway.logs(&["draining already"]).await;
    let mut last = clients.pop().unwrap();
    assert_eq!(gateway.sockets().await.min(1), 1, "it goes on as it was");
    let second = Instant::now();
    gateway.signal(Signal::TERM);
    gateway.exits().await;
    assert!(second.elapsed() < Duration::from_secs(2), "{:?}", second.elapsed());
    assert!(last.next().await.is_none_or(|heard| heard.is_close()), "nobody told it to come back");
}

#[tokio::test]
async fn the_command_waits_until_the_instance_has_left() {
    let mut fleet = Fleet::with(&[("DRAIN_TIMEOUT", "9s")]).await;
    let mut leaving = partings(greeted(&fleet[0], 50).await);
    let finished = run(&fleet[1], &["drain", "web1", "--wait"]).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(finished.stdout.contains("web1 drains 50 sockets, and is gone within 9 s"), "{finished:?}");
    assert!(finished.stdout.contains("web1 has left after"), "{finished:?}");
    assert!(finished.stderr.contains("sockets left"), "{finished:?}");
    assert!(!fleet.incarnations(1).await.contains_key("web1"), "its lease is gone");
    while let Some(parting) = leaving.join_next().await {
        parting.unwrap();
    }
    fleet.ends(0).await;

    let unknown = run(&fleet[1], &["drain", "web1"]).await;
    assert_eq!((unknown.code, unknown.stdout.as_str()), (3, ""), "{unknown:?}");
    assert!(unknown.stderr.contains("no instance is called web1; there are web2, web3"), "{unknown:?}");
    // The one that is asked, which closes its port in the end.
    let own = run(&fleet[1], &["drain", "--wait", "--json"]).await;
    let said: Value = serde_json::from_str(&own.stdout).unwrap_or_else(|_| panic!("{own:?}"));
    assert_eq!((own.code, &said["instance"], &said["left"]), (0, &json!("web2"), &json!(true)), "{own:?}");
    fleet.ends(1).await;
    let last = run(&fleet[2], &["drain", "web3"]).await;
    assert_eq!(last.code, 1, "{last:?}");
    assert!(last.stderr.contains("--force"), "{last:?}");
    let forced = run(&fleet[2], &["drain", "web3", "--force"]).await;
    assert_eq!(forced.code, 0, "{forced:?}");
    fleet.ends(2).await;
    let nobody = run(&fleet[2], &["drain", "web3"]).await;
    assert_eq!(nobody.code, 69, "{nobody:?}");
}
