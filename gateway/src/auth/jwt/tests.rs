//! What is good and what is not, claim by claim. The keys and signatures of the three public-key
//! algorithms were made once by OpenSSL; their private halves are gone. Tokens with other claims are
//! signed here, by a secret.

use super::*;
use proptest::prelude::*;
use ring::hmac;
use serde_json::json;

pub const NOW: u64 = 1_700_000_000_000;
pub const SECRET: &str = "a secret of at least thirty-two bytes";

/// `{"sub":"ada","exp":4102444800,"stores":["s1"]}`.
const ADA: &str = "eyJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDAsInN0b3JlcyI6WyJzMSJdfQ";
const ADA_EXPIRES_AT: u64 = 4_102_444_800_000;

pub const RSA: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAjDR1JsjYOIid212ppnU/
BQ5+ZHPDjgkMjx2jdN1aC+ZL9KXa4Z/L4wVstzo7kBB3ERCn2opM6ilpfuSelJ8X
5QYweVRJYwyMWq8BieTK7ceWDO53PqedZL5d3N6rfDd3j766ayv2vGX/a4EXMvP0
W9WcJ2OoarCOM5vy/MfRzgUyEWWCJyH8+Vn+jsv9AL7DQfcZhAA/0rKZ3pRMxxQm
qLOvCVU5bozoVr9r5EO8CNMdYB/HWEKHfD5AFaJfh5TSQxHgmVznH3QVzrs1t9m5
OZabtecS/wcJB0PKOqHLoT6DNXJzgxSLJWCoKPM+tJfO9TBeq5LRlm+8TmRfjQGP
jwIDAQAB
-----END PUBLIC KEY-----";
const RSA_PKCS1: &str = "-----BEGIN RSA PUBLIC KEY-----
MIIBCgKCAQEAjDR1JsjYOIid212ppnU/BQ5+ZHPDjgkMjx2jdN1aC+ZL9KXa4Z/L
4wVstzo7kBB3ERCn2opM6ilpfuSelJ8X5QYweVRJYwyMWq8BieTK7ceWDO53Pqed
ZL5d3N6rfDd3j766ayv2vGX/a4EXMvP0W9WcJ2OoarCOM5vy/MfRzgUyEWWCJyH8
+Vn+jsv9AL7DQfcZhAA/0rKZ3pRMxxQmqLOvCVU5bozoVr9r5EO8CNMdYB/HWEKH
fD5AFaJfh5TSQxHgmVznH3QVzrs1t9m5OZabtecS/wcJB0PKOqHLoT6DNXJzgxSL
JWCoKPM+tJfO9TBeq5LRlm+8TmRfjQGPjwIDAQAB
-----END RSA PUBLIC KEY-----";
pub const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC7n7S/1z6umeL2DJv3SYiLIiJh
H3S4OjlyWy5J9Kk80I3T6n/9pmXyPQEycKoluD7w3jTID9j9IjvM/rw5r1JEjR2J
apYkYmBzXuHVED1qA4stXhY6l5sY9aCxmsHatKEJQTZkYdQc6VxwQWfRygdqc5/W
WRjHyaZCz0/kO+siyQIDAQAB
-----END PUBLIC KEY-----";
pub const P256: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE+m8ipCT3O59MUma3cy/YRJGjw6SZ
BTrz4m+Fs427Y+6pD9POVa1uwiVM2WGUlW+cW95jG57+ez9myt4+gg5G4Q==
-----END PUBLIC KEY-----";
pub const P384: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAE39M5Xs1Fek/WDRPBjqQcGqfd1mzRRd/t
g1OV+JHZZGG/PPCcsticxAtt2IvvZecd8+k+lqbRUPouOOn00P0a59b2cRmXflX2
pkaSMyv/FLfNN6jX4FoXtQF5HDtU8St3
-----END PUBLIC KEY-----";
const SECP256K1: &str = "-----BEGIN PUBLIC KEY-----
MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAE8ZZTLBA3Fc6HuNThl+ChN5pPPDhQTQ+W
jJUHbHHER8ZbiLG+ZpE3NxKHJz6QHLifDoxF0qC70qTK8lD7+SKIQg==
-----END PUBLIC KEY-----";
pub const ED25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA6+rJZTNMzRoDF6BIPYA5oMhZJnZ0IvkNpiJHuoS03D8=
-----END PUBLIC KEY-----";
pub const X25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VuAyEAJyGNoMRUMscUtSN9wVDSz4+yDpRuaumDqXaajeesmEk=
-----END PUBLIC KEY-----";
pub const RS256: &str = "KkH-iRHJPHh_ZLJJMb4DMvA_b-blsxETLrXt9oYAWv6RD1b4M1Xt2srsmgDFcDJzEeJ6BwJ5LfmJlj-hpKzNksOclU0VJptfYneQ\
    1EChD15OoJzp42N8IUcM685N_4j6awxMyTAUD1ZSifb0xcFRJ-_4pojJu6pVhAxWFlrwPTwabTfd6qckARYHTvjfr8ZSGNpWcu7y\
    LNOPIRhqERvCY2uDHyD16JyJANnSElsHueUuXx8noeojjLSJyCv_fEggORCNECPKRKid4HfHKSBCkeN7iF63NNRilaMVJK3ci1DQ\
    Bb2ChF3pZk7_BjApigG4M7ZN1LI4PeA9HILboQ-J-w";
pub const ES256: &str = "OrBT-je9EuwyFkyo5-Irn4Ml8m2e3oM9wpBsKKuErKOjxlbiWaTn6sAk2JZn3Tv3lMBZJidOl3gQRGNrSdV7wA";
pub const EDDSA: &str = "r_7kHyIP3Rh2AKE02mt8E9H0TcKIowKAy5lHq7AekJ5ovYp1jAZX9kA-WZjMEwHjP1EFj9PdTyUG2Je4XKM2Ag";

/// The example of RFC 8410, so nobody's.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----";

pub fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

pub fn signed_with(secret: &str, head: &Value, claims: &str) -> String {
    let message = format!("{}.{}", part(head), URL_SAFE_NO_PAD.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
    format!("{message}.{signature}")
}

fn signed(claims: &Value) -> String {
    signed_with(SECRET, &json!({"alg": "HS256", "typ": "JWT"}), &claims.to_string())
}

/// The claims of a good token, but for these.
fn but(changes: &Value) -> String {
    let mut claims = json!({"sub": "ada", "exp": NOW / 1000 + 60});
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    signed(&claims)
}

pub fn by_secret() -> Rules {
    Rules::new(Some(&Secret::new(SECRET)), None, None, None).unwrap()
}

fn by_key(pem: &str) -> Rules {
    Rules::new(None, Some(pem), None, None).unwrap()
}

pub fn by_openssl(alg: &str, signature: &str) -> String {
    format!("{}.{ADA}.{signature}", URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#)))
}

/// Each algorithm with its rules and a good token.
fn all_four() -> [(&'static str, Rules, String); 4] {
    [
        ("HS256", by_secret(), signed_with(SECRET, &json!({"alg": "HS256"}), &decoded(ADA))),
        ("RS256", by_key(RSA), by_openssl("RS256", RS256)),
        ("ES256", by_key(P256), by_openssl("ES256", ES256)),
        ("EdDSA", by_key(ED25519), by_openssl("EdDSA", EDDSA)),
    ]
}

fn decoded(part: &str) -> String {
    String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn stores(names: &[&str]) -> Option<Vec<StoreName>> {
    Some(names.iter().map(|name| StoreName::parse(name).unwrap()).collect())
}

#[test]
fn each_of_the_four_algorithms_lets_its_bearer_in() {
    let ada = Claims {
        user: UserName::parse("ada").unwrap(),
        stores: stores(&["s1"]),
        rooms: None,
        scopes: Vec::new(),
        expires_at: ADA_EXPIRES_AT,
    };
    for (name, rules, token) in all_four() {
        assert_eq!(rules.read(&token, None, NOW), Ok(ada.clone()), "{name}");
    }
    assert_eq!(by_key(RSA_PKCS1).read(&by_openssl("RS256", RS256), None, NOW), Ok(ada));
}

#[test]
fn no_key_takes_a_token_of_another() {
    for (of_rules, rules, _) in all_four() {
        for (of_token, _, token) in all_four() {
            let expected = if of_rules == of_token { None } else { Some(Unfit::Algorithm) };
            assert_eq!(rules.read(&token, None, NOW).err(), expected, "{of_token} by the rules of {of_rules}");
        }
    }
}

#[test]
fn a_token_does_not_choose_how_it_is_checked() {
    let both = Rules::new(Some(&Secret::new(SECRET)), Some(P256), None, None).unwrap();
    let hs256 = json!({"alg": "HS256"});
    for alg in ["none", "None", "", "HS384", "HS512", "RS384", "PS256", "ES384", "ES256K", "hs256"] {
        let head = part(&json!({"alg": alg}));
        for (name, rules, _) in all_four().into_iter().chain([("both", both.clone(), String::new())]) {
            for token in [format!("{head}.{ADA}."), format!("{head}.{ADA}.{ES256}")] {
                assert_eq!(rules.read(&token, None, NOW), Err(Unfit::Algorithm), "{alg:?} by the rules of {name}");
            }
        }
    }
    for pem in [RSA, P256, ED25519, RSA_PKCS1] {
        for secret in [pem, pem.trim(), &format!("{pem}\n"), ""] {
            let token = signed_with(secret, &hs256, &decoded(ADA));
            assert_eq!(by_key(pem).read(&token, None, NOW), Err(Unfit::Algorithm));
            let both = Rules::new(Some(&Secret::new(SECRET)), Some(pem), None, None).unwrap();
            assert_eq!(both.read(&token, None, NOW), Err(Unfit::Signature));
        }
    }
    // One signature under the name of another algorithm.
    for (name, rules, _) in all_four() {
        for signature in ["", RS256, ES256, EDDSA] {
            let token = by_openssl(name, signature);
            let own = matches!((name, signature), ("RS256", RS256) | ("ES256", ES256) | ("EdDSA", EDDSA));
            assert_eq!(rules.read(&token, None, NOW).err(), (!own).then_some(Unfit::Signature), "{name}");
        }
    }
}

#[test]
fn with_two_keys_the_algorithm_picks_among_these() {
    for (pem, token) in
        [(RSA, by_openssl("RS256", RS256)), (P256, by_openssl("ES256", ES256)), (ED25519, by_openssl("EdDSA", EDDSA))]
    {
        let both = Rules::new(Some(&Secret::new(SECRET)), Some(pem), None, None).unwrap();
        assert!(both.read(&token, None, NOW).is_ok() && both.read(&but(&json!({})), None, NOW).is_ok());
    }
    let other = signed_with("another secret, as long as the first one", &json!({"alg": "HS256"}), &decoded(ADA));
    assert_eq!(by_secret().read(&other, None, NOW), Err(Unfit::Signature));
}

#[test]
fn the_key_id_and_what_a_header_offers_as_a_key_are_not_looked_at() {
    let jwk = json!({"kty": "oct", "k": "AAAA", "alg": "HS256"});
    let head = json!({"alg": "HS256", "kid": "../../dev/null", "jku": "https://evil.example", "jwk": jwk});
    assert!(by_secret().read(&signed_with(SECRET, &head, &decoded(ADA)), None, NOW).is_ok());
    assert_eq!(by_secret().read(&signed_with("\0\0\0", &head, &decoded(ADA)), None, NOW), Err(Unfit::Signature));
    let head = json!({"alg": "HS256", "crit": ["exp"]});
    assert_eq!(by_secret().read(&signed_with(SECRET, &head, &decoded(ADA)), None, NOW), Err(Unfit::Critical));
}

#[test]
fn a_token_is_good_until_its_millisecond_and_not_in_it() {
    let seconds = NOW / 1000;
    for (exp, expires_at) in [
        (json!(seconds + 1), NOW + 1000),
        (json!(1_700_000_000.001), NOW + 1),
        (json!(1_700_000_000.123), NOW + 123),
        (json!(1_700_000_000.5), NOW + 500),
        (json!(1e10), 10_000_000_000_000),
        (json!(u64::MAX), LATEST_MS),
        (json!(1e300), LATEST_MS),
    ] {
        let token = but(&json!({"exp": exp}));
        let read = |now| by_secret().read(&token, None, now).map(|claims| claims.expires_at);
        assert_eq!(read(NOW), Ok(expires_at), "{exp}");
        assert_eq!(read(expires_at - 1), Ok(expires_at), "{exp}");
        assert_eq!(read(expires_at), Err(Unfit::Expired), "{exp}");
        assert_eq!(read(u64::MAX), Err(Unfit::Expired), "{exp}");
    }
}

/// Checklist: no exp, string exp, nbf in the future, nobody's, names that are none.
#[test]
fn each_claim_has_its_own_fault() {
    let seconds = NOW / 1000;
    let long = "n".repeat(257);
    for (changes, fault) in [
        (json!({"exp": null}), Unfit::NoExpiry),
        (json!({"exp": (seconds + 60).to_string()}), Unfit::Malformed),
        (json!({"exp": [seconds + 60]}), Unfit::Malformed),
        (json!({"exp": {"at": seconds + 60}}), Unfit::Malformed),
        (json!({"exp": true}), Unfit::Malformed),
        (json!({"exp": seconds}), Unfit::Expired),
        (json!({"exp": 0}), Unfit::Expired),
        (json!({"exp": -1}), Unfit::Expired),
        (json!({"exp": i64::MIN}), Unfit::Expired),
        (json!({"exp": -1e300}), Unfit::Expired),
        (json!({"nbf": seconds + 1}), Unfit::NotYet),
        (json!({"nbf": 1_700_000_000.001}), Unfit::NotYet),
        (json!({"nbf": u64::MAX}), Unfit::NotYet),
        (json!({"nbf": seconds.to_string()}), Unfit::Malformed),
        (json!({"nbf": [0]}), Unfit::Malformed),
        (json!({"sub": null}), Unfit::NoUser),
        (json!({"sub": ""}), Unfit::NoUser),
        (json!({"sub": " \t"}), Unfit::NoUser),
        (json!({"sub": "anonymous"}), Unfit::NoUser),
        (json!({"sub": ["ada"]}), Unfit::Malformed),
        (json!({"sub": {"id": "ada"}}), Unfit::Malformed),
        (json!({"sub": true}), Unfit::Malformed),
        (json!({"sub": 1.5}), Unfit::Malformed),
        (json!({"sub": 1e30}), Unfit::Malformed),
        (json!({"sub": long}), Unfit::NoUser),
        (json!({"sub": "a\nb"}), Unfit::NoUser),
        (json!({"sub": "undefined"}), Unfit::NoUser),
        (json!({"stores": 1}), Unfit::Names),
        (json!({"stores": {}}), Unfit::Names),
        (json!({"stores": false}), Unfit::Names),
        (json!({"stores": ["s1", 2]}), Unfit::Names),
        (json!({"stores": ["s1", null]}), Unfit::Names),
        (json!({"rooms": null}), Unfit::Names),
        (json!({"stores": ["s1", [""]]}), Unfit::Names),
        (json!({"stores": ""}), Unfit::Names),
        (json!({"stores": ["s1", ""]}), Unfit::Names),
        (json!({"stores": [long]}), Unfit::Names),
        (json!({"rooms": "a\u{0}b"}), Unfit::Names),
        (json!({"rooms": [":room"]}), Unfit::Names),
        (json!({"rooms": 7}), Unfit::Names),
    ] {
        assert_eq!(by_secret().read(&but(&changes), None, NOW), Err(fault), "{changes}");
    }
    assert_eq!(by_secret().read(&signed(&json!({"sub": "ada"})), None, NOW), Err(Unfit::NoExpiry));
    assert_eq!(by_secret().read(&signed(&json!({"exp": seconds + 1})), None, NOW), Err(Unfit::NoUser));
}

#[test]
fn users_stores_and_rooms_in_every_spelling() {
    for (sub, user) in [
        (json!("ada"), "ada"),
        (json!("Anonymous"), "Anonymous"),
        (json!(42), "42"),
        (json!(-7), "-7"),
        (json!(u64::MAX), "18446744073709551615"),
    ] {
        let claims = by_secret().read(&but(&json!({"sub": sub})), None, NOW).unwrap();
        assert_eq!(claims.user.as_str(), user);
    }
    let claims = by_secret().read(&but(&json!({"stores": null})), None, NOW).unwrap();
    assert!(claims.stores.is_none() && claims.rooms.is_none());
    for (given, expected) in
        [(json!([]), stores(&[])), (json!("s1"), stores(&["s1"])), (json!(["s1", "s2"]), stores(&["s1", "s2"]))]
    {
        let claims = by_secret().read(&but(&json!({"stores": given, "rooms": given})), None, NOW).unwrap();
        let rooms = claims.rooms.map(|rooms| rooms.iter().map(|room| room.as_str().to_owned()).collect::<Vec<_>>());
        let as_text = |stores: &Vec<StoreName>| stores.iter().map(|store| store.as_str().to_owned()).collect();
        assert_eq!(rooms, expected.as_ref().map(as_text), "{given}");
        assert_eq!(claims.stores, expected, "{given}");
    }
    for nbf in [json!(null), json!(NOW / 1000), json!(1_700_000_000.0), json!(-5)] {
        assert!(by_secret().read(&but(&json!({"nbf": nbf})), None, NOW).is_ok(), "{nbf}");
    }
}

#[test]
fn a_token_that_names_a_scope_of_ours_is_for_that_alone() {
    for (claims, may) in [
        (json!({"scope": null, "scp": []}), Ok(true)),
        (json!({"scope": "openid profile"}), Ok(true)),
        (json!({"scope": "openid  connect"}), Ok(true)),
        (json!({"scope": "call", "scp": ["openid", "connect"]}), Ok(true)),
        (json!({"scp": ["admin"]}), Ok(false)),
        (json!({"scope": "call Connect"}), Ok(false)),
        (json!({"scope": 7}), Err(Unfit::Malformed)),
        (json!({"scp": ["connect", 7]}), Err(Unfit::Malformed)),
    ] {
        let read = by_secret().read(&but(&claims), None, NOW);
        assert_eq!(read.map(|claims| claims.may(Scope::Connect)), may, "{claims}");
    }
}

#[test]
fn issuer_and_audience_count_when_they_are_set() {
    let secret = Secret::new(SECRET);
    let strict = Rules::new(Some(&secret), None, Some("https://id.example"), Some("gateway")).unwrap();
    let (iss, aud) = (json!("https://id.example"), json!("gateway"));
    for (iss, aud, fault) in [
        (&iss, &aud, None),
        (&iss, &json!(["gateway"]), None),
        (&iss, &json!([1, "other", "gateway"]), None),
        (&Value::Null, &aud, Some(Unfit::Issuer)),
        (&json!("https://id.example/"), &aud, Some(Unfit::Issuer)),
        (&json!("HTTPS://id.example"), &aud, Some(Unfit::Issuer)),
        (&json!(["https://id.example"]), &aud, Some(Unfit::Issuer)),
        (&json!(1), &aud, Some(Unfit::Issuer)),
        (&iss, &Value::Null, Some(Unfit::Audience)),
        (&iss, &json!("gateways"), Some(Unfit::Audience)),
        (&iss, &json!([]), Some(Unfit::Audience)),
        (&iss, &json!(["other"]), Some(Unfit::Audience)),
        (&iss, &json!([["gateway"]]), Some(Unfit::Audience)),
        (&iss, &json!({"gateway": "gateway"}), Some(Unfit::Audience)),
        (&iss, &json!(7), Some(Unfit::Audience)),
    ] {
        let token = but(&json!({"iss": iss, "aud": aud}));
        assert_eq!(strict.read(&token, None, NOW).err(), fault, "{iss} {aud}");
        assert!(by_secret().read(&token, None, NOW).is_ok(), "not looked at: {iss} {aud}");
    }
    assert_eq!(strict.read(&but(&json!({})), None, NOW), Err(Unfit::Issuer));
}

#[test]
fn what_is_no_token_is_malformed() {
    let good = but(&json!({}));
    let (head, claims) = (part(&json!({"alg": "HS256"})), json!({"sub": "ada", "exp": NOW}));
    let texts = ["{}", "[]", "null", "\"x\"", "1", "", "{", "{\"alg\":1}", "{\"alg\":null}", "{\"typ\":\"JWT\"}"];
    let heads = texts.map(|text| format!("{}.{}.", URL_SAFE_NO_PAD.encode(text), part(&claims)));
    let twice = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","alg":"none"}"#);
    let parts = [
        "".into(),
        ".".into(),
        "..".into(),
        "...".into(),
        head.clone(),
        format!("{head}.{ADA}"),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{good}"),
        format!("{good}="),
        format!(" {good}"),
        format!("{twice}.{ADA}."),
        "é.é.é".into(),
        "hf_not_a_token".into(),
    ];
    for token in heads.iter().chain(&parts) {
        assert_eq!(by_secret().read(token, None, NOW), Err(Unfit::Malformed), "{token}");
    }
    // Signed, and yet nothing that could be claims.
    let deep = format!("{{\"sub\":\"ada\",\"exp\":9e9,\"aud\":{}{}}}", "[".repeat(500), "]".repeat(500));
    let doubled = r#"{"sub":"ada","sub":"bob","exp":9e9}"#;
    let positional = r#"[9e9,null,null,null,"ada",null,null]"#;
    for claims in ["", "[]", "null", "ada", "{", r#"{"exp":1e400,"sub":"ada"}"#, &deep, doubled, positional] {
        let token = signed_with(SECRET, &json!({"alg": "HS256"}), claims);
        assert_eq!(by_secret().read(&token, None, NOW), Err(Unfit::Malformed), "{claims}");
    }
}

#[test]
fn nine_kilobytes_are_too_long_whatever_they_say() {
    let filled = |bytes: usize| but(&json!({"more": "m".repeat(bytes)}));
    assert!(by_secret().read(&filled(5000), None, NOW).is_ok());
    for token in [filled(9000), ".".repeat(TOKEN_BYTES_MAX + 1), "é".repeat(TOKEN_BYTES_MAX)] {
        assert_eq!(by_secret().read(&token, None, NOW), Err(Unfit::TooLong));
    }
    assert_eq!(by_secret().read(&"A".repeat(TOKEN_BYTES_MAX), None, NOW), Err(Unfit::Malformed));
}

#[test]
fn a_key_that_is_none_is_refused_with_the_fix() {
    let cut = &P256[..100];
    let off_curve = P256.replace("AE+m8i", "AE+m8j");
    for (pem, word) in [
        (PRIVATE, "private key"),
        ("-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----", "private key"),
        ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----", "private key"),
        (&format!("{P256}\n{PRIVATE}"), "private key"),
        ("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----", "certificate"),
        (&format!("{P256}\n{RSA}"), "several keys"),
        (RSA_1024, "2048"),
        (P384, "another curve"),
        (SECP256K1, "another curve"),
        (&off_curve, "another curve"),
        (X25519, "no public key in PEM"),
        (cut, "no public key in PEM"),
        (SECRET, "no public key in PEM"),
        ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOvqyWUzTM0aAxegSD2AOaDIWSZ2dCL5DaYiR7qEtNw/ a@b", "no public key"),
        ("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----", "no public key in PEM"),
        ("", "no public key in PEM"),
    ] {
        let sentence = Rules::new(None, Some(pem), None, None).unwrap_err();
        assert!(sentence.contains(word), "{pem}: {sentence}");
    }
}

#[test]
fn a_short_secret_works_and_is_warned_of_without_being_shown() {
    let secret = "hushhush";
    let short = Rules::new(Some(&Secret::new(secret)), None, None, None).unwrap();
    let token = signed_with(secret, &json!({"alg": "HS256"}), &decoded(ADA));
    assert!(short.read(&token, None, NOW).is_ok());
    assert!(short.warnings()[0].contains("JWT_SECRET") && short.warnings().len() == 1);
    assert!(by_secret().warnings().is_empty() && by_key(RSA).warnings().is_empty());
    assert!(!format!("{short:?}").contains(secret) && !short.warnings()[0].contains(secret));
    assert!(!format!("{short:?}").contains(&format!("{:?}", secret.as_bytes())));
}

#[test]
fn no_single_byte_of_a_good_token_can_be_changed() {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \0\n";
    for (name, rules, token) in all_four() {
        // A check by RSA costs so much that only every seventh place has its turn.
        let step = if name == "HS256" { 1 } else { 7 };
        let last = token.len() - 1;
        for at in (0..token.len()).filter(|at| at % step == 0 || *at == last) {
            // The last character has bits that say nothing, so it is tried with all.
            let others = if at == last { ALPHABET } else { &ALPHABET[at % 60..][..4] };
            for byte in others.iter().filter(|byte| **byte != token.as_bytes()[at]) {
                let mut changed = token.clone().into_bytes();
                changed[at] = *byte;
                let changed = String::from_utf8(changed).unwrap();
                assert!(rules.read(&changed, None, NOW).is_err(), "{name}: {} at {at}", *byte as char);
            }
        }
    }
}

fn any_claim() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::hash_map("[a-z]{0,3}", inner, 0..3).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_or_comes_in(text in ".{0,300}", now in any::<u64>()) {
        for (_, rules, _) in all_four() {
            prop_assert!(rules.read(&text, None, now).is_err());
        }
    }

    #[test]
    fn no_three_parts_make_it_panic_or_come_in(
        head in prop_oneof![
            Just(br#"{"alg":"HS256"}"#.to_vec()),
            Just(br#"{"alg":"EdDSA"}"#.to_vec()),
            prop::collection::vec(any::<u8>(), 0..60),
        ],
        claims in prop::collection::vec(any::<u8>(), 0..100),
        signature in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let token = [head, claims, signature].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        for rules in [by_secret(), by_key(ED25519)] {
            prop_assert!(rules.read(&token, None, NOW).is_err());
        }
    }

    #[test]
    fn whatever_was_signed_is_read_by_the_rules_or_refused(
        claims in prop::collection::hash_map("exp|nbf|iss|aud|sub|stores|rooms|[a-z]{1,3}", any_claim(), 0..8),
        now in any::<u64>(),
    ) {
        let token = signed(&claims.clone().into_iter().collect());
        if let Ok(read) = by_secret().read(&token, None, now) {
            prop_assert!(read.expires_at > now && claims["exp"].is_number());
            prop_assert!(claims["sub"].is_string() || claims["sub"].is_number());
        }
    }

    #[test]
    fn no_key_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..91_usize, with: u8) {
        let pem = |der: &[u8]| {
            let der = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")
        };
        let _ = Rules::new(None, Some(&pem(&bytes)), None, None);
        let base64: String = P256.lines().filter(|line| !line.starts_with('-')).collect();
        let mut der = base64::engine::general_purpose::STANDARD.decode(base64).unwrap();
        der[at] = with;
        let _ = Rules::new(None, Some(&pem(&der)), None, None);
    }
}
