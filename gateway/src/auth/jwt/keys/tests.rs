//! Which keys of a set count, and which of them a token is held against.

use super::super::{
    Rules, Unfit,
    tests::{
        ED25519, EDDSA, ES256, NOW, P256, P384, RS256, RSA, RSA_1024, SECRET, X25519, by_openssl, by_secret, part,
        signed_with,
    },
};
use super::*;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::json;

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn der(pem: &str) -> Vec<u8> {
    STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap()
}

fn rsa() -> Value {
    let der = der(RSA);
    json!({"kty": "RSA", "n": text(&der[33..289]), "e": text(&der[291..])})
}

fn p256() -> Value {
    let der = der(P256);
    json!({"kty": "EC", "crv": "P-256", "x": text(&der[27..59]), "y": text(&der[59..])})
}

fn ed25519() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "x": text(&der(ED25519)[12..])})
}

/// One of them, with other members.
fn but(mut jwk: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        jwk[name] = value.clone();
    }
    jwk
}

fn set(keys: &[Value]) -> KeySet {
    read_set(json!({"keys": keys}).to_string().as_bytes()).unwrap()
}

/// Whoever signs with a key of their own.
struct Signer(Ed25519KeyPair);

impl Signer {
    fn fresh() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    fn jwk(&self, id: Option<&str>) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": text(self.0.public_key().as_ref())})
    }

    fn token(&self, id: Option<&str>) -> String {
        let head = json!({"alg": "EdDSA", "kid": id});
        let message = format!("{}.{}", part(&head), part(&json!({"sub": "ada", "exp": 9e9})));
        format!("{message}.{}", text(self.0.sign(message.as_bytes()).as_ref()))
    }
}

fn by_nothing() -> Rules {
    Rules::new(None, None, None, None).unwrap()
}

fn read(token: &str, set: &KeySet) -> Result<(), Unfit> {
    by_nothing().read(token, Some(&set.keys), NOW).map(drop)
}

#[test]
fn a_set_has_keys_for_three_algorithms() {
    let all = set(&[rsa(), p256(), ed25519()]);
    assert_eq!((all.keys.len(), all.skipped), (3, 0));
    let leading_zero = URL_SAFE_NO_PAD.encode([&[0], &der(RSA)[33..289]].concat());
    for (jwk, token) in [
        (rsa(), by_openssl("RS256", RS256)),
        (
            but(rsa(), &json!({"alg": "RS256", "use": "sig", "key_ops": ["verify"], "x5c": ["AAAA"], "more": {}})),
            by_openssl("RS256", RS256),
        ),
        (but(rsa(), &json!({"n": leading_zero})), by_openssl("RS256", RS256)),
        (p256(), by_openssl("ES256", ES256)),
        (but(p256(), &json!({"alg": "ES256", "key_ops": ["sign", "verify"], "kid": "a"})), by_openssl("ES256", ES256)),
        (ed25519(), by_openssl("EdDSA", EDDSA)),
        (but(ed25519(), &json!({"alg": "EdDSA", "use": null, "kid": ""})), by_openssl("EdDSA", EDDSA)),
    ] {
        assert_eq!(read(&token, &set(std::slice::from_ref(&jwk))), Ok(()), "{jwk}");
        assert_eq!(read(&token, &all), Ok(()), "{jwk}");
    }
    // One signature under the name of another algorithm.
    for (alg, signature) in [("RS256", ES256), ("ES256", RS256), ("EdDSA", RS256), ("RS256", "")] {
        assert_eq!(read(&by_openssl(alg, signature), &all), Err(Unfit::UnknownKey), "{alg}");
    }
}

#[test]
fn a_key_that_is_not_for_us_costs_itself_alone() {
    let (small, p384, x25519) = (der(RSA_1024), der(P384), der(X25519));
    let off_curve = text(&[7; 32]);
    let odd = [
        json!({"kty": "oct", "k": text(SECRET.as_bytes()), "alg": "HS256"}),
        json!({"kty": "RSA", "n": text(&small[29..157]), "e": "AQAB"}),
        json!({"kty": "RSA", "n": text(&[255; 1025]), "e": "AQAB"}),
        but(rsa(), &json!({"n": text(&[254; 256])})),
        but(rsa(), &json!({"e": "AQ"})),
        but(rsa(), &json!({"e": "AA"})),
        but(rsa(), &json!({"e": "BA"})),
        but(rsa(), &json!({"e": text(&[255; 5])})),
        but(rsa(), &json!({"n": "not base64!"})),
        but(rsa(), &json!({"n": null})),
        but(rsa(), &json!({"alg": "PS256"})),
        but(rsa(), &json!({"alg": "HS256"})),
        but(rsa(), &json!({"alg": "none"})),
        but(rsa(), &json!({"use": "enc"})),
        but(rsa(), &json!({"key_ops": ["encrypt"]})),
        but(rsa(), &json!({"key_ops": []})),
        but(rsa(), &json!({"kid": 7})),
        json!({"kty": "EC", "crv": "P-384", "x": text(&p384[24..72]), "y": text(&p384[72..])}),
        but(p256(), &json!({"crv": "secp256k1"})),
        but(p256(), &json!({"crv": null})),
        but(p256(), &json!({"y": off_curve})),
        but(p256(), &json!({"y": text(&[7; 31])})),
        but(p256(), &json!({"y": null})),
        but(p256(), &json!({"alg": "RS256"})),
        json!({"kty": "OKP", "crv": "X25519", "x": text(&x25519[12..])}),
        but(ed25519(), &json!({"x": text(&[7; 31])})),
        json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"}),
        json!({"kty": 1}),
        json!({}),
        json!(null),
        json!("key"),
    ];
    for jwk in &odd {
        let held = set(&[p256(), jwk.clone(), ed25519()]);
        assert_eq!((held.keys.len(), held.skipped, held.given_away), (2, 1, 0), "{jwk}");
    }
    // By the secret that somebody has published nobody is let in.
    let token = signed_with(SECRET, &json!({"alg": "HS256"}), &json!({"sub": "ada", "exp": 9e9}).to_string());
    assert_eq!(read(&token, &set(&odd[..1])), Err(Unfit::Algorithm));
}

#[test]
fn whoever_shows_its_private_half_is_believed_no_more() {
    let held = set(&[but(ed25519(), &json!({"d": "AAAA"})), but(rsa(), &json!({"d": ""})), p256()]);
    assert_eq!((held.keys.len(), held.skipped, held.given_away), (1, 0, 2));
    assert_eq!(read(&by_openssl("EdDSA", EDDSA), &held), Err(Unfit::UnknownKey));
}

#[test]
fn what_is_no_set_is_an_error_and_an_empty_one_is_none() {
    for odd in ["", "{}", "null", "[]", "x", "{\"keys\":{}}", "{\"keys\":null}", "{\"keys\":[}", "<html>"] {
        assert!(read_set(odd.as_bytes()).is_err(), "{odd}");
    }
    assert_eq!(set(&[]).keys.len(), 0);
    assert_eq!(read(&by_openssl("EdDSA", EDDSA), &set(&[])), Err(Unfit::UnknownKey));
}

#[test]
fn a_token_that_names_its_key_is_held_against_that_one() {
    let (one, two) = (Signer::fresh(), Signer::fresh());
    let named = set(&[one.jwk(Some("1")), two.jwk(Some("2")), but(p256(), &json!({"kid": "ec"}))]);
    for (signer, id, told) in [
        (&one, Some("1"), Ok(())),
        (&two, Some("2"), Ok(())),
        (&two, Some("1"), Err(Unfit::Signature)),
        (&two, Some("3"), Err(Unfit::UnknownKey)),
        (&two, Some(""), Err(Unfit::UnknownKey)),
        (&two, Some("ec"), Err(Unfit::Algorithm)),
        (&one, None, Ok(())),
        (&two, None, Ok(())),
        (&Signer::fresh(), None, Err(Unfit::UnknownKey)),
    ] {
        assert_eq!(read(&signer.token(id), &named), told, "{id:?}");
    }
    // Names that were given twice, and keys without one.
    let doubled = set(&[one.jwk(Some("1")), two.jwk(Some("1"))]);
    assert_eq!([&one, &two].map(|signer| read(&signer.token(Some("1")), &doubled)), [Ok(()); 2]);
    let nameless = set(&[one.jwk(None)]);
    assert_eq!([None, Some("1")].map(|id| read(&one.token(id), &nameless)), [Ok(()); 2]);
    assert_eq!(read(&two.token(Some("1")), &nameless), Err(Unfit::UnknownKey));
}

#[test]
fn a_key_that_was_set_counts_beside_those_of_the_set() {
    let signer = Signer::fresh();
    let keys = set(&[signer.jwk(Some("1"))]).keys;
    let both = Rules::new(None, Some(ED25519), None, None).unwrap();
    for (token, told) in [
        (signer.token(Some("1")), Ok(())),
        (by_openssl("EdDSA", EDDSA), Ok(())),
        (Signer::fresh().token(Some("2")), Err(Unfit::UnknownKey)),
        (Signer::fresh().token(Some("1")), Err(Unfit::Signature)),
        (by_openssl("RS384", RS256), Err(Unfit::Algorithm)),
        (by_openssl("none", ""), Err(Unfit::Algorithm)),
    ] {
        assert_eq!(both.read(&token, Some(&keys), NOW).map(drop), told);
    }
    let token =
        signed_with(SECRET, &json!({"alg": "HS256", "kid": "1"}), &json!({"sub": "ada", "exp": 9e9}).to_string());
    assert_eq!(by_secret().read(&token, Some(&keys), NOW).map(drop), Ok(()));
    assert_eq!(read(&token, &set(&[signer.jwk(Some("1"))])), Err(Unfit::Algorithm));
}

#[test]
fn neither_many_keys_nor_many_without_a_name_keep_us_busy() {
    let signer = Signer::fresh();
    let many: Vec<_> = (0..150).map(|id| signer.jwk(Some(&id.to_string()))).collect();
    let held = set(&many);
    assert_eq!((held.keys.len(), held.skipped), (SET_KEYS_MAX, 50));
    let (mut jwks, last) = (Vec::new(), Signer::fresh());
    jwks.resize(50, ed25519());
    jwks.push(last.jwk(None));
    assert_eq!(read(&last.token(None), &set(&jwks)), Err(Unfit::UnknownKey));
    jwks.swap(0, 50);
    assert_eq!(read(&last.token(None), &set(&jwks)), Ok(()));
}

proptest! {
    #[test]
    fn no_document_makes_it_panic(text in ".{0,200}", n in prop::collection::vec(any::<u8>(), 0..300), e in prop::collection::vec(any::<u8>(), 0..9)) {
        let _ = read_set(text.as_bytes());
        let jwk = json!({"kty": "RSA", "n": tests::text(&n), "e": tests::text(&e)});
        let held = set(&[jwk, json!({"kty": "EC", "crv": "P-256", "x": tests::text(&e), "y": tests::text(&n)})]);
        prop_assert!(read(&by_openssl("RS256", RS256), &held).is_err());
    }
}
