//! What an idle socket takes of the server's own memory.

use super::{Samples, settle, somebody};
use crate::Result;
use crate::figure::{Budget, Figure};
use crate::load::Fleet;
use crate::options::Options;
use crate::server::{Kind, Server};

/// Opened before the first reading and kept: they bring in the code and the threads' own buffers,
/// which a process has once and not per socket.
const WARM_UP: usize = 64;

struct Sample {
    empty: f64,
    pss: f64,
    anonymous: f64,
    private_dirty: f64,
}

pub fn measure(options: &Options) -> Result<Vec<Figure>> {
    let rounds = options.rounds(1, 2);
    let samples = Samples::take("memory", rounds, |kind| sample(options, kind))?;
    Ok(vec![
        Figure::new("Pss per socket", "bytes", samples.map(|s| s.pss.into())).within(Budget::AtMost(3000.0)),
        Figure::new("anonymous memory per socket", "bytes", samples.map(|s| s.anonymous.into())),
        Figure::new("private dirty memory per socket", "bytes", samples.map(|s| s.private_dirty.into())),
        Figure::new("Pss with 64 sockets", "MiB", samples.map(|s| s.empty.into())),
    ])
}

fn sample(options: &Options, kind: Kind) -> Result<Sample> {
    let server = Server::start(kind, &options.gateway, &[])?;
    let mut fleet = Fleet::new(&server)?;
    fleet.gather(WARM_UP, somebody)?;
    settle(&mut fleet)?;
    let before = server.memory()?;
    fleet.gather(options.sockets, somebody)?;
    settle(&mut fleet)?;
    let after = server.memory()?;
    let per_socket = |before: f64, after: f64| (after - before) / options.sockets as f64;
    Ok(Sample {
        empty: before.pss / f64::from(1 << 20),
        pss: per_socket(before.pss, after.pss),
        anonymous: per_socket(before.anonymous, after.anonymous),
        private_dirty: per_socket(before.private_dirty, after.private_dirty),
    })
}
