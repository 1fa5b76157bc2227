//! The keys by which tokens are checked: one in PEM, which somebody has set, or those of a JWK Set (RFC 7517), a public
//! document that somebody else writes.

use super::backend;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

/// A modulus of 2048 bits alone has as many; with a shorter one every token would be refused.
const RSA_BYTES_MIN: usize = 256;
/// One of 8192 bits, and what is around it.
const RSA_BYTES_MAX: usize = 1024 + 32;
/// A key for Ed25519.
const ED_BYTES: usize = 32;
/// A coordinate of P-256.
const P256_BYTES: usize = 32;

/// What a modulus may have of bits, and an exponent at most: what `ring` checks by.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
const EXPONENT_BITS_MAX: usize = 33;

/// Of a set at most. Providers have a few; a document with more would be held and searched for nothing.
const SET_KEYS_MAX: usize = 100;

/// A key, and the one algorithm that it is for: a token cannot choose another.
#[derive(Debug, Clone)]
pub struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
    pub(super) validation: Validation,
    /// By what tokens name it (`kid`). Without one it may be meant by any of its algorithm.
    pub(super) id: Option<String>,
}

impl Key {
    fn new(algorithm: Algorithm, key: DecodingKey) -> Self {
        let mut validation = Validation::new(algorithm);
        // The library goes by the system's clock, in whole seconds, and lets a missing claim pass;
        // so the claims are looked at here.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        Self { algorithm, key, validation, id: None }
    }

    pub(super) fn of_secret(bytes: &[u8]) -> Self {
        Self::new(Algorithm::HS256, DecodingKey::from_secret(bytes))
    }

    /// Whether a token with this header may be meant for it.
    pub(super) fn may_be(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        self.algorithm == algorithm && (self.id.is_none() || id.is_none() || self.id.as_deref() == id)
    }
}

/// The PEM tells which algorithm the key is for.
pub fn read_pem(pem: &str) -> Result<Key, String> {
    let refused = |sentence: &str| Err(sentence.to_owned());
    if pem.contains("PRIVATE KEY-----") {
        return refused(
            "this is a private key, which only whoever signs should have; put its public half here \
             (openssl pkey -in key.pem -pubout), and make a new pair if this one was seen by others",
        );
    }
    if pem.contains("CERTIFICATE-----") {
        return refused(
            "this is a certificate; put the public key in it here (openssl x509 -in cert.pem -pubkey -noout)",
        );
    }
    if pem.matches("-----BEGIN ").count() > 1 {
        return refused("there are several keys in it; one is wanted");
    }
    let length = |key: &DecodingKey| key.try_get_as_bytes().map_or(0, <[u8]>::len);
    let bytes = pem.as_bytes();
    if let Ok(key) = DecodingKey::from_rsa_pem(bytes) {
        return match length(&key) {
            RSA_BYTES_MIN..=RSA_BYTES_MAX => Ok(Key::new(Algorithm::RS256, key)),
            _ => refused("an RSA key of 2048 to 8192 bits is wanted"),
        };
    }
    if let Ok(key) = DecodingKey::from_ec_pem(bytes) {
        return match key.try_get_as_bytes().is_ok_and(backend::is_p256) {
            true => Ok(Key::new(Algorithm::ES256, key)),
            false => refused("this is a key of another curve; ES256 wants one of P-256 (prime256v1)"),
        };
    }
    match DecodingKey::from_ed_pem(bytes) {
        Ok(key) if length(&key) == ED_BYTES => Ok(Key::new(Algorithm::EdDSA, key)),
        _ => refused(
            "this is no public key in PEM (-----BEGIN PUBLIC KEY-----) of RSA, P-256 or Ed25519; \
             in an env file write its line ends as \\n",
        ),
    }
}

/// What a JWK Set holds for us.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    pub keys: Vec<Key>,
    /// How many are of another kind, for something else, unfit, or too many.
    pub skipped: usize,
    /// How many show their private half to everybody, so that everybody can sign with them. They do not count.
    pub given_away: usize,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// One key of a document. What else stands there says nothing to us.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// The private half of any kind of pair.
    d: Option<IgnoredAny>,
}

/// Whether a set may have keys for it. A secret has no business in a document that everybody reads.
pub fn is_in_sets(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA)
}

/// A key that is not for us costs itself alone; only what is no set at all is an error.
pub fn read_set(document: &[u8]) -> Result<KeySet, &'static str> {
    let Document { keys } =
        serde_json::from_slice(document).map_err(|_| "what it says is no JWK Set, {\"keys\": […]}")?;
    let mut set = KeySet::default();
    for jwk in keys {
        let Ok(jwk) = Jwk::deserialize(jwk) else {
            set.skipped += 1;
            continue;
        };
        match jwk.read() {
            Some(_) if jwk.d.is_some() => set.given_away += 1,
            Some(key) if set.keys.len() < SET_KEYS_MAX => set.keys.push(key),
            _ => set.skipped += 1,
        }
    }
    Ok(set)
}

impl Jwk {
    /// The key, if it is of a kind and for a use that we have.
    fn read(&self) -> Option<Key> {
        let (algorithm, key) = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => (Algorithm::RS256, self.rsa()?),
            ("EC", Some("P-256")) => (Algorithm::ES256, self.p256()?),
            ("OKP", Some("Ed25519")) => (Algorithm::EdDSA, self.ed25519()?),
            _ => return None,
        };
        let is_for_signatures = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && self.key_ops.as_ref().is_none_or(|uses| uses.iter().any(|one| one == "verify"))
            && self.alg.as_deref().is_none_or(|alg| alg.parse() == Ok(algorithm));
        is_for_signatures.then(|| Key { id: self.kid.clone(), ..Key::new(algorithm, key) })
    }

    fn rsa(&self) -> Option<DecodingKey> {
        let (n, e) = (number(&self.n)?, number(&self.e)?);
        let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
        let is_fit =
            MODULUS_BITS.contains(&bits(&n)) && (2..=EXPONENT_BITS_MAX).contains(&bits(&e)) && is_odd(&n) && is_odd(&e);
        is_fit.then(|| DecodingKey::from_rsa_raw_components(&n, &e))
    }

    fn p256(&self) -> Option<DecodingKey> {
        let (x, y) = (bytes(&self.x)?, bytes(&self.y)?);
        let point = [&[4], x.as_slice(), y.as_slice()].concat();
        let is_fit = x.len() == P256_BYTES && y.len() == P256_BYTES && backend::is_p256(&point);
        is_fit.then(|| DecodingKey::from_ec_der(&point))
    }

    fn ed25519(&self) -> Option<DecodingKey> {
        let x = bytes(&self.x)?;
        (x.len() == ED_BYTES).then(|| DecodingKey::from_ed_der(&x))
    }
}

fn bytes(text: &Option<String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.as_ref()?).ok()
}

/// Without the zeros that some write in front.
fn number(text: &Option<String>) -> Option<Vec<u8>> {
    let bytes = bytes(text)?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    bytes.get(first..).map(<[u8]>::to_vec)
}

/// Of a number without zeros in front.
fn bits(number: &[u8]) -> usize {
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests;
