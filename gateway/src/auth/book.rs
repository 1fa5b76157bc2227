//! The API keys that count here: those of a file, or of the registry, where every instance sees them. They are read again
//! when they change.

use super::key::{self, ApiKey, Digest};
use arc_swap::ArcSwap;
use registry::{Registry, Unknown};
use serde_json::{Map, Value};
use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};
use tracing::{error, info, warn};

/// How often it is looked whether they have changed: a key that is revoked ends its sockets within a second.
const LOOK: Duration = Duration::from_millis(400);
/// A larger file is none of keys.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// A disk that takes so long is told of.
const SLOW: Duration = Duration::from_secs(10);
/// Without a look for so long nobody can say that a key was not revoked.
const FRESH: Duration = Duration::from_secs(3);

/// Where they stand.
#[derive(Clone)]
pub enum Source {
    File(PathBuf),
    Registry(Registry),
}

/// What is known of a key that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Key(Digest, Arc<ApiKey>),
    Expired,
    Unknown,
    /// It cannot be looked up now.
    Blind,
}

type Keys = HashMap<Digest, Arc<ApiKey>>;

/// The keys.
pub struct Book {
    source: Source,
    keys: ArcSwap<Keys>,
    /// When they were last known to be all.
    looked_at: Mutex<Option<Instant>>,
    /// Those that Redis has lost: nobody has revoked them, so whoever is here with one stays.
    lost: ArcSwap<HashSet<Digest>>,
}

/// What tells one state of a source from another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Version {
    #[default]
    Unseen,
    Nothing,
    /// Its number, and when it was last changed in any way.
    File(u64, i64, i64),
    Registry(u64),
}

impl Version {
    /// A registry's number only grows, but where Redis has lost some of it.
    fn is_older_than(&self, seen: &Self) -> bool {
        matches!((self, seen), (Self::Registry(now), Self::Registry(seen)) if now < seen)
    }
}

impl Book {
    pub fn new(source: Source) -> Self {
        Self { source, keys: ArcSwap::default(), looked_at: Mutex::default(), lost: ArcSwap::default() }
    }

    /// Whether a key counts. One that is not known yet may have been added a moment ago.
    ///
    /// There is one way for all that is shown. Nothing of a key names it: it is looked up by the digest of all of it, so that
    /// one which differs in its last letter is as unknown as one that never was, after the same steps, and how far two
    /// digests are the same nobody can choose. They are compared in constant time all the same.
    pub async fn find(&self, shown: &str, now: u64) -> Found {
        let digest = Digest::of(shown);
        let found = if self.is_fresh() { self.still(digest).await } else { Err(Unknown::Unavailable) };
        match found {
            Ok(Some(key)) if key.is_over(now) => Found::Expired,
            Ok(Some(key)) => Found::Key(digest, key),
            Ok(None) => Found::Unknown,
            Err(_) => Found::Blind,
        }
    }

    /// The same of those that are known already, for whoever cannot wait.
    pub fn knows(&self, shown: &str, now: u64) -> Option<Arc<ApiKey>> {
        self.of(Digest::of(shown)).filter(|key| self.is_fresh() && !key.is_over(now))
    }

    fn of(&self, digest: Digest) -> Option<Arc<ApiKey>> {
        self.keys.load().get(&digest).cloned()
    }

    /// What is written of a key that counted once: nothing, if it was revoked. An error where nobody can say.
    pub async fn still(&self, digest: Digest) -> Result<Option<Arc<ApiKey>>, Unknown> {
        match (self.of(digest), &self.source) {
            (None, Source::Registry(registry)) => {
                let page = registry.book_page(&digest.to_string()).await?;
                Ok(page.and_then(|page| parse(&page).ok()).map(Arc::new))
            }
            (known, _) => Ok(known),
        }
    }

    /// Reads them for the first time. A file that cannot be read is no state to start in; a registry may come later.
    pub async fn open(&self) -> Result<(), String> {
        match &self.source {
            Source::File(_) => self.put(self.source.read().await?),
            Source::Registry(_) => {
                if let Ok(keys) = self.source.read().await {
                    self.put(keys);
                }
            }
        }
        Ok(())
    }

    fn put(&self, keys: Keys) {
        self.keys.store(Arc::new(keys));
        self.was_looked_at();
    }

    fn was_looked_at(&self) {
        *self.looked_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether what is known of them is what stands there. A file that cannot be read leaves those before in force.
    fn is_fresh(&self) -> bool {
        let looked_at = *self.looked_at.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(self.source, Source::File(_)) || looked_at.is_some_and(|at| at.elapsed() < FRESH)
    }

    /// Waits until they have changed since they were `seen`, and reads them.
    pub async fn changed(&self, seen: &mut Version) {
        let mut failed = Version::Unseen;
        loop {
            match self.version().await {
                Some(now) if now != *seen => match self.source.read().await {
                    Ok(_) if now == Version::Nothing && *seen != Version::Unseen => {
                        // Somebody may be about to put another there.
                        self.tell(&mut failed, now, "the file is not there");
                    }
                    Ok(keys) => {
                        info!("{} API keys count", keys.len());
                        if now.is_older_than(seen) {
                            self.lose(&keys);
                        }
                        self.put(keys);
                        *seen = now;
                        return;
                    }
                    Err(why) => self.tell(&mut failed, now, &why),
                },
                Some(_) => self.was_looked_at(),
                None => {}
            }
            sleep(LOOK).await;
        }
    }

    /// Redis came back with an older book, or with none.
    fn lose(&self, left: &Keys) {
        let known = self.keys.load();
        let lost: HashSet<_> = known.keys().filter(|digest| !left.contains_key(digest)).copied().collect();
        if !lost.is_empty() {
            error!(
                "Redis has lost {} API keys: whoever is here with one stays, and nobody new comes in with it; add them again, or keep them in API_KEYS_FILE",
                lost.len()
            );
            self.lost.store(Arc::new(self.lost.load().union(&lost).copied().collect()));
        }
    }

    pub fn has_lost(&self, digest: Digest) -> bool {
        self.lost.load().contains(&digest)
    }

    /// Once for each state that cannot be read.
    fn tell(&self, failed: &mut Version, now: Version, why: &str) {
        if *failed != now {
            error!("the API keys before stay in force: {why}");
            *failed = now;
        }
    }

    async fn version(&self) -> Option<Version> {
        match &self.source {
            Source::File(path) => aside(path, |path| {
                fs::metadata(path)
                    .map_or(Version::Nothing, |data| Version::File(data.ino(), data.ctime(), data.ctime_nsec()))
            })
            .await
            .ok(),
            Source::Registry(registry) => registry.book_version().await.ok().map(Version::Registry),
        }
    }
}

impl Source {
    async fn read(&self) -> Result<Keys, String> {
        match self {
            Self::File(path) => aside(path, read_file).await?,
            Self::Registry(registry) => {
                let book = registry.book().await.map_err(|_| "Redis does not answer".to_owned())?;
                Ok(read_book(&book.pages))
            }
        }
    }

    /// All of them, in the order in which they were made.
    pub async fn list(&self) -> Result<Vec<(Digest, ApiKey)>, String> {
        let keys = self.read().await?;
        let mut all: Vec<_> = keys.into_iter().map(|(digest, key)| (digest, ApiKey::clone(&key))).collect();
        all.sort_by_key(|(digest, key)| (key.created_at, digest.to_string()));
        Ok(all)
    }

    /// Writes one, or takes it out, if it is still what was seen.
    pub async fn write(&self, digest: Digest, seen: Option<&ApiKey>, key: Option<&ApiKey>) -> Result<(), String> {
        let other = || format!("somebody else has changed {} meanwhile; look again", digest.id());
        match self {
            Self::File(path) => {
                let fault = |error: io::Error| format!("{} cannot be written: {error}", path.display());
                // Nobody else reads and writes in between.
                let _lock = lock(path).map_err(fault)?;
                let mut keys = read_file(path)?;
                if keys.get(&digest).map(|key| &**key) != seen {
                    return Err(other());
                }
                match key {
                    Some(key) => _ = keys.insert(digest, Arc::new(key.clone())),
                    None => _ = keys.remove(&digest),
                }
                write_file(path, &keys).map_err(fault)
            }
            Self::Registry(registry) => {
                let page = |key: Option<&ApiKey>| key.map(|key| key.write().to_string());
                let blind = |_| "Redis does not answer; whether it was written is not known".to_owned();
                // Somebody may have written it by hand, in other words.
                let stands = registry.book_page(&digest.to_string()).await.map_err(blind)?;
                if stands.as_deref().and_then(|page| parse(page).ok()).as_ref() != seen {
                    return Err(other());
                }
                let done = registry.write_page(&digest.to_string(), stands.as_deref(), page(key).as_deref()).await;
                if done.map_err(blind)? { Ok(()) } else { Err(other()) }
            }
        }
    }
}

/// Looks at the file on a thread that may wait for a disk, so that no socket does. One that waits for very long is not
/// given up: each further look would take a thread more.
async fn aside<T: Send + 'static>(path: &Path, look: fn(&Path) -> T) -> Result<T, String> {
    let own = path.to_owned();
    let mut looking = spawn_blocking(move || look(&own));
    let looked = match timeout(SLOW, &mut looking).await {
        Ok(looked) => looked,
        Err(_) => {
            error!("{} could not be read for {} s; what is known of it stays as it is", path.display(), SLOW.as_secs());
            looking.await
        }
    };
    looked.map_err(|fault| format!("{} was not read: {fault}", path.display()))
}

/// Held by whoever changes a file of keys.
fn lock(path: &Path) -> io::Result<fs::File> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let mut open = fs::OpenOptions::new();
    let file = open.write(true).create(true).truncate(false).mode(0o600).open(beside)?;
    file.lock()?;
    Ok(file)
}

fn parse(page: &str) -> Result<ApiKey, String> {
    ApiKey::read(&serde_json::from_str(page).map_err(|error| error.to_string())?)
}

/// One page that cannot be read costs its own key, and no other.
fn read_book<'a>(pages: impl IntoIterator<Item = (&'a String, &'a String)>) -> Keys {
    let mut keys = Keys::new();
    for (name, page) in pages {
        match (Digest::parse(name), parse(page)) {
            (Some(digest), Ok(key)) => _ = keys.insert(digest, Arc::new(key)),
            (None, _) => warn!("what stands in the book of keys under a name that is no digest does not count"),
            (Some(digest), Err(why)) => warn!("API key {} does not count: {why}", digest.id()),
        }
    }
    keys
}

/// `{"keys": {"<SHA-256 of the key>": {"user": …}}}`; a file that is not there is one without keys.
fn read_file(path: &Path) -> Result<Keys, String> {
    let fault = |why: String| format!("{}: {why}", path.display());
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Keys::new()),
        Ok(data) if data.len() > FILE_BYTES_MAX => return Err(fault("too large for a file of keys".into())),
        _ => {}
    }
    let text = fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    let read: Value = serde_json::from_str(&text).map_err(|error| fault(format!("not JSON: {error}")))?;
    let Some(Value::Object(members)) = read.get("keys") else {
        return Err(fault("{\"keys\": {…}} is wanted; holdfast keys add writes it".into()));
    };
    let keys = members.iter().map(|(name, written)| {
        // Whoever puts the key itself there by mistake must not find it in a log.
        let digest = Digest::parse(name).ok_or_else(|| {
            fault(
                "a name under \"keys\" is not the SHA-256 of a key in hexadecimal digits; holdfast keys add writes it"
                    .into(),
            )
        })?;
        let key = ApiKey::read(written).map_err(|why| fault(format!("key {}: {why}", digest.id())))?;
        Ok((digest, Arc::new(key)))
    });
    keys.collect()
}

/// At once or not at all. Whoever could read it before can read it after; a new one is for nobody else.
fn write_file(path: &Path, keys: &Keys) -> io::Result<()> {
    let mut all: Vec<_> = keys.iter().map(|(digest, key)| (digest.to_string(), key.write())).collect();
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    let all = Map::from_iter([("keys".to_owned(), Value::Object(all.into_iter().collect()))]);
    let text = serde_json::to_string_pretty(&all)?;
    // The file itself, where the path is a link to it.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", registry::names::mark()));
    let mut open = fs::OpenOptions::new();
    let mut file = open.write(true).create_new(true).mode(0o600).open(&beside)?;
    let mut written = || -> io::Result<()> {
        if let Ok(before) = fs::metadata(path) {
            fchown(&file, Some(before.uid()), Some(before.gid()))?;
            file.set_permissions(before.permissions())?;
        }
        file.write_all(format!("{text}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    let written = written();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Of several keys, the one that people mean by the beginning of its digest.
pub fn named<'a>(keys: &'a [(Digest, ApiKey)], id: &str) -> Result<&'a (Digest, ApiKey), String> {
    let id = id.to_ascii_lowercase();
    if key::is_key(&id) {
        return Err("name it by its id, as holdfast keys list shows it, not by the key itself".into());
    }
    let mut fits = keys.iter().filter(|(digest, _)| !id.is_empty() && digest.to_string().starts_with(&id));
    match (fits.next(), fits.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(format!("several keys begin with {id}; write more of it")),
        (None, _) => Err(format!("there is no key {id}; holdfast keys list shows them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use registry::UserName;
    use serde_json::json;

    fn key(user: &str) -> ApiKey {
        ApiKey::read(&json!({"user": user, "expires_at": 2_000_000_000_000_u64})).unwrap()
    }

    /// The test has one thread: it goes on while the file is waited for.
    #[tokio::test]
    async fn a_disk_that_waits_holds_up_nobody_else() {
        let path = std::env::temp_dir().join(format!("holdfast-pipe-{}", std::process::id()));
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let book = Book::new(Source::File(path.clone()));
        let opening = book.open();
        tokio::pin!(opening);
        assert!(timeout(Duration::from_millis(50), &mut opening).await.is_err());
        let disk = std::thread::spawn({
            let path = path.clone();
            move || fs::write(path, r#"{"keys": {}}"#).unwrap()
        });
        opening.await.unwrap();
        disk.join().unwrap();
        fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_file_holds_digests_and_is_read_again_when_it_changes() {
        let folder =
            std::env::temp_dir().join(format!("holdfast-book-{}-{}", std::process::id(), registry::names::mark()));
        fs::create_dir(&folder).unwrap();
        let source = Source::File(folder.join("keys.json"));
        assert_eq!(source.list().await.unwrap(), []);
        source.write(Digest::of("nk_one"), None, Some(&key("ann"))).await.unwrap();
        source.write(Digest::of("nk_two"), None, Some(&key("bob"))).await.unwrap();
        let why = source.write(Digest::of("nk_two"), Some(&key("eve")), None).await.unwrap_err();
        assert!(why.contains("somebody else"), "{why}");
        let text = fs::read_to_string(folder.join("keys.json")).unwrap();
        assert!(!text.contains("nk_") && text.contains(&Digest::of("nk_one").to_string()), "{text}");
        let book = Book::new(source.clone());
        book.open().await.unwrap();
        assert_eq!(book.find("nk_one", 1).await, Found::Key(Digest::of("nk_one"), Arc::new(key("ann"))));
        assert_eq!(book.find("nk_one", 2_000_000_000_000).await, Found::Expired);
        for near in ["nk_three", "nk_onf", "nk_on", "nk_onee", "nk_", "", &Digest::of("nk_one").to_string()] {
            assert_eq!(book.find(near, 1).await, Found::Unknown, "{near}");
        }
        source.write(Digest::of("nk_one"), Some(&key("ann")), None).await.unwrap();
        let all = source.list().await.unwrap();
        assert_eq!(named(&all, &Digest::of("nk_two").id()).unwrap().1.user, UserName::parse("bob").unwrap());
        assert!(named(&all, "").is_err() && named(&all, "nk_two").is_err() && named(&all, "0").is_err());
        for odd in ["x", "{}", r#"{"keys": {"nk_secret": {"user": "u"}}}"#] {
            fs::write(folder.join("keys.json"), odd).unwrap();
            let why = book.open().await.unwrap_err();
            assert!(why.contains("keys.json") && !why.contains("nk_secret"), "{why}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
