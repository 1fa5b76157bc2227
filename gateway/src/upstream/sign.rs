//! The signature of Standard Webhooks, by which an application knows that it was us, and when.

use crate::config::value::Secret;
use base64::{
    Engine,
    alphabet::STANDARD as STANDARD_ALPHABET,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD},
    },
};
use registry::epoch_ms;
use ring::hmac::{HMAC_SHA256, Key, sign};

/// In front of a secret that is written in base64.
const PREFIX: &str = "whsec_";

/// Padded or not: both are written.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD_ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What signs; nothing if what stands behind [`PREFIX`] is no base64.
pub fn key_bytes(secret: &Secret) -> Option<Vec<u8>> {
    let text = secret.expose();
    match text.strip_prefix(PREFIX) {
        Some(text) => BASE64.decode(text).ok(),
        None => Some(text.as_bytes().to_vec()),
    }
}

/// Signs with each of its keys, so that one can be changed for another while both are taken.
pub struct Signer(Vec<Key>);

impl Signer {
    pub fn new(secrets: &[Secret]) -> Self {
        let key = |secret: &Secret| Some(Key::new(HMAC_SHA256, &key_bytes(secret)?));
        Self(secrets.iter().filter_map(key).collect())
    }

    /// What goes with a body: its id and time, and the signatures if there is a key.
    pub fn headers(&self, id: &str, body: &[u8]) -> Vec<(&'static str, String)> {
        self.at(id, body, epoch_ms() / 1000)
    }

    fn at(&self, id: &str, body: &[u8], seconds: u64) -> Vec<(&'static str, String)> {
        let signed = [format!("{id}.{seconds}.").as_bytes(), body].concat();
        let signatures: Vec<_> =
            self.0.iter().map(|key| format!("v1,{}", STANDARD.encode(sign(key, &signed)))).collect();
        let mut headers = vec![("webhook-id", id.to_owned()), ("webhook-timestamp", seconds.to_string())];
        if !signatures.is_empty() {
            headers.push(("webhook-signature", signatures.join(" ")));
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let signer = Signer::new(&[Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]);
        let headers = signer.at("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#, 1_614_265_330);
        assert_eq!(headers[2], ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".into()));
    }

    #[test]
    fn a_secret_is_base64_behind_its_prefix_and_text_without() {
        let bytes = |text| key_bytes(&Secret::new(text));
        let shown = bytes("whsec_AAECAwQFBgcICQoLDA0ODw==");
        assert_eq!(shown, Some((0..16).collect()));
        assert_eq!(bytes("whsec_AAECAwQFBgcICQoLDA0ODw"), shown);
        assert_eq!(bytes("AAECAwQFBgcICQoLDA0ODw=="), Some(b"AAECAwQFBgcICQoLDA0ODw==".to_vec()));
        for wrong in ["whsec_a secret that is no base64", "whsec_AAECAwQFBgcICQoLDA0ODw-_", "whsec_A"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn each_secret_signs_and_without_one_nothing_is_signed() {
        let both = Signer::new(&[Secret::new("a secret of some length"), Secret::new("another one of some length")]);
        assert_eq!(both.at("m", b"{}", 1)[2].1.split(' ').count(), 2);
        assert_eq!(Signer::new(&[]).at("m", b"{}", 1).len(), 2);
    }
}
