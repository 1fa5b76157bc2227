//! What one more socket costs when its user has very many already, without a cap: no more than the first.

use std::sync::Arc;

use registry::{Admission, Cap, SocketRecord};
use servers::Server;
use tokio::time::sleep;

use super::fleet::{CAP, Instance, Outcome, Whose, each};
use super::meter::Meter;
use super::{STARTED, WIDTH, alone};
use crate::Result;
use crate::figure::{Budget, Figure};
use crate::options::Options;

const CROWD: usize = 10_000;
/// Sockets of one sample.
const SAMPLE: usize = 2000;

pub async fn measure(options: &Options) -> Result<Vec<Figure>> {
    eprintln!("registry: a crowd of one user");
    let server = Server::start();
    let instance = Instance::start(&server.url(), "gateway-1:5000").await?;
    enter(&instance, CROWD).await?;
    sleep(STARTED).await;
    let mut micros = Vec::new();
    for _ in 0..options.rounds(3, 7) {
        let meter = Meter::start(&server)?;
        enter(&instance, SAMPLE).await?;
        micros.push(meter.spent()?.per(SAMPLE as f64).micros);
    }
    let name = "connect to a user of 10 000 sockets, no cap: Redis CPU";
    Ok(vec![alone(name, "µs", micros).within(Budget::AtMost(40.0))])
}

/// So many sockets of one user come in, each of another client.
async fn enter(instance: &Instance, sockets: usize) -> Result<()> {
    let whose = |_| Whose { user: Some("everybody".to_owned()), ..Whose::default() };
    let records = instance.sockets(sockets, whose)?.into_iter();
    let records = records.map(|socket| {
        let client = Some(format!("client of {}", socket.id).into());
        Arc::new(SocketRecord { client, ..(*socket).clone() })
    });
    Ok(each(records, WIDTH, |record| connect(instance, record)).await?)
}

async fn connect(instance: &Instance, record: Arc<SocketRecord>) -> Outcome {
    match instance.registry.admit(&record, Cap { sockets_max: 0, ..CAP }).await {
        Admission::Welcome { replaced, evicted } if replaced.is_empty() && evicted.is_empty() => Ok(()),
        other => Err(format!("one more of a crowd: {other:?}")),
    }
}
