//! Servers that speak TLS alone, under an authority of their own. Clients are not asked for a
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
        let papers = Papers::issue();
        let mut server = Self::launch(&["redis.conf"], None, |folder, port| papers.settings(folder, port));
        server.set_url(format!("rediss://localhost:{}", server.port()));
        server
    }

    /// The certificate (PEM) that a client of a server with TLS has to trust.
    pub fn ca_file(&self) -> PathBuf {
        self.folder().join("ca.crt")
    }
}

/// An authority and a certificate under it, which all servers of one kind share.
pub struct Papers {
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

impl Papers {
    pub fn issue() -> Self {
        let mut params = named("Holdfast test authority", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(params, key);

        let mut params = named("Holdfast test server", &["localhost", "127.0.0.1", "::1"]);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Nodes of a cluster are clients of each other, and have to show a certificate.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        Self { authority: authority.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Puts them into a server's folder, and says how it uses them.
    pub fn settings(&self, folder: &Path, port: u16) -> Settings {
        for (name, pem) in [("ca.crt", &self.authority), ("server.crt", &self.certificate), ("server.key", &self.key)] {
            fs::write(folder.join(name), pem).expect("a file");
        }
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
            ("tls-replication", "yes".to_owned()),
            ("tls-cluster", "yes".to_owned()),
        ]
    }
}

/// Names must differ: a certificate whose issuer has its own name counts as signed by itself.
fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts = hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>();
    let mut params = CertificateParams::new(hosts).expect("names of hosts");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
