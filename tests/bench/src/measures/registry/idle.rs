//! What instances cost Redis by being there: all that is done while nothing happens.

use std::time::Duration;

use servers::Server;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::alone;
use super::beats::{listen, plainly};
use super::fleet::{Instance, Whose};
use super::masses::{fill, many};
use super::meter::Meter;
use super::plain::Line;
use super::tap::Tap;
use crate::Result;
use crate::figure::{Budget, Figure};
use crate::measures::Samples;
use crate::options::Options;
use crate::server::Kind;
use crate::usage::Spent;

const FLEET: usize = 10;
const FEW: usize = 10;
/// The slowest of what is done again and again comes every ten seconds.
const WINDOW: Duration = Duration::from_secs(10);
/// By then the numbers of all groups are told.
const SETTLE: Duration = Duration::from_secs(15);
const BEAT: Duration = Duration::from_secs(1);

/// All servers at the same time, so that whatever else the machine does meets all of them.
pub async fn measure(options: &Options) -> Result<Vec<Figure>> {
    let sockets = many(options);
    eprintln!("registry: idle, {sockets} sockets beside {FEW}");
    let [large, small, plain, unused] = [(); 4].map(|()| Server::start());
    let _beating = beat_plainly(&plain).await?;
    let many_held = Instance::start_many(&large.url(), FLEET).await?;
    let few_held = Instance::start_many(&small.url(), FLEET).await?;
    let whose = |index| Whose { user: None, ..Whose::somebody(index) };
    fill(&many_held, sockets, whose).await?;
    fill(&few_held, FEW, whose).await?;
    sleep(SETTLE).await;
    let (mut costs, mut growth, mut nothing) = (Samples::new(), Samples::new(), Vec::new());
    let rounds = options.rounds(2, 6);
    for round in 1..=rounds {
        eprintln!("registry: idle, {round} of {rounds}");
        let meters = [&large, &small, &plain, &unused].map(Meter::start);
        sleep(WINDOW).await;
        let mut spent = Vec::new();
        for meter in meters {
            spent.push(meter?.spent()?);
        }
        let [large, small, plain, unused] = spent.as_slice() else { return Err("four servers".into()) };
        let an_instance = |of: &Spent| (of.micros - unused.micros) / FLEET as f64 / WINDOW.as_secs_f64();
        costs.push(Kind::Holdfast, an_instance(small).into());
        costs.push(Kind::Floor, an_instance(plain).into());
        growth.push(Kind::Holdfast, an_instance(large).into());
        growth.push(Kind::Floor, an_instance(small).into());
        nothing.push(unused.micros / WINDOW.as_secs_f64());
    }
    let tap = Tap::open(&small)?;
    sleep(WINDOW).await;
    let commands = tap.close()?.commands as f64 / FLEET as f64 / WINDOW.as_secs_f64();
    Ok(vec![
        Figure::new("idle instance, each second: Redis CPU", "µs", costs),
        alone("idle instance, each second: commands", "", [commands]),
        Figure::new(&format!("  … holding {sockets} in all; floor: {FEW} in all"), "µs", growth)
            .within(Budget::RatioAtMost(1.2)),
        alone("Redis itself, each second: CPU", "µs", nothing),
    ])
}

/// As many connections as there are instances, each with a listener, and the plain form of a beat a second.
async fn beat_plainly(server: &Server) -> Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    for number in 0..FLEET {
        let (line, listener) = (Line::to(server).await?, listen(server, number).await?);
        tasks.spawn(async move {
            let _listener = listener;
            sleep(BEAT.mul_f64(number as f64 / FLEET as f64)).await;
            while plainly(&line, number).await.is_ok() {
                sleep(BEAT).await;
            }
        });
    }
    Ok(tasks)
}
