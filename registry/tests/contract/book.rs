//! The book of keys, and tickets.

use super::Fleet;
use futures_util::future::join_all;
use registry::{Hashed, SocketId};

pub async fn what_is_written_into_the_book_is_seen_by_all(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let before = two.book_version().await.unwrap();
    assert!(one.write_page("a", None, Some("first")).await.unwrap());
    assert!(one.write_page("b", None, Some("second")).await.unwrap());
    let changed = two.book_version().await.unwrap();
    assert_ne!(changed, before);
    assert!(!two.write_page("a", None, Some("other")).await.unwrap(), "something stands there");
    assert!(!two.write_page("a", Some("other"), None).await.unwrap(), "something else stands there");
    assert_eq!(two.book_version().await.unwrap(), changed);
    assert_eq!(two.book_page("a").await.unwrap().as_deref(), Some("first"));
    assert!(two.write_page("a", Some("first"), None).await.unwrap());
    assert_eq!(one.book_page("a").await.unwrap(), None);
    let book = one.book().await.unwrap();
    assert_eq!(book.pages.into_iter().collect::<Vec<_>>(), [("b".to_owned(), "second".to_owned())]);
    assert_eq!(book.version, one.book_version().await.unwrap());
    assert_ne!(book.version, changed);
}

pub async fn a_ticket_is_redeemed_once(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let ticket = Hashed::of(&[SocketId::fresh().short().as_bytes()]);
    assert_eq!(one.redeem(ticket).await.unwrap(), None);
    one.put_ticket(ticket, "ann").await.unwrap();
    assert_eq!(two.ticket(ticket).await.unwrap().as_deref(), Some("ann"), "looking at it costs nothing");
    let tries = (0..8).map(
        async |nth: usize| if nth.is_multiple_of(2) { one.redeem(ticket).await } else { two.redeem(ticket).await },
    );
    let got: Vec<_> = join_all(tries).await.into_iter().filter_map(|got| got.unwrap()).collect();
    assert_eq!(got, ["ann"]);
}
