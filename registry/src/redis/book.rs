//! The book of keys by which clients prove who they are, and tickets that let one in once. What stands on a page or
//! behind a ticket is the gateway's; here it is a name and a text.

use super::{
    Redis,
    beat::ms,
    scripts::{REDEEM, WRITE, number, text},
};
use crate::{
    all::Unknown,
    book::{Book, TICKET_STANDS, VERSION},
    once::Hashed,
};
use redis::{Value, cmd};

impl Redis {
    pub(crate) async fn book_version(&self) -> Result<u64, Unknown> {
        let said = self.link.ask(cmd("HGET").arg(self.keys.book()).arg(VERSION)).await;
        said.map(|said| number(Some(&said))).map_err(|_| Unknown::Unavailable)
    }

    pub(crate) async fn book(&self) -> Result<Book, Unknown> {
        let said = self.link.ask(cmd("HGETALL").arg(self.keys.book())).await.map_err(|_| Unknown::Unavailable)?;
        let said = match said {
            Value::Map(pairs) => pairs,
            Value::Array(flat) => {
                let mut flat = flat.into_iter();
                std::iter::from_fn(|| Some((flat.next()?, flat.next()?))).collect()
            }
            _ => Vec::new(),
        };
        let mut book = Book::default();
        for (name, page) in &said {
            match text(Some(name)) {
                VERSION => book.version = number(Some(page)),
                name => _ = book.pages.insert(name.to_owned(), text(Some(page)).to_owned()),
            }
        }
        Ok(book)
    }

    pub(crate) async fn book_page(&self, name: &str) -> Result<Option<String>, Unknown> {
        let said = self.link.ask(cmd("HGET").arg(self.keys.book()).arg(name)).await;
        let page = said.map(|said| text(Some(&said)).to_owned()).map_err(|_| Unknown::Unavailable)?;
        Ok(Some(page).filter(|page| !page.is_empty()))
    }

    pub(crate) async fn write_page(
        &self,
        name: &str,
        expected: Option<&str>,
        page: Option<&str>,
    ) -> Result<bool, Unknown> {
        let call = WRITE.on([self.keys.book()]).arg(name).arg(expected.unwrap_or_default());
        let said = call.arg(page.unwrap_or_default()).run(&self.link).await;
        said.map(|said| number(said.first()) == 1).map_err(|_| Unknown::Unavailable)
    }

    pub(crate) async fn put_ticket(&self, ticket: Hashed, held: &str) -> Result<(), Unknown> {
        let mut set = cmd("SET");
        set.arg(self.keys.ticket(ticket)).arg(held).arg("PX").arg(ms(TICKET_STANDS));
        self.link.ask(&set).await.map(drop).map_err(|_| Unknown::Unavailable)
    }

    pub(crate) async fn ticket(&self, ticket: Hashed) -> Result<Option<String>, Unknown> {
        let said = self.link.ask(cmd("GET").arg(self.keys.ticket(ticket))).await.map_err(|_| Unknown::Unavailable)?;
        Ok(Some(text(Some(&said)).to_owned()).filter(|held| !held.is_empty()))
    }

    pub(crate) async fn redeem(&self, ticket: Hashed) -> Result<Option<String>, Unknown> {
        let said = REDEEM.on([self.keys.ticket(ticket)]).run(&self.link).await.map_err(|_| Unknown::Unavailable)?;
        Ok(said.first().map(|held| text(Some(held)).to_owned()).filter(|held| !held.is_empty()))
    }
}
