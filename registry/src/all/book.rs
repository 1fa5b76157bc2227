//! The verbs of the book of keys, and of tickets.

use super::{Registry, Unknown};
use crate::{book::Book, once::Hashed};

impl Registry {
    /// How often the book was changed.
    pub async fn book_version(&self) -> Result<u64, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.book().version),
            Self::Redis(redis) => redis.book_version().await,
        }
    }

    pub async fn book(&self) -> Result<Book, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.book()),
            Self::Redis(redis) => redis.book().await,
        }
    }

    pub async fn book_page(&self, name: &str) -> Result<Option<String>, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.book().pages.remove(name)),
            Self::Redis(redis) => redis.book_page(name).await,
        }
    }

    /// Writes a page, or takes it out, if what stands there is what was expected; says whether that was so.
    pub async fn write_page(&self, name: &str, expected: Option<&str>, page: Option<&str>) -> Result<bool, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.write_page(name, expected, page)),
            Self::Redis(redis) => redis.write_page(name, expected, page).await,
        }
    }

    /// Lets one in who shows this ticket, for a while.
    pub async fn put_ticket(&self, ticket: Hashed, held: &str) -> Result<(), Unknown> {
        match self {
            Self::Memory(local) => local.memory.put_ticket(ticket, held),
            Self::Redis(redis) => redis.put_ticket(ticket, held).await?,
        }
        Ok(())
    }

    /// What a ticket is for; it stays good.
    pub async fn ticket(&self, ticket: Hashed) -> Result<Option<String>, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.ticket(ticket)),
            Self::Redis(redis) => redis.ticket(ticket).await,
        }
    }

    /// What a ticket is for; to the first who asks.
    pub async fn redeem(&self, ticket: Hashed) -> Result<Option<String>, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.redeem(ticket)),
            Self::Redis(redis) => redis.redeem(ticket).await,
        }
    }
}
