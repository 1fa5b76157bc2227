//! The table of settings: name, kind, default, meaning. Flags, help, `holdfast check` and the
//! README are made from it.

use crate::upstream::Endpoint;
use registry::RedisUrl;

/// What a value has to look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Number,
    Duration,
    Size,
    Rate,
    Flag,
    List,
    OneOf(&'static [&'static str]),
    /// Text that is never shown, and that can also be given as a file by `<NAME>_FILE`.
    Secret,
    /// Where Redis is. It may hold a password, so it is a secret of which the harmless part is shown.
    Redis,
    /// Where an application is asked; shown without the login and the query that it may hold.
    Url,
}

impl Kind {
    /// What stands behind the flag in the help.
    pub fn word(self) -> String {
        match self {
            Self::Text => "TEXT".into(),
            Self::Number => "NUMBER".into(),
            Self::Duration => "DURATION".into(),
            Self::Size => "BYTES".into(),
            Self::Rate => "RATE".into(),
            Self::Flag => "true|false".into(),
            Self::List => "LIST".into(),
            Self::OneOf(words) => words.join("|"),
            Self::Secret => "SECRET".into(),
            Self::Redis | Self::Url => "URL".into(),
        }
    }

    /// Whether the text as it was given may be seen by nobody.
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::Redis | Self::Url)
    }

    /// A value, for people.
    pub fn shown(self, text: &str) -> String {
        match self {
            _ if text.is_empty() => String::new(),
            Self::Redis => RedisUrl::parse(text.trim()).map_or_else(|_| "***".into(), |url| url.shown()),
            Self::Url => Endpoint::parse(text.trim()).map_or_else(|_| "***".into(), |url| url.to_string()),
            Self::Secret => "***".into(),
            _ => text.to_owned(),
        }
    }
}

/// One setting, in one of its three spellings; the others follow from it.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub name: &'static str,
    pub kind: Kind,
    /// Empty where there is none; `shown` says then what happens.
    pub default: &'static str,
    pub shown: &'static str,
    pub meaning: &'static str,
}

impl Setting {
    /// `--ws-ping-interval`, without the dashes in front.
    pub fn flag(&self) -> String {
        self.name.to_lowercase().replace('_', "-")
    }

    /// `ws_ping_interval`, as in the file.
    pub fn key(&self) -> String {
        self.name.to_lowercase()
    }

    /// The default, for people.
    pub fn default_shown(&self) -> &'static str {
        if self.shown.is_empty() { self.default } else { self.shown }
    }
}

const fn setting(name: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, kind, default, shown: "", meaning }
}

const fn unset(name: &'static str, kind: Kind, shown: &'static str, meaning: &'static str) -> Setting {
    Setting { name, kind, default: "", shown, meaning }
}

use Kind::{Duration, Flag, List, Number, OneOf, Rate, Redis, Secret, Size, Text, Url};

/// Every setting there is.
pub const SETTINGS: &[Setting] = &[
    setting("HOST", Text, "127.0.0.1", "address of the listener"),
    setting("PORT", Number, "8080", "port of the listener; `0` picks a free one and prints it"),
    unset(
        "REDIS_URL",
        Redis,
        "unset: registry in memory, one instance",
        "`redis://`, `rediss://`, `redis+sentinel://host:p,host:p/name`, `redis+cluster://host:p,host:p`",
    ),
    setting("NAMESPACE", Text, "holdfast", "what every Redis key and channel begins with; one per fleet"),
    unset(
        "INSTANCE",
        Text,
        "host name and port, and under pm2 its number",
        "the name people see; the process adds a fresh mark to it at every start",
    ),
    unset("CORS_ORIGINS", List, "local origins, any port", "exact origins, `https://*.example.com`, or `*`"),
    setting("WS_PING_INTERVAL", Duration, "30s", "how often a socket is pinged"),
    setting(
        "WS_PING_TIMEOUT",
        Duration,
        "10s",
        "a socket silent for interval + timeout is dead; one whose unsent bytes do not move for this long is closed 4101",
    ),
    unset("WS_REQUIRE", List, "none", "what `/ws` must be given: `user_id`, `store_id`, `room_id`"),
    setting("WS_CODE_PATTERN", Text, "^[A-Za-z0-9]{5}$", "what `/ws/{code}` accepts"),
    setting("MAX_SOCKETS_PER_USER", Number, "5", "over all instances; `0` means no cap"),
    setting(
        "DUPLICATE_POLICY",
        OneOf(&["evict-oldest", "reject"]),
        "evict-oldest",
        "who goes when a user has too many: the oldest, or the newcomer (1008)",
    ),
    unset("MAX_SOCKETS", Number, "95 % of the open-file limit", "sockets of this instance; beyond it 503"),
    setting("MAX_MESSAGE_BYTES", Size, "64KiB", "largest message of a client"),
    setting("MAX_BODY_BYTES", Size, "1MiB", "largest HTTP body"),
    setting("MAX_QUEUE_BYTES", Size, "1MiB", "unsent bytes per socket; what does not fit is refused"),
    setting("MAX_ROOMS", Number, "100", "rooms per socket"),
    setting(
        "AUTH",
        List,
        "none",
        "how clients prove who they are: a list of `keys`, `jwt`, `session`, `proxy`; `none` believes whoever is named",
    ),
    unset("API_KEYS_FILE", Text, "the keys are in Redis", "where API keys stand, hashed; `holdfast keys` writes it"),
    unset("JWT_SECRET", Secret, "unset", "secret of JSON Web Tokens by HS256; 32 bytes or more"),
    unset(
        "JWT_PUBLIC_KEY",
        Secret,
        "unset",
        "public key of JSON Web Tokens in PEM: RSA for RS256, P-256 for ES256, Ed25519 for EdDSA; line ends may be `\\n`",
    ),
    unset("JWKS_URL", Url, "unset", "where the public keys of JSON Web Tokens are published, as a JWK Set"),
    unset("JWT_ISSUER", Text, "any", "what `iss` of a JSON Web Token must be"),
    unset("JWT_AUDIENCE", Text, "any", "what `aud` of a JSON Web Token must be or contain"),
    unset(
        "SESSION_URL",
        Url,
        "unset",
        "is asked whose a session is, with its cookie or token; 200 with `userId` lets in",
    ),
    unset("SESSION_COOKIE", Text, "any cookie", "name of the cookie that holds the session; no other one is sent on"),
    unset(
        "CONNECT_URL",
        Url,
        "unset",
        "is asked before a socket is opened; may refuse it, or give it names and a `state`",
    ),
    unset(
        "MESSAGE_URL",
        Url,
        "unset",
        "gets requests of clients, and frames that are not understood here; its JSON is the answer",
    ),
    unset("EVENTS_URL", Url, "unset", "hears of every socket that came and went, at least once"),
    unset(
        "HOOK_SECRET",
        Secret,
        "unsigned",
        "signs what is sent to SESSION_URL and the three above, as Standard Webhooks do: `whsec_$(openssl rand -base64 32)`, or plain text for those who check by hand; several, after commas, sign each",
    ),
    setting("HOOK_TIMEOUT", Duration, "2s", "how long the application may take for an answer"),
    unset("API_TOKEN", Secret, "unset: only this machine may call", "bearer token of the server plane"),
    unset("ADMIN_TOKEN", Secret, "as API_TOKEN", "bearer token for what changes or reveals the fleet"),
    setting("TRUSTED_PROXIES", List, "127.0.0.0/8,::1/128", "peers whose `X-Forwarded-For` and `X-User-ID` count"),
    setting(
        "PROXY_PROTOCOL",
        OneOf(&["off", "on"]),
        "off",
        "`on`: every connection begins with a PROXY header (version 1 or 2) of one of `TRUSTED_PROXIES`, and others are refused",
    ),
    setting("CALL_TIMEOUT", Duration, "30s", "how long a call waits for its answer, unless it says so itself"),
    setting(
        "RESUME_WINDOW",
        Duration,
        "2m",
        "for how long a socket that asked for it may be away, up to a day; `0` means that none may",
    ),
    unset(
        "RESUME_SECRET",
        Secret,
        "shared through Redis",
        "what seals the tokens of such sockets; of several, after commas, the first seals and all are taken",
    ),
    setting(
        "DURABILITY",
        OneOf(&["memory", "replica", "fsync"]),
        "memory",
        "what a durable send waits for: nothing more, a replica of Redis, or its disk (7.2 or later); the answer says what it was",
    ),
    setting("QUEUE_TTL", Duration, "10m", "how long what nobody has taken is kept"),
    setting("WHY_TTL", Duration, "10m", "how long a verdict is kept after the end of a socket"),
    setting("DRAIN_TIMEOUT", Duration, "10s", "how long a stopping instance takes to part with its sockets at most"),
    unset("RATE_CONNECT", Rate, "off", "handshakes per address, and as many per API key, such as `20/s`; over it 429"),
    setting("RATE_MESSAGES", Rate, "100/s", "frames per socket, or `off`; over it close 4429"),
    unset("MIN_SOCKETS", Number, "off", "alarm when the fleet holds fewer"),
    setting("CANARY", Flag, "false", "a mark on this instance, in `/api/instances` and metrics"),
    unset("PUBLIC_ACCOUNTS", List, "none", "accounts that a pushed message reaches by @mention"),
    setting(
        "LOG_LEVEL",
        Text,
        "info",
        "`error`, `warn`, `info`, `debug`, `trace`, in any case, or a list of `module=level`",
    ),
    setting("LOG_FORMAT", OneOf(&["text", "json"]), "text", "how a log line looks"),
    setting("DEBUG", Flag, "false", "`true` is `LOG_LEVEL=debug`"),
];

/// The table for the README.
pub fn markdown() -> String {
    let mut table = String::from("| setting | default | meaning |\n|---|---|---|\n");
    for setting in SETTINGS {
        let default = match setting.shown {
            "" => format!("`{}`", setting.default),
            shown => shown.to_owned(),
        };
        table.push_str(&format!("| `{}` | {default} | {} |\n", setting.name, setting.meaning));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `BLESS=1 cargo test` writes the table anew.
    #[test]
    fn the_readme_shows_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let readme = std::fs::read_to_string(path).unwrap();
        let (before, rest) = readme.split_once("<!-- settings -->\n").unwrap();
        let (shown, after) = rest.split_once("<!-- /settings -->").unwrap();
        if std::env::var_os("BLESS").is_some() {
            let fresh = format!("{before}<!-- settings -->\n{}<!-- /settings -->{after}", markdown());
            std::fs::write(path, fresh).unwrap();
        } else {
            assert_eq!(shown, markdown(), "run BLESS=1 cargo test -p holdfast readme");
        }
    }
}
