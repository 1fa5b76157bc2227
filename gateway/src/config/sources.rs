//! Where values come from: flag beats environment beats file beats default.

use super::{
    settings::{SETTINGS, Setting},
    value::uncommented,
};
use std::{collections::BTreeMap, fmt, fs, path::Path};

/// The process's environment, or a test's.
pub type Environment = BTreeMap<String, String>;

/// Where one value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Flag,
    /// Under this name: with `HOLDFAST_` in front, or bare.
    Environment(String),
    File(String),
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One value before it is understood. Empty means unset.
#[derive(Debug, Clone)]
pub struct Given {
    pub text: String,
    pub source: Source,
}

/// What is wrong with a configuration. Never holds a secret's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub setting: String,
    pub value: Option<String>,
    pub fix: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}: {}", self.setting, self.fix),
            None => write!(f, "{}: {}", self.setting, self.fix),
        }
    }
}

/// Everything that was given, and what was odd about it.
#[derive(Debug, Default)]
pub struct Sources {
    given: BTreeMap<&'static str, Given>,
    pub faults: Vec<Fault>,
    pub warnings: Vec<String>,
}

impl Sources {
    /// Collects. `flags` are by setting name; `config` may name a file.
    pub fn collect(flags: &BTreeMap<String, String>, config: Option<&str>, env: &Environment) -> Self {
        let mut sources = Self::default();
        let config = config.map(str::to_owned).or_else(|| from_env(env, "CONFIG").map(|(_, path)| path.to_owned()));
        let file = config.map(|path| (sources.read_file(&path), path));
        for setting in SETTINGS {
            let given = flags
                .get(setting.name)
                .filter(|text| !text.trim().is_empty())
                .map(|text| Given { text: text.clone(), source: Source::Flag })
                .or_else(|| sources.in_environment(setting, env))
                .or_else(|| {
                    let (values, path) = file.as_ref()?;
                    let text = values.get(&setting.key()).filter(|text| !text.trim().is_empty())?.clone();
                    Some(Given { text, source: Source::File(path.clone()) })
                });
            sources.given.insert(
                setting.name,
                given.unwrap_or_else(|| Given { text: setting.default.into(), source: Source::Default }),
            );
        }
        sources.notice_strangers(env);
        sources
    }

    /// The value of a setting; the default, when nobody gave one.
    pub fn get(&self, name: &str) -> Option<&Given> {
        self.given.get(name)
    }

    fn in_environment(&mut self, setting: &Setting, env: &Environment) -> Option<Given> {
        let direct = from_env(env, setting.name)
            .map(|(name, text)| Given { text: text.to_owned(), source: Source::Environment(name) });
        if direct.is_some() || !setting.kind.is_secret() {
            return direct;
        }
        let (name, path) = from_env(env, &format!("{}_FILE", setting.name))?;
        match fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => {
                let fix = "the file is empty".into();
                self.faults.push(Fault { setting: name, value: Some(path.to_owned()), fix });
                None
            }
            Ok(text) => Some(Given { text: text.trim().to_owned(), source: Source::Environment(name) }),
            Err(error) => {
                let fix = format!("cannot read the file: {error}");
                self.faults.push(Fault { setting: name, value: Some(path.to_owned()), fix });
                None
            }
        }
    }

    fn read_file(&mut self, path: &str) -> BTreeMap<String, String> {
        let mut fault = |setting: &str, fix: String| {
            self.faults.push(Fault { setting: setting.into(), value: Some(path.into()), fix });
        };
        let text = match fs::read_to_string(Path::new(path)) {
            Ok(text) => text,
            Err(error) => {
                fault("CONFIG", format!("cannot read the file: {error}"));
                return BTreeMap::new();
            }
        };
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                fault("CONFIG", format!("not TOML: {}", error.message()));
                return BTreeMap::new();
            }
        };
        let mut values = BTreeMap::new();
        for (key, value) in table {
            let known = SETTINGS.iter().any(|setting| setting.key() == key);
            match as_text(&value).filter(|_| known) {
                Some(text) => drop(values.insert(key, text)),
                None if known => fault(&key, "a text, number, boolean or list of texts is wanted".into()),
                None => {
                    let meant = nearest(&key.to_uppercase()).to_lowercase();
                    fault(&key, format!("unknown setting; did you mean {meant}?"));
                }
            }
        }
        values
    }

    fn notice_strangers(&mut self, env: &Environment) {
        for variable in env.keys() {
            let Some(name) = variable.strip_prefix("HOLDFAST_") else { continue };
            let secret = name.strip_suffix("_FILE").filter(|name| is_secret(name));
            let known = SETTINGS.iter().any(|setting| setting.name == name) || secret.is_some() || name == "CONFIG";
            if !known {
                self.warnings.push(format!("unknown variable {variable}; did you mean HOLDFAST_{}?", nearest(name)));
            }
        }
    }
}

fn is_secret(name: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.name == name && setting.kind.is_secret())
}

/// `HOLDFAST_<NAME>` beats the bare name; an empty value is no value.
fn from_env<'a>(env: &'a Environment, name: &str) -> Option<(String, &'a str)> {
    [format!("HOLDFAST_{name}"), name.to_owned()].into_iter().find_map(|name| {
        let text = uncommented(env.get(&name)?);
        (!text.is_empty()).then_some((name, text))
    })
}

fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Array(parts) => parts.iter().map(as_text).collect::<Option<Vec<_>>>().map(|parts| parts.join(",")),
        _ => None,
    }
}

/// The known name that takes the fewest changes.
fn nearest(name: &str) -> &'static str {
    let names = SETTINGS.iter().map(|setting| setting.name);
    names.min_by_key(|known| distance(name, known)).unwrap_or("PORT")
}

pub fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
