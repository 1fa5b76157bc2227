//! The cryptography of `jsonwebtoken`, by the library that TLS has brought already. The two that
//! it has itself would be a second one in the binary: another thing to patch in a hurry.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
    signature::{Error as Refused, Verifier},
};
use ring::{
    agreement::{self, ECDH_P256, EphemeralPrivateKey},
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
        VerificationAlgorithm,
    },
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _: &EncodingKey| -> Result<Box<dyn JwtSigner>, Error> {
        // Nothing here makes tokens.
        Err(ErrorKind::UnsupportedAlgorithm.into())
    },
    verifier_factory: |algorithm, key| {
        Checker::new(*algorithm, key).map(|checker| Box::new(checker) as Box<dyn JwtVerifier>)
    },
    // For thumbprints and private keys, of which there are none here.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Must come before the first token is read, or the library panics. Every further call does nothing.
pub fn install() {
    let _ = PROVIDER.install_default();
}

/// Whether these bytes are a point of P-256. Other curves have points of the same length, and with
/// one of those every token would look forged.
pub fn is_p256(point: &[u8]) -> bool {
    let own = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new());
    let theirs = agreement::UnparsedPublicKey::new(&ECDH_P256, point);
    own.is_ok_and(|own| agreement::agree_ephemeral(own, &theirs, |_| ()).is_ok())
}

/// What a signature is checked by.
enum Method {
    Secret,
    PublicKey(&'static dyn VerificationAlgorithm),
}

struct Checker {
    algorithm: Algorithm,
    method: Method,
    key: DecodingKey,
}

impl Checker {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self, Error> {
        let (family, method) = match algorithm {
            Algorithm::HS256 => (AlgorithmFamily::Hmac, Method::Secret),
            Algorithm::RS256 => (AlgorithmFamily::Rsa, Method::PublicKey(&RSA_PKCS1_2048_8192_SHA256)),
            Algorithm::ES256 => (AlgorithmFamily::Ec, Method::PublicKey(&ECDSA_P256_SHA256_FIXED)),
            Algorithm::EdDSA => (AlgorithmFamily::Ed, Method::PublicKey(&ED25519)),
            _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
        };
        match key.family() == family {
            true => Ok(Self { algorithm, method, key: key.clone() }),
            false => Err(ErrorKind::InvalidAlgorithm.into()),
        }
    }
}

impl Verifier<Vec<u8>> for Checker {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), Refused> {
        let checked = match (&self.method, self.key.kind()) {
            (Method::Secret, DecodingKeyKind::SecretOrDer(key)) => {
                hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), message, signature)
            }
            (Method::PublicKey(algorithm), DecodingKeyKind::SecretOrDer(key)) => {
                UnparsedPublicKey::new(*algorithm, key).verify(message, signature)
            }
            // Only RSA has two numbers; whoever made this checker has seen that the key is of its family.
            (_, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
        };
        checked.map_err(|_| Refused::new())
    }
}

impl JwtVerifier for Checker {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
