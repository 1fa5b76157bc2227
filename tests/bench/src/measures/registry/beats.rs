//! The beat of one instance that is in a hurry, beside a renewal and a ring as plain commands.

use redis::aio::PubSub;
use redis::{Cmd, Script, cmd};
use servers::Server;

use super::fleet::{Outcome, each};
use super::meter::Meter;
use super::plain::{Line, Plain, client};
use super::{WIDTH, protocol};
use crate::Result;
use crate::figure::Figure;
use crate::measures::{Samples, turns};
use crate::options::Options;
use crate::server::Kind;
use crate::usage::Spent;

/// Beats of one sample.
const SAMPLE: usize = 10_000;

pub async fn measure(options: &Options) -> Result<Vec<Figure>> {
    eprintln!("registry: beats");
    let [scripted, plain] = [Plain::start().await?, Plain::start().await?];
    // The script itself, since a registry beats no faster than it must.
    let beat = registry::script("beat").ok_or("the registry has no script of this name")?;
    scripted.line.ask(cmd("SCRIPT").arg("LOAD").arg(beat)).await?;
    let _listeners = [listen(&scripted.server, 0).await?, listen(&plain.server, 0).await?];
    let script = call(beat);
    let mut samples: Samples<Spent> = Samples::new();
    for round in 1..=options.rounds(3, 7) {
        for kind in turns(round) {
            let side = if kind == Kind::Holdfast { &scripted } else { &plain };
            let meter = Meter::start(&side.server)?;
            match kind {
                Kind::Holdfast => each(0..SAMPLE, WIDTH, async |_| side.line.ask(&script).await.map(drop)).await?,
                Kind::Floor => each(0..SAMPLE, WIDTH, async |_| plainly(&side.line, 0).await).await?,
            }
            samples.push(kind, meter.spent()?.per(SAMPLE as f64));
        }
    }
    Ok(vec![
        Figure::new("beat, the script: Redis CPU", "µs", samples.map(|spent| (*spent).into())).within(protocol(8.0)),
    ])
}

fn call(beat: &str) -> Cmd {
    let mut call = cmd("EVALSHA");
    call.arg(Script::new(beat).get_hash())
        .arg(4)
        .arg(["lease", "tomb", "mail", "bell"].map(|rest| key(0, rest)).as_slice());
    call.arg("PUBLISH").arg(15_000).arg(0).arg("serving").arg(10_000).arg(60_000).arg(&["name", "gateway-1:5000"]);
    call
}

/// Renews the lease of this one and rings its bell.
pub async fn plainly(line: &Line, number: usize) -> Outcome {
    let [mut renew, mut expire, mut ring] = ["HSET", "PEXPIRE", "PUBLISH"].map(cmd);
    renew.arg(key(number, "lease")).arg(&["state", "serving", "sockets", "10000", "beat", "1700000000000"]);
    expire.arg(key(number, "lease")).arg(15_000);
    ring.arg(key(number, "bell")).arg("1700000000000\n");
    tokio::try_join!(line.ask(&renew), line.ask(&expire), line.ask(&ring)).map(drop)
}

/// Who hears the bell of this one as long as the value lives.
pub async fn listen(server: &Server, number: usize) -> Result<PubSub> {
    let mut listener = client(server)?.get_async_pubsub().await?;
    listener.subscribe(key(number, "bell")).await?;
    Ok(listener)
}

fn key(number: usize, rest: &str) -> String {
    format!("holdfast:{{i:0123456789abcdefgh{number:04}}}:{rest}")
}
