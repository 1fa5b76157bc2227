//! Where Holdfast is to run.

use std::path::{Path, PathBuf};

/// How a domain may be written, and how long (RFC 1035).
const DOMAIN_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

#[derive(Debug)]
pub struct Site {
    pub domain: String,
    pub instances: u16,
    /// Of the first instance; the others follow.
    pub port: u16,
    /// Absolute.
    pub folder: PathBuf,
    /// This program.
    pub program: PathBuf,
}

impl Site {
    /// In the order of the instances.
    pub fn ports(&self) -> impl Iterator<Item = u16> + use<> {
        let first = self.port;
        (0..self.instances).map(move |nth| first + nth)
    }
}

/// A host name, in lower case.
pub fn domain(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let sentence = match () {
        () if name.contains("://") || name.contains(['/', ':']) => {
            "write the host name alone, without scheme, port and path, as in gateway.example.com"
        }
        () if !name.is_ascii() => "write it as DNS knows it, in Punycode (xn--…)",
        () if name.contains('*') => "one host is meant: write it without *",
        () if name.len() <= DOMAIN_BYTES_MAX && name.split('.').all(is_label) => return Ok(name),
        () => "this is no host name: letters, digits and hyphens between dots, as in gateway.example.com",
    };
    Err(sentence.to_owned())
}

/// A path as it stands between quotes in JavaScript, TOML, a unit and a shell.
pub fn plain(path: &Path) -> Result<&str, String> {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@,=".contains(c);
    let text = path.to_str().filter(|text| text.chars().all(is_plain));
    text.ok_or_else(|| {
        format!(
            "{} has characters that would have to be quoted differently in each file; use a path of letters, digits and ._-+@,=",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_a_host_name_alone() {
        assert_eq!(domain("Gateway.Example.com"), Ok("gateway.example.com".into()));
        assert_eq!(domain("localhost"), Ok("localhost".into()));
        let long = "a".repeat(64);
        for (wrong, part) in [
            ("https://example.com", "without scheme"),
            ("example.com:80", "port"),
            ("example.com/ws", "path"),
            ("*.example.com", "without *"),
            ("exämple.com", "Punycode"),
            ("example.com; include /etc/passwd", "path"),
            ("a b", "no host name"),
            ("a;b", "no host name"),
            ("-a.com", "no host name"),
            ("a..com", "no host name"),
            ("example.com.", "no host name"),
            ("", "no host name"),
            (&long, "no host name"),
        ] {
            assert!(domain(wrong).expect_err(wrong).contains(part), "{wrong}");
        }
    }

    #[test]
    fn a_path_that_needs_quotes_is_refused() {
        assert_eq!(plain(Path::new("/srv/holdfast@1")), Ok("/srv/holdfast@1"));
        for wrong in ["/my files", "/it's", "/a\"b", "/a\\b", "/100%", "/$HOME", "/a\nb"] {
            assert!(plain(Path::new(wrong)).is_err(), "{wrong}");
        }
    }
}
