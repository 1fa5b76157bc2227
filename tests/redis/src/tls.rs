//! A server that speaks TLS alone, under an authority of its own. Clients are not asked for a
//! certificate.

use crate::server::{Server, Settings};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

impl Server {
    /// An empty server at rediss://localhost; its certificate is for that name and for 127.0.0.1.
    pub fn with_tls() -> Self {
        let mut server = Self::launch(&["redis.conf"], None, |folder, port| {
            certify(folder);
            settings(folder, port)
        });
        server.set_url(format!("rediss://localhost:{}", server.port()));
        server
    }

    /// The certificate (PEM) that a client of `with_tls` has to trust.
    pub fn ca_file(&self) -> PathBuf {
        self.folder().join("ca.crt")
    }
}

fn settings(folder: &Path, port: u16) -> Settings {
    let file = |name: &str| folder.join(name).display().to_string();
    vec![
        // `localhost` may mean ::1 first; not every machine has it, hence the minus.
        ("bind", "127.0.0.1 -::1".to_owned()),
        ("port", "0".to_owned()),
        ("tls-port", port.to_string()),
        ("tls-ca-cert-file", file("ca.crt")),
        ("tls-cert-file", file("server.crt")),
        ("tls-key-file", file("server.key")),
        ("tls-auth-clients", "no".to_owned()),
    ]
}

/// Writes an authority and a certificate under it.
fn certify(folder: &Path) {
    let mut params = named("Holdfast test authority", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("a key");
    let authority = params.self_signed(&key).expect("a certificate");
    let issuer = Issuer::new(params, key);

    let mut params = named("Holdfast test server", &["localhost", "127.0.0.1", "::1"]);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().expect("a key");
    let server = params.signed_by(&key, &issuer).expect("a certificate");

    for (name, pem) in [("ca.crt", authority.pem()), ("server.crt", server.pem()), ("server.key", key.serialize_pem())]
    {
        fs::write(folder.join(name), pem).expect("a file");
    }
}

/// Names must differ: a certificate whose issuer has its own name counts as signed by itself.
fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts = hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>();
    let mut params = CertificateParams::new(hosts).expect("names of hosts");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
