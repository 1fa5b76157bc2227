//! Environment, flags and file become one `Config`, or every problem at once.

mod auth;
pub mod fingerprint;
mod hooks;
mod jwt;
mod proxies;
pub mod settings;
pub mod sources;
pub mod value;

use crate::{
    admission::origin::Origins,
    auth::{Modes, jwt::Rules},
    manager::Manager,
    upstream::{self, Endpoint},
};
pub use auth::{ANY_PAGE, SessionRules};
pub use hooks::HookRules;
use ipnet::IpNet;
use regex_lite::Regex;
use registry::{Cap, Durability, Policy, RedisUrl};
use settings::SETTINGS;
use sources::{Environment, Fault, Source, Sources};
use std::{
    collections::BTreeMap,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    time::Duration,
};
use value::{Rate, Secret};

/// It stands in every key, so each of its bytes is there once per socket and more.
const NAMESPACE_BYTES_MAX: usize = 64;

/// What is shorter could be guessed.
const SECRET_BYTES_MIN: usize = 16;
/// For how long a socket may be away at most.
const WINDOW_MAX: Duration = Duration::from_secs(86_400);

/// What `/ws` may be told to require.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Required {
    pub user: bool,
    pub store: bool,
    pub room: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// What can change while the process runs, by SIGHUP.
#[derive(Debug, Clone)]
pub struct Live {
    pub origins: Origins,
    pub api_token: Option<Secret>,
    pub admin_token: Option<Secret>,
    /// A filter that `tracing_subscriber::EnvFilter` reads.
    pub log_filter: String,
}

/// A whole, valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    pub host: String,
    pub port: u16,
    /// `None`: the registry is in memory, and this is the only instance.
    pub redis: Option<RedisUrl>,
    /// What every key and channel in Redis begins with.
    pub namespace: String,
    pub instance: Option<String>,
    pub ping_interval: Duration,
    pub ping_timeout: Duration,
    /// How clients prove who they are.
    pub auth: Modes,
    /// Where the API keys stand; in Redis, if nowhere else.
    pub api_keys_file: Option<PathBuf>,
    pub required: Required,
    pub code_pattern: Regex,
    /// By what JSON Web Tokens are judged; `None` without a key.
    pub jwt: Option<Rules>,
    /// Where the keys of JSON Web Tokens are published.
    pub jwks: Option<Endpoint>,
    /// Who is asked whose a session is.
    pub session: Option<SessionRules>,
    /// What the application is told and asked.
    pub hooks: HookRules,
    pub cap: Cap,
    pub sockets_max: Option<NonZeroUsize>,
    pub message_bytes_max: usize,
    pub body_bytes_max: usize,
    pub queue_bytes_max: usize,
    pub rooms_max: usize,
    pub trusted_proxies: Vec<IpNet>,
    pub proxy_protocol: bool,
    pub why_ttl: Duration,
    /// For how many seconds a socket that asked for it may be away; `None` if none may.
    pub resume_window: Option<NonZeroU32>,
    /// What a durable delivery waits for before it counts as accepted.
    pub durability: Durability,
    /// What seals the tokens, and what is taken beside it; none if the registry has its own.
    pub resume_secrets: Vec<registry::Secret>,
    pub call_timeout: Duration,
    pub queue_ttl: Duration,
    pub drain_timeout: Duration,
    pub rate_connect: Option<Rate>,
    pub rate_messages: Option<Rate>,
    pub sockets_min: Option<usize>,
    pub canary: bool,
    pub public_accounts: Vec<String>,
    pub log_format: LogFormat,
    pub live: Live,
}

impl Config {
    /// Endpoints that are asked, each over connections of its own.
    pub fn applications(&self) -> usize {
        let HookRules { connect, message, events, .. } = &self.hooks;
        let session = self.session.as_ref().map(|session| &session.endpoint);
        [connect.as_ref(), message.as_ref(), events.as_ref(), session, self.jwks.as_ref()].iter().flatten().count()
    }
}

/// What reading a configuration comes to. The sources are there in either case, for `check`.
pub struct Reading {
    pub sources: Sources,
    /// Who started us, which the environment says, too.
    pub manager: Manager,
    pub config: Result<Config, Vec<Fault>>,
}

/// Reads everything.
pub fn read(flags: &BTreeMap<String, String>, file: Option<&str>, env: &Environment) -> Reading {
    let mut sources = Sources::collect(flags, file, env);
    let mut reader = Reader { faults: std::mem::take(&mut sources.faults), warnings: Vec::new(), sources: &sources };
    let config = reader.config();
    let Reader { faults, warnings, .. } = reader;
    sources.warnings.extend(warnings);
    let manager = Manager::from_env(env);
    let config = match config {
        Some(config) if faults.is_empty() => {
            sources.warnings.extend(manager.warnings(config.drain_timeout, config.instance.as_deref()));
            Ok(config)
        }
        _ => Err(faults),
    };
    Reading { sources, manager, config }
}

/// Reads value after value and collects what is wrong, instead of stopping at the first.
struct Reader<'a> {
    sources: &'a Sources,
    faults: Vec<Fault>,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn config(&mut self) -> Option<Config> {
        let debug = self.debug();
        let ping_interval = self.positive("WS_PING_INTERVAL");
        let ping_timeout = self.positive("WS_PING_TIMEOUT");
        let port = self.parsed("PORT", |text| text.parse().map_err(|_| "a port from 0 to 65535 is wanted".into()));
        let redis = self.optional("REDIS_URL", RedisUrl::parse);
        let namespace = self.parsed("NAMESPACE", namespace);
        let code_pattern = self.parsed("WS_CODE_PATTERN", |text| {
            Regex::new(text).map_err(|error| format!("not a regular expression: {error}"))
        });
        let sockets_per_user = self.number("MAX_SOCKETS_PER_USER");
        let policy = match self.text("DUPLICATE_POLICY").to_ascii_lowercase().as_str() {
            "evict-oldest" => Some(Policy::EvictOldest),
            "reject" => Some(Policy::Reject),
            _ => self.fault("DUPLICATE_POLICY", "evict-oldest or reject is wanted"),
        };
        let log_format = match self.text("LOG_FORMAT").to_ascii_lowercase().as_str() {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => self.fault("LOG_FORMAT", "text or json is wanted"),
        };
        let auth = self.auth();
        let jwks = self.optional("JWKS_URL", endpoint);
        let jwt = self.jwt(jwks.as_ref().and_then(Option::as_ref));
        let session = self.session();
        let hooks = self.hooks();
        let required = self.required();
        let origins = self.origins();
        let log_filter = self.log_filter(debug);
        let trusted_proxies = self.trusted_proxies();
        let proxy_protocol = self.proxy_protocol();
        let message_bytes_max = self.parsed("MAX_MESSAGE_BYTES", value::size);
        let body_bytes_max = self.parsed("MAX_BODY_BYTES", value::size);
        let queue_bytes_max = self.parsed("MAX_QUEUE_BYTES", |text| match value::size(text)? {
            // The greeting has to fit.
            bytes if bytes < 1024 => Err("at least 1KiB is wanted".into()),
            bytes => Ok(bytes),
        });
        let rooms_max = self.number("MAX_ROOMS");
        let sockets_max = self.optional("MAX_SOCKETS", |text| {
            text.parse::<NonZeroUsize>().map_err(|_| "a number above 0 is wanted".into())
        });
        let sockets_min =
            self.optional("MIN_SOCKETS", |text| text.parse::<usize>().map_err(|_| "a whole number is wanted".into()));
        let why_ttl = self.positive("WHY_TTL");
        let resume_window = self.parsed("RESUME_WINDOW", resume_window);
        let queue_ttl = self.positive("QUEUE_TTL");
        let resume_secrets = self.resume_secrets();
        let durability = self.parsed("DURABILITY", |text| {
            Durability::parse(&text.to_ascii_lowercase()).ok_or_else(|| "memory, replica or fsync is wanted".into())
        });
        let call_timeout = self.parsed("CALL_TIMEOUT", value::duration);
        let drain_timeout = self.parsed("DRAIN_TIMEOUT", value::duration);
        let rate_connect = self.optional("RATE_CONNECT", value::rate).map(Option::flatten);
        let rate_messages = self.optional("RATE_MESSAGES", value::rate).map(Option::flatten);
        let canary = self.parsed("CANARY", value::flag);
        self.notice_silence(ping_interval, ping_timeout);
        self.notice_shut_doors(auth, proxy_protocol);
        Some(Config {
            host: self.text("HOST").to_owned(),
            port: port?,
            redis: redis?,
            namespace: namespace?,
            instance: Some(self.text("INSTANCE").to_owned()).filter(|name| !name.is_empty()),
            ping_interval: ping_interval?,
            ping_timeout: ping_timeout?,
            auth: auth?,
            api_keys_file: Some(self.text("API_KEYS_FILE")).filter(|path| !path.is_empty()).map(PathBuf::from),
            required: required?,
            code_pattern: code_pattern?,
            jwt: jwt?,
            jwks: jwks?,
            session: session?,
            hooks: hooks?,
            cap: Cap { sockets_max: sockets_per_user?, policy: policy? },
            sockets_max: sockets_max?,
            message_bytes_max: message_bytes_max?,
            body_bytes_max: body_bytes_max?,
            queue_bytes_max: queue_bytes_max?,
            rooms_max: rooms_max?,
            trusted_proxies: trusted_proxies?,
            proxy_protocol: proxy_protocol?,
            why_ttl: why_ttl?,
            resume_window: resume_window?,
            resume_secrets: resume_secrets?,
            durability: durability?,
            call_timeout: call_timeout?,
            queue_ttl: queue_ttl?,
            drain_timeout: drain_timeout?,
            rate_connect: rate_connect?,
            rate_messages: rate_messages?,
            sockets_min: sockets_min?,
            canary: canary?,
            public_accounts: value::list(self.text("PUBLIC_ACCOUNTS")),
            log_format: log_format?,
            live: Live {
                origins: origins?,
                api_token: self.secret("API_TOKEN"),
                admin_token: self.secret("ADMIN_TOKEN"),
                log_filter: log_filter?,
            },
        })
    }

    fn text(&self, name: &str) -> &str {
        self.sources.get(name).map_or("", |given| given.text.trim())
    }

    fn fault<T>(&mut self, name: &str, fix: impl Into<String>) -> Option<T> {
        let secret = SETTINGS.iter().any(|setting| setting.name == name && setting.kind.is_secret());
        let value = (!secret).then(|| self.text(name).to_owned());
        self.faults.push(Fault { setting: name.into(), value, fix: fix.into() });
        None
    }

    fn parsed<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        match parse(self.text(name)) {
            Ok(value) => Some(value),
            Err(fix) => self.fault(name, fix),
        }
    }

    fn optional<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<Option<T>> {
        match self.text(name) {
            "" => Some(None),
            _ => self.parsed(name, parse).map(Some),
        }
    }

    fn number(&mut self, name: &str) -> Option<usize> {
        self.parsed(name, |text| text.parse().map_err(|_| "a whole number is wanted".into()))
    }

    fn positive(&mut self, name: &str) -> Option<Duration> {
        self.parsed(name, |text| match value::duration(text)? {
            span if span < Duration::from_millis(100) => Err("at least 100ms is wanted".into()),
            span => Ok(span),
        })
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(Secret::new)
    }

    fn resume_secrets(&mut self) -> Option<Vec<registry::Secret>> {
        let parts = value::list(self.text("RESUME_SECRET"));
        match parts.iter().all(|part| part.len() >= SECRET_BYTES_MIN) {
            true => Some(parts.iter().map(|part| registry::Secret::of(part)).collect()),
            false => self.fault("RESUME_SECRET", format!("at least {SECRET_BYTES_MIN} characters each are wanted")),
        }
    }

    fn required(&mut self) -> Option<Required> {
        let mut required = Required::default();
        for name in value::list(self.text("WS_REQUIRE")) {
            match name.as_str() {
                "user_id" => required.user = true,
                "store_id" => required.store = true,
                "room_id" => required.room = true,
                "none" => {}
                _ => return self.fault("WS_REQUIRE", format!("{name} is none of user_id, store_id, room_id")),
            }
        }
        Some(required)
    }

    fn origins(&mut self) -> Option<Origins> {
        let (origins, faults, warnings) = Origins::parse(&value::list(self.text("CORS_ORIGINS")));
        self.warnings.extend(warnings);
        match faults.is_empty() {
            true => Some(origins),
            false => self.fault(
                "CORS_ORIGINS",
                format!(
                    "invalid: {}; write origins as https://app.example.com, https://*.example.com or *",
                    faults.join(", ")
                ),
            ),
        }
    }

    fn is_default(&self, name: &str) -> bool {
        self.sources.get(name).is_none_or(|given| given.source == Source::Default)
    }

    /// Process managers and Node tools put a `DEBUG` of their own into the environment.
    fn debug(&mut self) -> bool {
        let text = self.text("DEBUG").to_owned();
        value::flag(&text).unwrap_or_else(|_| {
            self.warnings.push(format!("DEBUG={text} is no boolean and is ignored"));
            false
        })
    }

    fn log_filter(&mut self, debug: bool) -> Option<String> {
        let text = if debug { "debug" } else { self.text("LOG_LEVEL") };
        let mut filter = Vec::new();
        for part in value::list(text) {
            let (module, level) = part.rsplit_once('=').unwrap_or(("", &part));
            let level = match level.to_ascii_lowercase().as_str() {
                "critical" | "fatal" | "error" => "error",
                "warning" | "warn" => "warn",
                "info" | "notice" => "info",
                "debug" => "debug",
                "trace" => "trace",
                "off" => "off",
                _ => return self.fault("LOG_LEVEL", "error, warn, info, debug or trace is wanted"),
            };
            let well_formed = module.bytes().all(|b| b.is_ascii_alphanumeric() || b == b':' || b == b'_');
            let ours = ["gateway", "registry"].iter().any(|own| module.split("::").next() == Some(own));
            match module {
                // Libraries write whole heads and frames at their lower levels, secrets and all.
                "" => filter.push(format!("warn,gateway={level},registry={level}")),
                _ if well_formed && ours => filter.push(format!("{module}={level}")),
                _ => {
                    return self
                        .fault("LOG_LEVEL", "write modules as gateway::http=debug; there are gateway and registry");
                }
            }
        }
        Some(filter.join(","))
    }
}

/// Where an application can be asked, if it can be asked from here.
fn endpoint(text: &str) -> Result<Endpoint, String> {
    let endpoint = Endpoint::parse(text)?;
    upstream::check(&endpoint)?;
    Ok(endpoint)
}

/// Braces would decide where a cluster keeps a key; blanks are nothing that anybody sees in one.
fn namespace(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    match (1..=NAMESPACE_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(format!("1 to {NAMESPACE_BYTES_MAX} letters, digits, dots, colons, - and _ are wanted")),
    }
}

/// Whole seconds, since each row says so many.
fn resume_window(text: &str) -> Result<Option<NonZeroU32>, String> {
    match value::duration(text)? {
        window if window.is_zero() => Ok(None),
        window if window < Duration::from_secs(1) => Err("at least 1s is wanted, or 0".into()),
        window if window > WINDOW_MAX => Err("a day at most is wanted".into()),
        window => Ok(u32::try_from(window.as_secs()).ok().and_then(NonZeroU32::new)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<const N: usize>(pairs: [(&str, &str); N]) -> Environment {
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn from_env<const N: usize>(pairs: [(&str, &str); N]) -> Reading {
        read(&BTreeMap::new(), None, &env(pairs))
    }

    /// Checklist 275.
    #[test]
    fn the_defaults_are_valid() {
        let config = from_env([]).config.unwrap();
        assert_eq!((config.port, config.ping_interval), (8080, Duration::from_secs(30)));
        assert_eq!((config.cap.sockets_max, config.message_bytes_max), (5, 65536));
    }

    #[test]
    fn all_problems_are_reported_at_once_and_no_secret_with_them() {
        let reading = from_env([
            ("PORT", "eighty"),
            ("WS_PING_INTERVAL", "often"),
            ("CORS_ORIGINS", "localhost,invalid-url"),
            ("API_TOKEN", "hush"),
            ("REDIS_URL", "redis://:hush@h:port"),
            ("NAMESPACE", "a{b}"),
            ("HOOK_SECRET", "hush"),
        ]);
        let faults = reading.config.unwrap_err();
        let names: Vec<_> = faults.iter().map(|fault| fault.setting.as_str()).collect();
        assert_eq!(names, ["WS_PING_INTERVAL", "PORT", "REDIS_URL", "NAMESPACE", "HOOK_SECRET", "CORS_ORIGINS"]);
        assert!(faults[5].fix.contains("localhost, invalid-url"), "{}", faults[3]);
        assert!(!format!("{faults:?}").contains("hush"));
    }

    #[test]
    fn redis_is_unset_or_read_and_never_shown_whole() {
        let config = from_env([]).config.unwrap();
        assert_eq!((config.redis, config.namespace.as_str()), (None, "holdfast"));
        let config =
            from_env([("REDIS_URL", "redis://me:hush@h:1/2 # ours"), ("NAMESPACE", "a.b_c:d-1")]).config.unwrap();
        assert_eq!(config.redis.as_ref().unwrap().shown(), "redis://h:1/2");
        assert_eq!(config.namespace, "a.b_c:d-1");
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn the_url_of_redis_may_stand_in_a_file() {
        let path = std::env::temp_dir().join(format!("holdfast-redis-url-{}", std::process::id()));
        std::fs::write(&path, "redis://:hush@h\n").unwrap();
        let reading = from_env([("REDIS_URL_FILE", path.to_str().unwrap())]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(reading.config.unwrap().redis.unwrap().shown(), "redis://h:6379");
        assert_eq!(reading.sources.warnings, [""; 0]);
    }

    #[test]
    fn a_namespace_is_short_and_plain() {
        for good in ["a", "A.b_c:d-1", &"n".repeat(64)] {
            assert!(from_env([("NAMESPACE", good)]).config.is_ok(), "{good}");
        }
        for bad in ["a{b}", "a b", "ä", "a\u{1}b", "a*", &"n".repeat(65)] {
            let faults = from_env([("NAMESPACE", bad)]).config.unwrap_err();
            assert_eq!((faults.len(), faults[0].setting.as_str()), (1, "NAMESPACE"), "{bad}");
        }
    }

    #[test]
    fn the_prefixed_name_beats_the_bare_one_and_a_flag_beats_both() {
        let env = env([("PORT", "1"), ("HOLDFAST_PORT", "2")]);
        assert_eq!(read(&BTreeMap::new(), None, &env).config.unwrap().port, 2);
        let flags = BTreeMap::from([("PORT".to_owned(), "3".to_owned())]);
        assert_eq!(read(&flags, None, &env).config.unwrap().port, 3);
    }

    #[test]
    fn an_unknown_variable_is_a_warning_with_the_nearest_name() {
        let reading = from_env([("HOLDFAST_PROT", "1"), ("DEBUG", "express:*")]);
        assert!(reading.config.is_ok());
        assert!(reading.sources.warnings[0].contains("HOLDFAST_PORT"), "{:?}", reading.sources.warnings);
        assert!(reading.sources.warnings[1].contains("express:*"));
    }

    /// Checklist 255.
    #[test]
    fn log_levels_in_the_spellings_of_other_worlds() {
        let filter = |text| from_env([("LOG_LEVEL", text)]).config.unwrap().live.log_filter;
        assert_eq!(filter("WARNING"), "warn,gateway=warn,registry=warn");
        assert_eq!(filter("Critical"), "warn,gateway=error,registry=error");
        assert_eq!(filter("info,gateway::http=DEBUG"), "warn,gateway=info,registry=info,gateway::http=debug");
        for wrong in ["loud", "hyper=trace", "gateway/http=info"] {
            assert!(from_env([("LOG_LEVEL", wrong)]).config.is_err(), "{wrong}");
        }
    }
}
