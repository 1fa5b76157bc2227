//! The HTTP side, over a real connection to a real instance: whatever is asked for and whatever
//! the body says, the answer is one of ours, never a 500 and never a hang.
//!
//! An input is a line with method and path, and the body behind it. `$socket` stands for the id of
//! a socket that is there; its user is `u`, its store `s`, its room `r`.
#![no_main]

use bytes::Bytes;
use fuzz::first_line;
use gateway::{
    config::{self, sources::Environment},
    gateway::Gateway,
    http::accept,
    listener::Listener,
    log::Log,
};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, client::conn::http1, header::CONTENT_TYPE};
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::{cell::RefCell, collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{net::TcpStream, runtime, runtime::Runtime, time::timeout};

/// Large enough to be heard, small enough for the limit to be met.
const SETTINGS: [(&str, &str); 4] =
    [("PORT", "0"), ("MAX_BODY_BYTES", "2KiB"), ("PUBLIC_ACCOUNTS", "help,help_desk"), ("LOG_LEVEL", "off")];

thread_local! {
    static INSTANCE: RefCell<Instance> = RefCell::new(Instance::start());
}

struct Instance {
    runtime: Runtime,
    gateway: Arc<Gateway>,
    address: String,
    sender: Option<http1::SendRequest<Full<Bytes>>>,
}

impl Instance {
    fn start() -> Self {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let flags: BTreeMap<String, String> = SETTINGS.map(|(name, value)| (name.into(), value.into())).into();
        let config = config::read(&flags, None, &Environment::new()).config.unwrap();
        let (gateway, address) = runtime.block_on(async {
            let listener = Listener::bind("127.0.0.1", 0).unwrap();
            let address = listener.address.to_string();
            let gateway = Gateway::new(config, &Log::start(config::LogFormat::Text, "off"), fuzz::registry());
            tokio::spawn(accept::run(gateway.clone(), listener));
            (gateway, address)
        });
        Self { runtime, gateway, address, sender: None }
    }

    fn ask(&mut self, line: &[u8], body: &[u8]) {
        let Self { runtime, gateway, address, sender } = self;
        runtime.block_on(async {
            let seat = fuzz::enter(&gateway.courier, &["r"]).await;
            let id = seat.socket.record().id.to_string();
            let Some(request) = request(line, body, address, &id) else { return };
            let path = request.uri().path().to_owned();
            if sender.as_mut().is_none_or(|sender| sender.is_closed()) {
                *sender = Some(connect(address).await);
            }
            let Some(open) = sender else { return };
            let asked = async {
                open.ready().await?;
                let (head, body) = open.send_request(request).await?.into_parts();
                Ok::<_, hyper::Error>(Response::from_parts(head, body.collect().await?.to_bytes()))
            };
            match timeout(Duration::from_secs(10), asked).await.expect("an answer in time") {
                Ok(response) => check(&path, &response),
                // The connection ended before this request was on it; it is not sent again.
                Err(fault) if fault.is_canceled() || fault.is_closed() => *sender = None,
                Err(fault) => panic!("no answer: {fault:?}"),
            }
            let record = seat.socket.record();
            let ending =
                registry::Ending { cause: registry::Cause::ClientClosed, code: Some(1000), reason: "done".into() };
            gateway.courier.registry.unregister(record.id, record.session, ending).await;
        });
    }
}

async fn connect(address: &str) -> http1::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(line: &[u8], body: &[u8], host: &str, id: &str) -> Option<Request<Full<Bytes>>> {
    let line = std::str::from_utf8(line).ok()?.replace("$socket", id);
    let (method, target) = line.split_once(' ').filter(|(_, target)| target.starts_with('/'))?;
    let body = match std::str::from_utf8(body) {
        Ok(text) => Bytes::from(text.replace("$socket", id)),
        Err(_) => Bytes::copy_from_slice(body),
    };
    if !matches!(method, "GET" | "POST" | "DELETE" | "OPTIONS" | "PUT") {
        return None;
    }
    let request = Request::builder().method(method).uri(target).header("host", host);
    request.header(CONTENT_TYPE, "application/json").body(Full::new(body)).ok()
}

fn check(path: &str, response: &Response<Bytes>) {
    let status = response.status().as_u16();
    let body = response.body();
    assert!(status < 500 || status == 503, "{status} at {path}: {}", body.escape_ascii());
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let Some(request_id) = header("x-request-id") else {
        // What hyper refuses by itself, before any request of ours begins.
        return assert!(matches!(status, 400 | 414 | 431), "{status} at {path}");
    };
    if !matches!(header("content-type"), Some("application/json" | "application/problem+json")) {
        return;
    }
    let body: Value = serde_json::from_slice(body).unwrap();
    if status < 400 {
        return;
    }
    assert_eq!((&body["status"], &body["requestId"]), (&status.into(), &request_id.into()), "{body}");
    for member in ["type", "title", "error", "code", "hint"] {
        assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {body}");
    }
    if let Some(errors) = body.get("errors") {
        let errors = errors.as_array().unwrap();
        assert!(status == 422 && !errors.is_empty(), "{body}");
        errors.iter().for_each(check_fault);
    }
}

/// RFC 6901: nothing, or a slash before each step, and a tilde only before 0 and 1.
fn check_fault(fault: &Value) {
    let pointer = fault["pointer"].as_str().unwrap();
    assert!(pointer.is_empty() || pointer.starts_with('/'), "{pointer:?}");
    assert!(pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1'])), "{pointer:?}");
    assert!(fault["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{fault}");
}

fuzz_target!(|input: &[u8]| {
    let (line, body) = first_line(input);
    INSTANCE.with_borrow_mut(|instance| instance.ask(line, body));
});
