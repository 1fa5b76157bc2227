//! What clients write into headers to pass for somebody else, and what comes of it.

use crate::{gateway::Gateway, patience::eventually};
use serde_json::json;

/// Proxies at 10.0.0.0/8 and in one network of IPv6; the TCP peer of every fact is 127.0.0.1.
const PROXIES: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8, 2001:db8:1::/48");

/// Whose address it is taken for, by the log of the socket that it opens.
async fn address_of(gateway: &mut Gateway, lines: &[&str]) -> String {
    let knock = lines.iter().fold(gateway.knock("/ws"), |knock, line| knock.with("X-Forwarded-For", line));
    let mut raw = gateway.raw().await;
    raw.write(&knock.bytes()).await;
    assert_eq!(raw.answer().await.status, 101, "{lines:?}");
    let id = raw.is_greeted().await["socketId"].as_str().unwrap().to_owned();
    let opened = gateway.logs(&["WebSocket opened", &id]).await;
    let (_, address) = opened.split_once("address=\"").unwrap();
    address.split_once('"').unwrap().0.to_owned()
}

#[tokio::test]
async fn a_client_is_the_nearest_whom_no_proxy_of_ours_is() {
    let mut gateway = Gateway::with([PROXIES]).await;
    let crowd = ["192.0.2.1"; 300].join(", ");
    let chain = format!("6.6.6.6, 192.0.2.1, {}", ["10.1.2.3"; 300].join(","));
    for (lines, address) in [
        (&[][..], "127.0.0.1"),
        (&["192.0.2.1"], "192.0.2.1"),
        (&["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
        (&["127.0.0.1, 192.0.2.1"], "192.0.2.1"),
        (&["192.0.2.1, 10.0.0.5"], "192.0.2.1"),
        (&["6.6.6.6 , 192.0.2.1,10.0.0.5,\t10.0.0.6"], "192.0.2.1"),
        // Lines are read as one list.
        (&["6.6.6.6", "192.0.2.1"], "192.0.2.1"),
        (&["6.6.6.6, 192.0.2.1", "10.0.0.5"], "192.0.2.1"),
        // With ports, in brackets, and IPv4 in the dress of IPv6.
        (&["192.0.2.1:5555"], "192.0.2.1"),
        (&["2001:db8::1"], "2001:db8::1"),
        (&["[2001:db8::1]"], "2001:db8::1"),
        (&["[2001:db8::1]:5555"], "2001:db8::1"),
        (&["::ffff:192.0.2.1"], "192.0.2.1"),
        (&["6.6.6.6, 192.0.2.1, ::ffff:10.0.0.5"], "192.0.2.1"),
        (&["192.0.2.9, 2001:db8:1::5, [2001:db8:1:2::5]:80"], "192.0.2.9"),
        (&["192.0.2.9, 2001:db8:2::5"], "2001:db8:2::5"),
        // All of them are ours: the furthest.
        (&["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
        // Garbage ends the walk where it stands; what is further is not believed.
        (&["unknown"], "127.0.0.1"),
        (&[""], "127.0.0.1"),
        (&[","], "127.0.0.1"),
        (&["192.0.2.1, unknown"], "127.0.0.1"),
        (&["192.0.2.1, _hidden, 10.0.0.5"], "10.0.0.5"),
        (&["192.0.2.1, 10.0.0.5, "], "127.0.0.1"),
        (&["6.6.6.6, 192.0.2.1%eth0"], "127.0.0.1"),
        (&["6.6.6.6, 192.0.2"], "127.0.0.1"),
        (&["6.6.6.6, 192.0.2.01"], "127.0.0.1"),
        (&["6.6.6.6, 192.0.2.1:99999"], "127.0.0.1"),
        (&["6.6.6.6, \"192.0.2.1\""], "127.0.0.1"),
        (&["6.6.6.6, for=192.0.2.1"], "127.0.0.1"),
        // What is no text stands for itself alone, and hides nothing that a proxy wrote behind it.
        (&["\u{e9}, 192.0.2.1"], "192.0.2.1"),
        (&["\u{e9}", "192.0.2.1"], "192.0.2.1"),
        (&["6.6.6.6", "\u{e9}"], "127.0.0.1"),
        (&["6.6.6.6, \u{e9}, 10.0.0.5"], "10.0.0.5"),
        (&[crowd.as_str()], "192.0.2.1"),
        (&[chain.as_str()], "192.0.2.1"),
    ] {
        assert_eq!(address_of(&mut gateway, lines).await, address, "{lines:?}");
    }
    let mut wary = Gateway::with([("TRUSTED_PROXIES", "192.0.2.0/24")]).await;
    for line in ["192.0.2.1", "6.6.6.6, 192.0.2.1", "10.0.0.5"] {
        assert_eq!(address_of(&mut wary, &[line]).await, "127.0.0.1", "{line}");
    }
}

/// Other headers of proxies say nothing about addresses here.
#[tokio::test]
async fn no_other_header_names_an_address() {
    let gateway = Gateway::with([PROXIES, ("RATE_CONNECT", "1/s")]).await;
    let mut n = 0;
    eventually("all are one address", async || {
        n = n % 200 + 1;
        let mut ask = gateway.get("/api/handshake?path=/ws");
        for name in ["X-Real-IP", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP", "X-Cluster-Client-IP"] {
            ask = ask.with(name, &format!("192.0.2.{n}"));
        }
        (ask.with("Forwarded", &format!("for=192.0.2.{n}")).await.status == 429).then_some(())
    })
    .await;
}

/// Whoever has a network of IPv6 has one limit, and not one for each of its addresses.
#[tokio::test]
async fn a_network_of_ipv6_has_one_limit() {
    let gateway = Gateway::with([("RATE_CONNECT", "1/s")]).await;
    let check = |address: &str| gateway.get("/api/handshake?path=/ws").with("X-Forwarded-For", address);
    let mut n = 0;
    eventually("its addresses are one", async || {
        n += 1;
        let address = format!("2001:db8:0:1:{n:x}:{n:x}::{n:x}");
        (check(&address).await.status == 429).then_some(())
    })
    .await;
    for n in 2..20 {
        assert_eq!(check(&format!("2001:db8:0:{n:x}::1")).await.status, 200);
    }
}

/// A proxy that adds its own header behind a client's says two things, and neither counts.
#[tokio::test]
async fn who_somebody_is_is_said_once() {
    let gateway = Gateway::start().await;
    let told =
        |users: &[&str]| users.iter().fold(gateway.get("/api/auth/session"), |ask, user| ask.with("X-User-ID", user));
    assert_eq!(told(&["ann"]).await.json()["userId"], "ann");
    assert_eq!(told(&[" ann "]).await.json()["userId"], "ann");
    assert_eq!(told(&[""]).await.json()["userId"], json!(null));
    for two in [["root", "ann"], ["ann", "root"], ["", "ann"]] {
        told(&two).await.refuses(400, "Conflicting credentials");
    }
    let rooms = gateway.get("/api/handshake?path=/ws").with("X-Room-ID", "staff").with("X-Room-ID", "r").await;
    rooms.refuses(400, "Conflicting credentials");
}
