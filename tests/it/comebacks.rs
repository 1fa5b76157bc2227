//! A client that comes back with the token of its last `hi`.

use crate::{client::Client, gateway::Gateway};
use serde_json::Value;
use std::net::SocketAddr;
use tokio_tungstenite::tungstenite::Message;

/// A page that keeps what it needs to come back.
pub struct Page {
    pub client: Client,
    pub hi: Value,
    /// Whether it was told to load afresh.
    pub reset: bool,
}

impl Page {
    /// For the first time.
    pub async fn opens(gateway: &Gateway, query: &str) -> Self {
        let page = Self::comes(gateway, query, "", 0).await;
        assert!(page.reset && page.hi["resumed"] == false, "{}", page.hi);
        page
    }

    pub async fn comes(gateway: &Gateway, query: &str, token: &str, last_seq: u64) -> Self {
        Self::comes_to(gateway.address(), query, token, last_seq).await
    }

    /// To a gateway, or to what is before it.
    pub async fn comes_to(at: SocketAddr, query: &str, token: &str, last_seq: u64) -> Self {
        let target = format!("/ws?{query}&resume={token}&last_seq={last_seq}");
        let mut client = Client::open(at, &target, &[]).await;
        let hi = client.hears().await;
        assert_eq!(hi["type"], "hi", "{hi}");
        client.id = hi["socketId"].as_str().unwrap().to_owned();
        let whole = hi["resumed"].as_bool().unwrap();
        if !whole {
            assert_eq!(client.hears_text().await, r#"{"type":"reset"}"#);
        }
        Self { client, hi, reset: !whole }
    }

    pub fn id(&self) -> &str {
        &self.client.id
    }

    pub fn token(&self) -> &str {
        self.hi["session"].as_str().unwrap_or_else(|| panic!("{}", self.hi))
    }

    /// Its connection breaks; it keeps id and token.
    pub fn breaks(self) -> (String, String) {
        (self.id().to_owned(), self.token().to_owned())
    }

    /// It is closed with this code.
    pub async fn hears_close(&mut self) -> u16 {
        loop {
            match self.client.next().await {
                Some(Message::Close(Some(close))) => return close.code.into(),
                Some(Message::Text(text)) if text.contains("\"retry\"") => {}
                other => panic!("a close was expected: {other:?}"),
            }
        }
    }
}
