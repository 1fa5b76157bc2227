//! Sockets that come back: with the same id, on any instance, once for each token; or as somebody new, and told so.

use crate::{
    client::Client,
    comebacks::Page,
    fleet::{Fleet, MENDED, within},
    gateway::Gateway,
    patience::eventually,
};
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

async fn is_away(gateway: &Gateway, id: &str, cause: &str) -> Value {
    let verdict = gateway.verdict(id).await;
    assert_eq!((&verdict["state"], &verdict["cause"]), (&json!("away"), &json!(cause)), "{verdict}");
    verdict
}

/// Until it is not away any more.
async fn is_closed(gateway: &Gateway, id: &str, cause: &str) {
    within(MENDED, "it has ended", async || {
        let verdict = gateway.verdict(id).await;
        match (&verdict["state"], &verdict["cause"]) {
            (state, told) if state == "closed" && told == cause => Ok(()),
            _ => Err(verdict.to_string()),
        }
    })
    .await;
}

async fn replies(client: &mut Client) -> Value {
    let call = client.hears().await;
    client.says(json!({"type": "reply", "callId": call["callId"], "data": "yes"}).to_string()).await;
    call
}

/// It can be called by each of these, and answers.
async fn is_called(gateway: &Gateway, page: &mut Page, targets: &[Value]) {
    for target in targets {
        let asked = json!({"to": target, "event": "x", "data": 1, "timeoutMs": 10_000});
        let asking = gateway.post("/api/call", &asked);
        let (answer, _) = tokio::join!(asking, replies(&mut page.client));
        assert_eq!((answer.status, &answer.json()["socketId"]), (200, &json!(page.id())), "{}", answer.text());
    }
}

/// A token opens nothing once the page that came with it, here, is heard: whoever shows it there is somebody else.
async fn is_used_up(token: &str, page: &mut Page, [here, there]: [&Gateway; 2]) {
    eventually("its token is used up", async || {
        page.client.heard_all().await;
        let stranger = Page::comes(there, "user_id=ann&client_id=x", token, 0).await;
        let is_new = stranger.id() != page.id();
        assert_eq!(stranger.reset, is_new);
        match is_new {
            true => stranger.client.leaves().await,
            // It was too early, and took the socket: the page comes back, and speaks once more.
            false => *page = Page::comes(here, "user_id=ann", token, 0).await,
        }
        is_new.then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_asks_for_it_is_told_how_to_come_back() {
    let gateway = Gateway::start().await;
    let page = Page::opens(&gateway, "user_id=ann").await;
    assert_eq!((page.hi["seq"].as_u64(), page.token().len()), (Some(0), 55), "{}", page.hi);
    assert!(!page.token().contains(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c)), "URL-safe");
    // Said again, it is the same.
    let mut page = page;
    page.client.says(r#"{"evt":"hi"}"#).await;
    let again = page.client.hears().await;
    assert_eq!((&again["session"], &again["seq"]), (&page.hi["session"], &page.hi["seq"]));
    for plain in ["/ws?user_id=ann", "/ws?last_seq=3"] {
        let mut client = gateway.connect(plain).await;
        let hi = client.is_greeted().await;
        assert!(hi.get("session").is_none() && hi.get("seq").is_none() && hi["resumed"] == false, "{hi}");
    }
    // Nobody would hear the token.
    let mut silent = gateway.connect("/ws?greeting=none&resume=").await;
    silent.heard_all().await;
    let never = Gateway::with([("RESUME_WINDOW", "0")]).await;
    let mut client = never.connect("/ws?resume=").await;
    assert!(client.is_greeted().await.get("session").is_none());
}

#[tokio::test]
async fn whoever_comes_back_is_the_same_on_any_instance() {
    let fleet = Fleet::with(&[]).await;
    for (first, second) in [(0, 0), (0, 1), (2, 1)] {
        let mut page = Page::opens(&fleet[first], "user_id=ann&store_id=old&room_id=r").await;
        let select = r#"{"type":"selectStore","data":{"storeId":"s"}}"#;
        assert_eq!(page.client.asks(select).await, r#"{"type":"storeSelected","data":{"storeId":"s"}}"#);
        assert_eq!(page.client.asks(r#"{"type":"join","room":"q"}"#).await, r#"{"type":"joined","room":"q"}"#);
        let (id, token) = page.breaks();
        let verdict = is_away(&fleet[2], &id, "connection_lost").await;
        assert!(verdict["sentence"].as_str().unwrap().contains("may come back within"), "{verdict}");
        assert_eq!(fleet[1].get("/api/stores/s").await.json()["count"], 0);
        // What it says of itself in the query is not asked again.
        let mut page = Page::comes(&fleet[second], "user_id=ann&store_id=other", &token, 0).await;
        assert_eq!((page.id(), page.reset), (id.as_str(), false), "{}", page.hi);
        assert_eq!((&page.hi["instance"], &page.hi["seq"]), (&json!(Fleet::name(second)), &json!(0)));
        let targets = [json!({"socketId": id}), json!({"storeId": "s"}), json!({"userId": "ann"})];
        is_called(&fleet[(second + 1) % 3], &mut page, &targets).await;
        let shown = fleet[0].get(&format!("/api/sockets/{id}")).await.json();
        assert_eq!((&shown["rooms"], &shown["storeId"]), (&json!(["r", "q"]), &json!("s")), "{shown}");
        assert_eq!(shown["instance"], json!(Fleet::name(second)));
        assert_eq!(fleet[0].get("/api/rooms/q").await.json()["count"], 1);
        page.client.leaves().await;
    }
    fleet.is_sound().await;
}

/// A half-open connection is nothing that holds its client up.
#[tokio::test]
async fn the_ghost_goes_when_its_client_is_back() {
    let fleet = Fleet::with(&[]).await;
    for (first, second) in [(0, 0), (0, 1)] {
        let mut ghost = Page::opens(&fleet[first], "user_id=ann&store_id=s").await;
        let mut page = Page::comes(&fleet[second], "user_id=ann", ghost.token(), 0).await;
        assert_eq!((page.id(), page.reset), (ghost.id(), false));
        assert_eq!(ghost.hears_close().await, 4409);
        for gateway in [&fleet[0], &fleet[1]] {
            let listed = gateway.get("/api/users/ann").await.json();
            assert_eq!(
                (&listed["count"], &listed["sockets"][0]["socketId"]),
                (&json!(1), &json!(page.id())),
                "{listed}"
            );
        }
        let targets = [json!({"socketId": page.id()}), json!({"storeId": "s"})];
        is_called(&fleet[2], &mut page, &targets).await;
        page.client.leaves().await;
    }
    fleet.is_sound().await;
}

/// Before anybody has noticed that the instance is dead, and after.
#[tokio::test]
async fn a_killed_instance_keeps_nobody_from_coming_back() {
    let mut fleet = Fleet::with(&[]).await;
    let soon = Page::opens(&fleet[0], "user_id=ann&store_id=s").await;
    let late = Page::opens(&fleet[0], "user_id=bob&store_id=t").await;
    fleet.kill(0);
    let (id, token) = soon.breaks();
    let mut soon = Page::comes(&fleet[1], "user_id=ann", &token, 0).await;
    assert_eq!((soon.id(), soon.reset), (id.as_str(), false), "{}", soon.hi);
    let (id, token) = late.breaks();
    let is_away = within(MENDED, "it is away", async || {
        let answer = fleet[2].get(&format!("/api/sockets/{id}")).await;
        let verdict = &answer.json()["verdict"];
        match verdict["state"] == "away" && verdict["cause"] == "instance_crash" {
            true => Ok(()),
            false => Err(answer.text()),
        }
    });
    // That takes longer than a client may be silent.
    soon.client.stays_while(is_away).await;
    let mut late = Page::comes(&fleet[2], "user_id=bob", &token, 0).await;
    assert_eq!((late.id(), late.reset), (id.as_str(), false), "{}", late.hi);
    is_called(&fleet[1], &mut late, &[json!({"storeId": "t"})]).await;
    is_called(&fleet[2], &mut soon, &[json!({"storeId": "s"})]).await;
    // The dead is counted nowhere any more.
    let redis = fleet.redis();
    within(MENDED, "no group names the dead", async || {
        let groups = redis.keys().into_iter().filter(|key| key.ends_with(":instances") && key.contains("{g:"));
        let counts: Vec<_> = groups.map(|key| redis.text(&["HLEN", &key])).collect();
        if counts.len() == 4 && counts.iter().all(|count| count == "1") { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_drain_leaves_sockets_away() {
    let mut fleet = Fleet::with(&[("DRAIN_TIMEOUT", "4s")]).await;
    let mut page = Page::opens(&fleet[0], "user_id=ann").await;
    let mut plain = fleet[0].greeted("/ws?user_id=bob").await;
    fleet[0].signal(Signal::TERM);
    assert_eq!(page.hears_close().await, 1012);
    while !matches!(plain.next().await, Some(Message::Close(_))) {}
    let (id, token) = page.breaks();
    is_away(&fleet[1], &id, "instance_restart").await;
    is_closed(&fleet[1], &plain.id, "instance_restart").await;
    let page = Page::comes(&fleet[1], "user_id=ann", &token, 0).await;
    assert_eq!((page.id(), page.reset), (id.as_str(), false));
    fleet.ends(0).await;
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_token_that_is_not_good_makes_a_new_socket_and_harms_nobody() {
    let fleet = Fleet::with(&[]).await;
    let other = Gateway::with([("NAMESPACE", "other"), ("REDIS_URL", &fleet.redis().url())]).await;
    let page = Page::opens(&fleet[0], "user_id=ann").await;
    let foreign = Page::opens(&other, "user_id=ann").await;
    let token = page.token().to_owned();
    let altered = |at: usize| {
        let to = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
        format!("{}{to}{}", &token[..at], &token[at + 1..])
    };
    let mut bad: Vec<_> = [0, 3, 9, 20, 33, 50].into_iter().map(altered).collect();
    bad.extend([token[..54].to_owned(), format!("{token}A"), "x".into(), "%00".into(), "%F0%9F%8E%B2".into()]);
    bad.extend([foreign.token().to_owned(), "A".repeat(55), "-".repeat(5000)]);
    for bad in &bad {
        let stranger = Page::comes(&fleet[1], "user_id=ann", bad, 0).await;
        assert!(stranger.reset && stranger.id() != page.id(), "{bad}: {}", stranger.hi);
        stranger.client.leaves().await;
    }
    for user in ["user_id=bob", "user_id=anonymous", "x=1"] {
        let stranger = Page::comes(&fleet[1], user, &token, 0).await;
        assert!(stranger.reset && stranger.id() != page.id(), "{user}");
        stranger.client.leaves().await;
    }
    let Page { mut client, .. } = page;
    client.heard_all().await;
    drop(client);
    let back = Page::comes(&fleet[2], "user_id=ann", &token, 0).await;
    assert!(!back.reset);
    let told = |outcome: &str| format!("holdfast_resumes_total{{outcome=\"{outcome}\"}}");
    assert_eq!(fleet[1].metric(&told("invalid")).await, (bad.len() + 3) as f64);
    assert_eq!(fleet[2].metric(&told("resumed")).await, 1.0);
    fleet.is_sound().await;
    other.is_unharmed().await;
}

#[tokio::test]
async fn a_last_seq_that_is_no_number_is_refused_and_one_that_never_was_is_no_resume() {
    let gateway = Gateway::start().await;
    for bad in ["-1", "x", "1.5", "+1", "99999999999999999999999", "0x1", "%20"] {
        let refused = gateway.knock(&format!("/ws?resume=&last_seq={bad}")).await;
        assert_eq!(refused.status, 400, "{bad}: {}", refused.text());
        assert_eq!(refused.json()["title"], "Invalid last_seq query parameter", "{bad}: {}", refused.text());
    }
    let (id, token) = Page::opens(&gateway, "user_id=ann").await.breaks();
    is_away(&gateway, &id, "connection_lost").await;
    let page = Page::comes(&gateway, "user_id=ann", &token, 7).await;
    assert_eq!((page.id(), page.reset, &page.hi["seq"]), (id.as_str(), true, &json!(0)), "nothing was ever sent");
}

#[tokio::test]
async fn of_two_that_come_with_one_token_one_stays() {
    let fleet = Fleet::with(&[("MAX_SOCKETS_PER_USER", "0")]).await;
    let fleet = &fleet;
    for turn in 0..4 {
        let query = format!("user_id=u{turn}");
        let (id, token) = Page::opens(&fleet[0], &query).await.breaks();
        let coming = (0..6).map(|nth| {
            let (query, token) = (query.clone(), token.clone());
            async move {
                let mut client = fleet[nth % 3].connect(&format!("/ws?{query}&resume={token}")).await;
                match client.next().await {
                    Some(Message::Text(hi)) => Some((serde_json::from_str::<Value>(&hi).unwrap(), client)),
                    // Overtaken before it was greeted.
                    Some(Message::Close(Some(close))) if u16::from(close.code) == 4409 => None,
                    other => panic!("{other:?}"),
                }
            }
        });
        let came: Vec<_> = join_all(coming).await.into_iter().flatten().collect();
        // The others were late, or hear that they are replaced; who is new has an id of its own.
        let (mut holding, strangers): (Vec<_>, Vec<_>) =
            came.into_iter().partition(|(hi, _)| hi["socketId"] == json!(id));
        assert!(strangers.iter().all(|(hi, _)| hi["resumed"] == false));
        eventually("one stays", async || {
            let mut left = Vec::new();
            for (hi, mut client) in holding.drain(..) {
                client.says(r#"{"type":"getSocketId"}"#).await;
                match client.next().await {
                    Some(Message::Text(told)) => {
                        assert!(told.contains(&id), "{told}");
                        left.push((hi, client));
                    }
                    Some(Message::Close(Some(close))) => assert_eq!(u16::from(close.code), 4409),
                    other => panic!("{other:?}"),
                }
            }
            holding = left;
            (holding.len() == 1).then_some(())
        })
        .await;
        holding[0].1.heard_all().await;
        let shown = fleet[turn % 3].get(&format!("/api/sockets/{id}")).await;
        assert_eq!(shown.status, 200, "{}", shown.text());
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_token_is_used_up_when_its_connection_is_heard_and_not_before() {
    let fleet = Fleet::with(&[]).await;
    let (id, first) = Page::opens(&fleet[0], "user_id=ann").await.breaks();
    // The page never heard these, and says nothing.
    for at in [1, 2, 1] {
        let page = Page::comes(&fleet[at], "user_id=ann", &first, 0).await;
        assert_eq!((page.id(), page.reset), (id.as_str(), false), "{at}");
    }
    let mut page = Page::comes(&fleet[0], "user_id=ann", &first, 0).await;
    assert_eq!(page.id(), id);
    let second = page.token().to_owned();
    is_used_up(&first, &mut page, [&fleet[0], &fleet[1]]).await;
    page.client.heard_all().await;
    drop(page);
    let page = Page::comes(&fleet[2], "user_id=ann", &second, 0).await;
    assert_eq!((page.id(), page.reset), (id.as_str(), false), "the next one is good");
    fleet.is_sound().await;
}

#[tokio::test]
async fn what_is_ended_on_purpose_does_not_come_back() {
    let fleet = Fleet::with(&[]).await;
    let comes = async |token: &str, id: &str| {
        let page = Page::comes(&fleet[1], "user_id=ann", token, 0).await;
        assert!(page.reset && page.id() != id, "{}", page.hi);
        page.client.leaves().await;
    };
    let page = Page::opens(&fleet[0], "user_id=ann").await;
    let (id, token) = (page.id().to_owned(), page.token().to_owned());
    page.client.leaves().await;
    is_closed(&fleet[2], &id, "client_closed").await;
    comes(&token, &id).await;

    let mut page = Page::opens(&fleet[0], "user_id=ann").await;
    let kicked = fleet[1].delete(&format!("/api/sockets/{}", page.id())).await;
    assert_eq!((kicked.status, page.hears_close().await), (200, 4403));
    is_closed(&fleet[2], page.id(), "kicked").await;
    comes(page.token(), page.id()).await;

    // While it is away as well.
    let (id, token) = Page::opens(&fleet[0], "user_id=ann").await.breaks();
    is_away(&fleet[1], &id, "connection_lost").await;
    let kicked = fleet[2].delete(&format!("/api/sockets/{id}?reason=spam")).await;
    assert_eq!(kicked.status, 200, "{}", kicked.text());
    is_closed(&fleet[1], &id, "kicked").await;
    comes(&token, &id).await;
    assert_eq!(fleet[2].delete(&format!("/api/sockets/{id}")).await.status, 410);

    // And with all others of its user.
    let (id, token) = Page::opens(&fleet[0], "user_id=ann").await.breaks();
    is_away(&fleet[1], &id, "connection_lost").await;
    let kicked = fleet[2].delete("/api/users/ann").await;
    assert_eq!((kicked.status, &kicked.json()["closed"]), (200, &json!(1)), "{}", kicked.text());
    is_closed(&fleet[1], &id, "kicked").await;
    comes(&token, &id).await;
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_page_that_never_returns_ends_with_its_cause() {
    let memory = Gateway::with([("RESUME_WINDOW", "1s")]).await;
    let fleet = Fleet::with(&[("RESUME_WINDOW", "1s")]).await;
    for gateway in [&memory, &fleet[1]] {
        // Whichever instance notices it.
        let mut feed = gateway.get("/api/events").streams().await;
        while feed.hears("instances").await["whole"] != json!(true) {}
        let (id, token) = Page::opens(gateway, "user_id=ann&store_id=s").await.breaks();
        assert_eq!(feed.hears("connected").await["socketId"], json!(id));
        let away = feed.hears("away").await;
        assert_eq!((&away["socketId"], &away["cause"]), (&json!(id), &json!("connection_lost")), "{away}");
        is_closed(gateway, &id, "connection_lost").await;
        let ended = feed.hears("disconnected").await;
        assert_eq!((&ended["socketId"], &ended["cause"]), (&json!(id), &json!("connection_lost")), "{ended}");
        assert_eq!((&ended["userId"], &ended["storeId"]), (&json!("ann"), &json!("s")), "{ended}");
        let page = Page::comes(gateway, "user_id=ann", &token, 0).await;
        assert!(page.reset && page.id() != id);
    }
    // Nothing of it stays but the verdict.
    let redis = fleet.redis();
    within(MENDED, "nobody waits for it", async || {
        let waiting: Vec<_> = redis.keys().into_iter().filter(|key| key.ends_with(":ended")).collect();
        if waiting.is_empty() { Ok(()) } else { Err(format!("{waiting:?}")) }
    })
    .await;
    fleet.is_sound().await;
}

/// Whichever of its connections the client says it on.
#[tokio::test]
async fn a_call_is_answered_after_its_client_came_back() {
    let fleet = Fleet::with(&[]).await;
    #[rustfmt::skip]
    let table: [(usize, usize, &[usize], bool); 10] = [
        (0, 0, &[0], true), (0, 1, &[0], true), (0, 0, &[1], true), (0, 2, &[1], true), (0, 1, &[1], true),
        (0, 2, &[1], false),
        // Twice, so that whoever had it last was never given the call.
        (0, 0, &[1, 2], true), (0, 1, &[2, 1], true), (0, 2, &[1, 2], false), (0, 0, &[1, 0], true),
    ];
    for (owner, asker, nexts, breaks) in table {
        let mut page = Page::opens(&fleet[owner], "user_id=ann").await;
        let asked = json!({"to": {"socketId": page.id()}, "event": "x", "data": 1, "timeoutMs": 15_000});
        let asking = fleet[asker].post("/api/call", &asked);
        let coming = async {
            let call = page.client.hears().await;
            let mut ghosts = Vec::new();
            for next in nexts {
                let (id, token) = (page.id().to_owned(), page.token().to_owned());
                if breaks {
                    drop(page);
                    is_away(&fleet[asker], &id, "connection_lost").await;
                } else {
                    ghosts.push(page);
                }
                page = Page::comes(&fleet[*next], "user_id=ann", &token, 0).await;
                assert_eq!(page.id(), id);
            }
            let reply = json!({"type": "reply", "callId": call["callId"], "data": "yes"});
            page.client.says(reply.to_string()).await;
            (page, ghosts)
        };
        let (answer, (page, _ghosts)) = tokio::join!(asking, coming);
        let (status, body) = (answer.status, answer.json());
        assert_eq!((status, &body["result"]), (200, &json!("yes")), "{owner} {asker} {nexts:?}: {body}");
        assert_eq!(body["socketId"], json!(page.id()));
        page.client.leaves().await;
    }
    fleet.is_sound().await;
}

/// Unless it is noticed before that the instance is dead: then the caller hears so.
#[tokio::test]
async fn a_call_is_answered_although_the_instance_that_had_it_is_dead() {
    let mut fleet = Fleet::with(&[]).await;
    let mut tries = 0;
    loop {
        let mut page = Page::opens(&fleet[0], "user_id=ann").await;
        let asked = json!({"to": {"socketId": page.id()}, "event": "x", "data": 1, "timeoutMs": 15_000});
        let asking = tokio::spawn(fleet[1].post("/api/call", &asked).into_future());
        let call = page.client.hears().await;
        fleet.kill(0);
        let (id, token) = page.breaks();
        let mut page = Page::comes(&fleet[2], "user_id=ann", &token, 0).await;
        assert_eq!(page.id(), id);
        let reply = json!({"type": "reply", "callId": call["callId"], "data": "yes"});
        page.client.says(reply.to_string()).await;
        let answer = asking.await.unwrap();
        page.client.leaves().await;
        if answer.status == 200 {
            assert_eq!(answer.json()["result"], "yes");
            break;
        }
        answer.refuses(502, "Owner lost");
        tries += 1;
        assert!(tries < 5, "{}", answer.text());
        fleet.restart(0).await;
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn who_is_away_takes_no_place_and_comes_back_as_a_newcomer() {
    let fleet = Fleet::with(&[("MAX_SOCKETS_PER_USER", "1")]).await;
    let (id, token) = Page::opens(&fleet[0], "user_id=ann&client_id=a").await.breaks();
    is_away(&fleet[1], &id, "connection_lost").await;
    let mut second = fleet[1].greeted("/ws?user_id=ann&client_id=b").await;
    second.heard_all().await;
    let mut back = Page::comes(&fleet[2], "user_id=ann&client_id=a", &token, 0).await;
    assert_eq!((back.id(), back.reset), (id.as_str(), false));
    assert_eq!(second.closed().await.0, 4410);
    back.client.heard_all().await;
    assert_eq!(fleet[0].get("/api/users/ann").await.json()["count"], 1);
    fleet.is_sound().await;
}

#[tokio::test]
async fn without_redis_nobody_is_taken_for_who_they_were() {
    let fleet = Fleet::with(&[]).await;
    let (id, token) = Page::opens(&fleet[0], "user_id=ann").await.breaks();
    is_away(&fleet[1], &id, "connection_lost").await;
    fleet.redis().stop();
    let page = Page::comes(&fleet[1], "user_id=ann", &token, 0).await;
    assert!(page.reset && page.id() != id, "{}", page.hi);
    fleet.redis().cont();
    fleet.hears().await;
    // Nothing was lost by that: it is away still, or again.
    let mut back = None;
    within(MENDED, "it comes back", async || {
        let page = Page::comes(&fleet[2], "user_id=ann", &token, 0).await;
        let is_it = page.id() == id;
        back = Some(page);
        if is_it { Ok(()) } else { Err("it is somebody new".to_owned()) }
    })
    .await;
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_registry_in_memory_remembers_for_as_long_as_its_process() {
    let gateway = Gateway::start().await;
    for _ in 0..3 {
        let (id, token) = Page::opens(&gateway, "user_id=ann&store_id=s&client_id=t").await.breaks();
        is_away(&gateway, &id, "connection_lost").await;
        let mut page = Page::comes(&gateway, "user_id=ann", &token, 0).await;
        assert_eq!((page.id(), page.reset), (id.as_str(), false));
        is_called(&gateway, &mut page, &[json!({"socketId": id}), json!({"storeId": "s"})]).await;
        let mut again = Page::comes(&gateway, "user_id=ann", page.token(), 0).await;
        assert_eq!((again.id(), again.reset, page.hears_close().await), (id.as_str(), false, 4409));
        is_called(&gateway, &mut again, &[json!({"storeId": "s"})]).await;
        is_used_up(page.token(), &mut again, [&gateway, &gateway]).await;
        again.client.leaves().await;
        is_closed(&gateway, &id, "client_closed").await;
    }
    gateway.is_unharmed().await;
}

/// It may never come back, and somebody else is there.
#[tokio::test]
async fn a_queued_call_does_not_wait_for_who_is_away() {
    let fleet = Fleet::with(&[]).await;
    let asked = json!({"storeId": "s", "event": "x", "whenOffline": "queue", "timeoutMs": 30_000});
    let queued = fleet[0].post("/api/call", &asked).await;
    assert_eq!(queued.status, 202, "{}", queued.text());
    let mut first = Page::opens(&fleet[1], "user_id=ann&store_id=s").await;
    assert_eq!(first.client.hears().await["attempt"], 1);
    let mut second = fleet[2].greeted("/ws?user_id=bob&store_id=s").await;
    drop(first);
    assert_eq!(replies(&mut second).await["attempt"], 2);
    let call = queued.json()["callId"].as_str().unwrap().to_owned();
    eventually("its outcome is told", async || {
        let outcome = fleet[0].get(&format!("/api/calls/{call}")).await.json();
        (outcome["result"] == "yes").then_some(())
    })
    .await;
    fleet.is_sound().await;
}
