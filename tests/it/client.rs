//! A WebSocket client that behaves: it answers pings and closes while it is listened to.

use crate::{http::Request, patience::soon};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::{future::Future, net::SocketAddr};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Bytes, Error, Message, Utf8Bytes,
        client::IntoClientRequest,
        http::{HeaderName, HeaderValue},
        protocol::CloseFrame,
    },
};

pub struct Client {
    socket: WebSocketStream<TcpStream>,
    /// As `hi` named it; empty before.
    pub id: String,
}

impl Client {
    pub async fn open(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Self {
        match Self::try_open(address, target, headers).await {
            Ok(client) => client,
            Err(error) => {
                let knock = Request::knock(address, target);
                let answer = headers.iter().fold(knock, |knock, (name, value)| knock.with(name, value)).await;
                panic!("{target}: {error}; asked once more: {} {}", answer.status, answer.text());
            }
        }
    }

    /// The same for whoever may be refused.
    pub async fn try_open(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Result<Self, Error> {
        let mut request = format!("ws://{address}{target}").into_client_request().unwrap();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
        let stream = soon("TCP connects", TcpStream::connect(address)).await.expect("the gateway listens");
        stream.set_nodelay(true).unwrap();
        let (socket, _) = soon("the upgrade is answered", client_async(request, stream)).await?;
        Ok(Self { socket, id: String::new() })
    }

    /// Hears `hi`, which says who it is, and `reset`; returns `hi`.
    pub async fn is_greeted(&mut self) -> Value {
        let hi = self.hears().await;
        assert_eq!((&hi["type"], &hi["evt"]), (&json!("hi"), &json!("hi")), "{hi}");
        self.id = hi["socketId"].as_str().unwrap().to_owned();
        assert_eq!(self.hears_text().await, r#"{"type":"reset"}"#);
        hi
    }

    pub async fn says(&mut self, text: impl Into<Utf8Bytes>) {
        self.sends(Message::Text(text.into())).await;
    }

    /// The same, where the connection may have broken.
    pub async fn tries_to_say(&mut self, text: impl Into<Utf8Bytes>) -> Result<(), Error> {
        soon("the gateway reads on", self.socket.send(Message::Text(text.into()))).await
    }

    pub async fn says_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.sends(Message::Binary(bytes.into())).await;
    }

    pub async fn sends(&mut self, message: Message) {
        soon("the gateway reads on", self.socket.send(message)).await.expect("the socket is open");
    }

    /// Says something and hears the next frame as the answer to it.
    pub async fn asks(&mut self, text: impl Into<Utf8Bytes>) -> String {
        self.says(text).await;
        self.hears_text().await
    }

    /// The next frame that is no ping or pong; nothing when the connection has ended.
    pub async fn next(&mut self) -> Option<Message> {
        soon("the client hears something", self.listens()).await
    }

    /// The same, however long it takes.
    pub async fn listens(&mut self) -> Option<Message> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    pub async fn hears_text(&mut self) -> String {
        match self.next().await {
            Some(Message::Text(text)) => text.as_str().to_owned(),
            other => panic!("a text was expected: {other:?}"),
        }
    }

    pub async fn hears(&mut self) -> Value {
        serde_json::from_str(&self.hears_text().await).unwrap()
    }

    pub async fn hears_bytes(&mut self) -> Vec<u8> {
        match self.next().await {
            Some(Message::Binary(bytes)) => bytes.into(),
            other => panic!("a binary frame was expected: {other:?}"),
        }
    }

    /// Nothing more has come so far: the answer to a question asked now is the next frame.
    pub async fn heard_all(&mut self) {
        assert_eq!(self.asks(r#"{"evt":"ping"}"#).await, r#"{"evt":"pong"}"#);
    }

    /// The gateway's close, which is the next frame. Every one has a reason that a person can read.
    pub async fn closed(&mut self) -> (u16, String) {
        match self.next().await {
            Some(Message::Close(Some(CloseFrame { code, reason }))) => {
                assert!(!reason.is_empty() && reason.len() <= 123, "{code} {reason:?}");
                (code.into(), reason.as_str().to_owned())
            }
            other => panic!("a close was expected: {other:?}"),
        }
    }

    /// Stays alive, and hears nothing but pings, while something else happens.
    pub async fn stays_while<T>(&mut self, other: impl Future<Output = T>) -> T {
        let other = std::pin::pin!(other);
        tokio::select! {
            output = other => output,
            heard = self.listens() => panic!("heard {heard:?} meanwhile"),
        }
    }

    /// Leaves as a browser does, and waits until that is done.
    pub async fn leaves(mut self) {
        soon("the gateway hears the close", self.socket.close(None)).await.expect("the socket is open");
        while self.next().await.is_some() {}
    }
}
