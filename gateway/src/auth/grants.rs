//! What a credential grants: under which names somebody comes in, and for how long.

use super::key::{ApiKey, Digest, Scope};
use crate::admission::names::Names;
use registry::{RoomName, SocketRecord, StoreName, UserName};

/// Of one credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    pub user: UserName,
    pub stores: Vec<StoreName>,
    /// `None`: any room.
    pub rooms: Option<Vec<RoomName>>,
    /// Epoch milliseconds of this host.
    pub until: Option<u64>,
    /// The key, if it is one: it may be revoked.
    pub key: Option<Digest>,
    pub by: By,
    /// What the application grants beside it, by its connect hook.
    pub more: Option<Box<Granted>>,
}

/// What an application grants to a connection, whatever its credential says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    pub user: Option<UserName>,
    pub stores: Vec<StoreName>,
    pub rooms: Vec<RoomName>,
}

/// What kind of credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Key,
    Jwt,
    Session,
    Ticket,
    Proxy,
}

impl By {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "keys",
            Self::Jwt => "jwt",
            Self::Session => "session",
            Self::Ticket => "ticket",
            Self::Proxy => "proxy",
        }
    }
}

impl Grants {
    pub fn of_key(digest: Digest, key: &ApiKey) -> Self {
        let ApiKey { user, stores, rooms, expires_at, .. } = key.clone();
        Self { user, stores, rooms, until: expires_at, key: Some(digest), by: By::Key, more: None }
    }

    /// Under which name somebody comes in.
    fn user(&self) -> &UserName {
        self.more.as_ref().and_then(|more| more.user.as_ref()).unwrap_or(&self.user)
    }

    pub fn has_store(&self, store: &StoreName) -> bool {
        self.stores.contains(store) || self.more.as_ref().is_some_and(|more| more.stores.contains(store))
    }

    pub fn has_room(&self, room: &RoomName) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| rooms.contains(room))
            || self.more.as_ref().is_some_and(|more| more.rooms.contains(room))
    }

    /// Whether a socket that was here before may be had with it, as it is.
    pub fn covers(&self, record: &SocketRecord) -> bool {
        record.user.as_ref() == Some(self.user())
            && record.store.iter().all(|store| self.has_store(store))
            && record.rooms.iter().all(|room| self.has_room(room))
    }

    /// Whether a key that was changed still says the same.
    pub fn is_as(&self, key: &ApiKey) -> bool {
        key.may(Scope::Connect) && (&key.user, &key.stores, &key.rooms) == (&self.user, &self.stores, &self.rooms)
    }

    /// Puts the user that it says into the names, and holds the rooms against it.
    pub fn bound(&self, mut names: Names) -> Result<Names, NotYours> {
        if let Some(user) = names.user.filter(|user| *user != self.user) {
            return Err(NotYours::new("user_id", user.as_str()));
        }
        if let Some(room) = names.rooms.iter().find(|room| !self.has_room(room)) {
            return Err(NotYours::new("room", room.as_str()));
        }
        names.user = Some(self.user.clone());
        Ok(names)
    }

    /// Apart, since a connect hook may still grant the store.
    pub fn check_store(&self, names: &Names) -> Result<(), NotYours> {
        match names.store.as_ref().filter(|store| !self.has_store(store)) {
            Some(store) => Err(NotYours::new("store", store.as_str())),
            None => Ok(()),
        }
    }
}

/// A name that the credential does not grant.
#[derive(Debug, PartialEq, Eq)]
pub struct NotYours {
    pub what: &'static str,
    pub name: String,
}

impl NotYours {
    fn new(what: &'static str, name: &str) -> Self {
        Self { what, name: name.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(user: Option<&str>, store: Option<&str>, rooms: &[&str]) -> Names {
        Names {
            user: user.map(|user| UserName::parse(user).unwrap()),
            store: store.map(|store| StoreName::parse(store).unwrap()),
            rooms: rooms.iter().map(|room| RoomName::parse(room).unwrap()).collect(),
            ..Names::default()
        }
    }

    #[test]
    fn a_name_counts_if_the_credential_grants_it() {
        let some = Grants {
            user: UserName::parse("ann").unwrap(),
            stores: vec![StoreName::parse("s").unwrap()],
            rooms: Some(vec![RoomName::parse("r").unwrap()]),
            until: None,
            key: None,
            by: By::Jwt,
            more: None,
        };
        let any_room = Grants { rooms: None, ..some.clone() };
        let title = |grants: &Grants, names| match grants
            .bound(names)
            .and_then(|names| grants.check_store(&names).map(|()| names))
        {
            Ok(names) => names.user.unwrap().to_string(),
            Err(NotYours { what, name }) => format!("{what} {name}"),
        };
        assert_eq!(title(&some, names(None, Some("s"), &["r"])), "ann");
        assert_eq!(title(&some, names(Some("ann"), None, &[])), "ann");
        assert_eq!(title(&some, names(Some("bob"), None, &[])), "user_id bob");
        assert_eq!(title(&some, names(None, Some("t"), &[])), "store t");
        assert_eq!(title(&some, names(None, None, &["r", "q"])), "room q");
        assert_eq!(title(&any_room, names(None, None, &["r", "q"])), "ann");
        let granted = Granted { user: None, stores: vec![StoreName::parse("t").unwrap()], rooms: Vec::new() };
        let more = Grants { more: Some(Box::new(granted)), ..some };
        assert_eq!(title(&more, names(None, Some("t"), &["r"])), "ann");
        assert_eq!(title(&more, names(None, Some("u"), &["r"])), "store u");
    }
}
