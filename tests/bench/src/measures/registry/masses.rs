//! Many sockets at once: registered by one instance and by four, and told again to a Redis that forgot them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use registry::SocketRecord;
use servers::Server;
use tokio::time::{Instant, sleep};

use super::alone;
use super::fleet::{Instance, Whose, connect, each};
use super::meter::Meter;
use crate::Result;
use crate::figure::{Budget, Figure};
use crate::options::Options;

/// Registrations in flight, of all clients together.
const IN_FLIGHT: usize = 512;
const FLEET: usize = 4;
const REBUILT_MAX: Duration = Duration::from_secs(60);
/// By then every instance has heard of every other, and told its groups.
const KNOWN_AFTER: Duration = Duration::from_secs(6);
/// Between two looks at the processor time; the busiest second is found to within this.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS_A_SECOND: usize = 10;
/// Between two questions whether all are back.
const ASK: Duration = Duration::from_millis(500);

pub fn many(options: &Options) -> usize {
    if options.quick { 20_000 } else { 100_000 }
}

pub async fn measure(options: &Options) -> Result<Vec<Figure>> {
    let sockets = many(options);
    let mut figures = Vec::new();
    for clients in [1, FLEET] {
        eprintln!("registry: {sockets} registrations by {clients}");
        let server = Server::start();
        let fleet = Instance::start_many(&server.url(), clients).await?;
        let meter = Meter::start(&server)?;
        fill(&fleet, sockets, Whose::somebody).await?;
        let (spent, share, seconds) = (meter.spent()?, meter.share()?, meter.elapsed().as_secs_f64());
        let title = |what: &str| format!("{sockets} connects by {clients}: {what}");
        figures.extend([
            alone(&title("seconds"), "", [seconds]),
            alone(&title("sockets/s"), "", [sockets as f64 / seconds]),
            alone(&title("Redis CPU each"), "µs", [spent.micros / sockets as f64]),
            alone(&title("Redis CPU"), "%", [share]),
        ]);
        if clients == FLEET {
            figures.extend(rebuild(&server, &fleet, sockets).await?);
        }
    }
    Ok(figures)
}

/// Connects sockets evenly to all instances, each in a task of its own.
pub async fn fill(fleet: &[Instance], sockets: usize, whose: impl Fn(usize) -> Whose) -> Result<()> {
    let share = sockets / fleet.len();
    let width = IN_FLIGHT.div_ceil(fleet.len());
    let mut tasks = Vec::new();
    for (number, instance) in fleet.iter().enumerate() {
        let records: Vec<Arc<SocketRecord>> = instance.sockets(share, |index| whose(number * share + index))?;
        let registry = instance.registry.clone();
        tasks.push(tokio::spawn(async move {
            each(records, width, async |record| connect(&registry, &record).await).await
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn rebuild(server: &Server, fleet: &[Instance], sockets: usize) -> Result<Vec<Figure>> {
    eprintln!("registry: rebuilding {sockets}");
    sleep(KNOWN_AFTER).await;
    server.ask(&["FLUSHALL"]);
    let began = Instant::now();
    let over = Arc::<AtomicBool>::default();
    let watch = tokio::spawn(busiest_second(Meter::start(server)?, over.clone()));
    let meter = Meter::start(server)?;
    let mut longest = None;
    while began.elapsed() < REBUILT_MAX * 2 {
        let drift: usize = fleet.iter().map(|instance| instance.registry.figures().drift).sum();
        if drift == 0 && fleet[0].registry.total().await == Ok(sockets) {
            longest = Some(began.elapsed());
            break;
        }
        sleep(ASK).await;
    }
    let spent = meter.spent()?;
    over.store(true, Ordering::Relaxed);
    let busiest = watch.await??;
    let total = fleet[0].registry.total().await;
    let seconds = longest.ok_or_else(|| format!("{total:?} of {sockets} sockets were back after two minutes"))?;
    let title = |what: &str| format!("{sockets} rebuilt by {FLEET}: {what}");
    Ok(vec![
        alone(&title("seconds"), "", [seconds.as_secs_f64()]).within(Budget::AtMost(REBUILT_MAX.as_secs_f64())),
        alone(&title("Redis CPU, busiest second"), "%", [busiest]).within(Budget::AtMost(50.0)),
        alone(&title("Redis CPU each"), "µs", [spent.micros / sockets as f64]),
    ])
}

/// The largest part of one processor that Redis used within any second, in percent.
async fn busiest_second(meter: Meter, over: Arc<AtomicBool>) -> std::result::Result<f64, String> {
    let (mut looks, mut busiest) = (VecDeque::new(), 0_f64);
    while !over.load(Ordering::Relaxed) {
        let spent = meter.spent().map_err(|error| error.to_string())?;
        looks.push_back((meter.elapsed().as_secs_f64(), spent.micros));
        if looks.len() > LOOKS_A_SECOND
            && let (Some((from, before)), Some((to, after))) = (looks.pop_front(), looks.back())
        {
            busiest = busiest.max((after - before) / (to - from) / 1e4);
        }
        sleep(LOOK).await;
    }
    Ok(busiest)
}
