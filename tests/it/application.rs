//! An application behind the gateway, which can be told how to behave, and remembers what it was asked.

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use servers::Papers;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpListener,
    sync::Notify,
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

/// How it answers what it is asked at a path. A path that it was told nothing of answers 404.
#[derive(Debug, Clone)]
pub enum Manner {
    /// Status, header lines, body.
    Says(u16, &'static str, String),
    /// The same, after a while.
    Slowly(Duration, u16, String),
    /// Takes the question, and never answers.
    Hangs,
    /// Takes the question, and answers it as soon as it is told another manner, in that.
    Waits,
    /// Answers, and ends the connection then without a word about it, as servers do with those that rest for too long.
    Leaves(u16),
    /// Something that is no HTTP.
    Babbles,
    /// Says that more will come than it ever sends.
    Breaks,
    /// As many bytes, in a body that is no JSON.
    Floods(usize),
    /// Whose a session is, by what its cookie or token says of itself: only a `Good` one is somebody's.
    Owner,
}

impl Manner {
    pub fn json(body: &Value) -> Self {
        Self::Says(200, "", body.to_string())
    }

    pub fn status(status: u16) -> Self {
        Self::Says(status, "", String::new())
    }
}

/// One question.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// With the query.
    pub target: String,
    /// Over which of its connections, counted from 1.
    pub connection: usize,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All header lines, as one text.
    pub fn head(&self) -> String {
        self.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

#[derive(Default)]
struct Life {
    manners: HashMap<String, Manner>,
    asked: Vec<Asked>,
    /// Connections that there were.
    connections: usize,
    /// Those which the application ended, and the gateway then too.
    parted: usize,
    /// Questions that it is answering, and the most that there were of them at once.
    answering: usize,
    most: usize,
}

/// It lives until it is dropped, and its connections with it.
pub struct Application {
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    life: Arc<Mutex<Life>>,
    /// Told with every new manner.
    told: Arc<Notify>,
    running: JoinSet<()>,
}

impl Application {
    pub async fn start() -> Self {
        Self::speaking(None).await
    }

    /// One that speaks TLS alone, at https://localhost.
    pub async fn with_tls(papers: &Papers) -> Self {
        let chain = CertificateDer::pem_slice_iter(papers.certificate.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(papers.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        Self::speaking(Some(Arc::new(config.with_single_cert(chain, key).unwrap()).into())).await
    }

    async fn speaking(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (life, told) = (Arc::default(), Arc::default());
        let mut application = Self { address, tls, life, told, running: JoinSet::new() };
        application.listen(listener);
        application
    }

    fn listen(&mut self, listener: TcpListener) {
        let (life, told, tls) = (self.life.clone(), self.told.clone(), self.tls.clone());
        self.running.spawn(async move {
            // Those that are being served end with it.
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (life, told, tls) = (life.clone(), told.clone(), tls.clone());
                serving.spawn(async move {
                    match tls {
                        None => serve(stream, &life, &told).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &life, &told).await;
                            }
                        }
                    }
                });
                while serving.try_join_next().is_some() {}
            }
        });
    }

    /// It is gone, and so are its connections; nobody listens there.
    pub async fn stops(&mut self) {
        self.running.shutdown().await;
    }

    /// It listens again, where it was.
    pub async fn returns(&mut self) {
        self.listen(TcpListener::bind(self.address).await.unwrap());
    }

    pub fn url(&self, path: &str) -> String {
        match &self.tls {
            None => format!("http://{}{path}", self.address),
            Some(_) => format!("https://localhost:{}{path}", self.address.port()),
        }
    }

    /// From now on it behaves like this at that path.
    pub fn at(&self, path: &str, manner: Manner) {
        self.life.lock().unwrap().manners.insert(path.to_owned(), manner);
        self.told.notify_waiters();
    }

    /// Connections that it ended itself, and whose other side has heard of it.
    pub fn parted(&self) -> usize {
        self.life.lock().unwrap().parted
    }

    /// The most questions that it had at once.
    pub fn most_at_once(&self) -> usize {
        self.life.lock().unwrap().most
    }

    /// What it was asked at a path so far, in order.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        let life = self.life.lock().unwrap();
        life.asked.iter().filter(|asked| asked.target.split('?').next() == Some(path)).cloned().collect()
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, life: &Mutex<Life>, told: &Notify) {
    let mut stream = BufReader::new(stream);
    let connection = {
        let mut life = life.lock().unwrap();
        life.connections += 1;
        life.connections
    };
    while let Some(asked) = read(&mut stream).await {
        let asked = Asked { connection, ..asked };
        {
            let mut life = life.lock().unwrap();
            life.answering += 1;
            life.most = life.most.max(life.answering);
            life.asked.push(asked.clone());
        }
        let manner = manner(&asked, life, told).await;
        let leaves = matches!(manner, Manner::Leaves(_));
        let answered = answer(stream.get_mut(), manner).await;
        life.lock().unwrap().answering -= 1;
        if answered.is_none() {
            return;
        }
        if leaves && stream.shutdown().await.is_ok() && read(&mut stream).await.is_none() {
            life.lock().unwrap().parted += 1;
            return;
        }
    }
}

/// How a question is to be answered.
async fn manner(asked: &Asked, life: &Mutex<Life>, told: &Notify) -> Manner {
    let path = asked.target.split('?').next().unwrap_or_default();
    loop {
        let told = told.notified();
        let manner = life.lock().unwrap().manners.get(path).cloned();
        match manner {
            Some(Manner::Waits) => told.await,
            Some(Manner::Owner) => return owner(asked),
            Some(manner) => return manner,
            None => return Manner::status(404),
        }
    }
}

fn owner(asked: &Asked) -> Manner {
    let (cookie, token) = (asked.header("Cookie"), asked.header("Authorization"));
    match (cookie, token) {
        (Some("sid=Good"), _) => Manner::json(&json!({"userId": "by-cookie"})),
        (None, Some("Bearer Good")) => Manner::json(&json!({"userId": "by-token"})),
        _ => Manner::status(401),
    }
}

/// Nothing if the connection is not to be used again.
async fn answer(stream: &mut (impl AsyncWrite + Unpin), manner: Manner) -> Option<()> {
    let (status, headers, body) = match manner {
        Manner::Says(status, headers, body) => (status, headers, body.into_bytes()),
        Manner::Slowly(after, status, body) => {
            sleep(after).await;
            (status, "", body.into_bytes())
        }
        Manner::Leaves(status) => (status, "", Vec::new()),
        Manner::Hangs => return std::future::pending().await,
        Manner::Babbles => {
            stream.write_all(b"220 mail.example.com ESMTP ready\r\n").await.ok()?;
            return None;
        }
        Manner::Breaks => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{").await.ok()?;
            return None;
        }
        Manner::Floods(bytes) => (200, "", vec![b'x'; bytes]),
        Manner::Owner | Manner::Waits => unreachable!("the question has told which"),
    };
    let length = if status == 101 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("HTTP/1.1 {status} Whatever\r\n{headers}{length}\r\n");
    stream.write_all(&[head.as_bytes(), &body].concat()).await.ok()
}

async fn read(stream: &mut BufReader<impl AsyncRead + Unpin>) -> Option<Asked> {
    let mut line = String::new();
    let mut next = async || {
        line.clear();
        let read = stream.read_line(&mut line).await.ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    };
    let first = next().await?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let line = next().await?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut asked = Asked { method, target, connection: 0, headers, body: Vec::new() };
    let length = asked.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    asked.body.resize(length, 0);
    stream.read_exact(&mut asked.body).await.ok()?;
    Some(asked)
}
