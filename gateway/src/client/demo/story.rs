//! What is shown, in its order: all start, then calls, and every so often an instance goes and comes again.

use super::{
    Wanted,
    calls::Caller,
    doors::Doors,
    pages::{Page, Pages},
    programs::Programs,
    tally::{Tally, counted},
    town::{Instance, Town, company},
    why,
};
use futures_util::future::try_join_all;
use rustix::process::Signal;
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Between two changes, for somebody who reads along.
const CHANGE_EVERY: Duration = Duration::from_secs(8);
/// All sockets are there by then, on a busy machine; for each thousand of them so long again.
const ALL_HERE_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// From the first start until the time is over.
pub async fn tell(
    town: &Town,
    tally: &Arc<Tally>,
    wanted: Wanted,
    programs: &Programs,
    exe: &Path,
) -> Result<(), String> {
    if let Some(missing) = programs.missing() {
        say!("{missing}");
    }
    let redis = match &programs.redis {
        Some(program) => Some(town.redis(program).await?),
        None => {
            say!("Without Redis there is one instance, its registry in memory, and nothing is restarted.");
            None
        }
    };
    let count = if redis.is_some() { wanted.instances } else { 1 };
    let serve = |nth: usize| town.serve(exe, format!("web{}", nth + 1), None, redis.as_deref());
    let instances = try_join_all((0..count).map(serve)).await?;
    let doors = match &programs.nginx {
        Some(program) => vec![town.nginx(program, &instances, wanted.sockets).await?],
        None => {
            say!("Without nginx, sockets and calls go to the instances in turn.");
            instances.iter().map(|instance| instance.address).collect()
        }
    };
    let doors = Arc::new(Doors::new(doors, town.token.clone()));
    let (pages, _tasks) = Pages::open(&doors, tally, wanted.sockets);
    let stage = Stage { town, tally, pages: &pages, doors: &doors, exe, redis: redis.as_deref() };
    tokio::select! {
        sentence = town.falls() => Err(sentence),
        told = stage.plays(instances, wanted, programs) => told,
    }
}

/// All that is there once it has started.
struct Stage<'a> {
    town: &'a Town,
    tally: &'a Arc<Tally>,
    pages: &'a Arc<Pages>,
    doors: &'a Arc<Doors>,
    exe: &'a Path,
    redis: Option<&'a str>,
}

impl Stage<'_> {
    async fn plays(&self, mut instances: Vec<Instance>, wanted: Wanted, programs: &Programs) -> Result<(), String> {
        let end = wanted.span.map(|span| Instant::now() + span);
        self.all_are_here().await?;
        self.introduces(instances.len(), programs);
        let stop = CancellationToken::new();
        let caller = Caller { doors: self.doors.clone(), pages: self.pages.clone(), tally: self.tally.clone() };
        let changes = async {
            let changed = self.changes(&mut instances, wanted, end).await;
            stop.cancel();
            changed
        };
        let (changed, ()) = tokio::join!(changes, caller.keeps_calling(&stop));
        changed
    }

    fn introduces(&self, instances: usize, programs: &Programs) {
        let Some(door) = self.doors.addresses.first() else { return };
        let (name, id) = (programs.own_name(self.exe), self.pages.all()[0].id.clone());
        say!(
            "holdfast demo: {}{}, {}; logs in {}",
            counted(instances as u64, "instance"),
            company(programs),
            counted(self.pages.here() as u64, "socket"),
            self.town.folder().display()
        );
        say!("Ctrl-C ends and removes all of it.");
        say!("open http://{door}/ in a browser, or try in another terminal:");
        // The server plane asks for a token, as it does wherever a proxy stands in front.
        let token = self.town.token_file.display();
        say!(
            "  curl http://{door}/api/call -H \"Authorization: Bearer $(cat {token})\" -H 'Content-Type: application/json' -d '{{\"storeId\":\"store-0\",\"event\":\"question\",\"data\":42}}'"
        );
        let verbs = [format!("why {id} --url"), "instances --url".to_owned(), "doctor --quick".to_owned()];
        for verb in verbs {
            say!("  API_TOKEN_FILE={token} {name} {verb} http://{door}");
        }
    }

    /// Waits until every page has its socket.
    async fn all_are_here(&self) -> Result<(), String> {
        let all = self.pages.all().len();
        let patience = ALL_HERE_WITHIN.saturating_mul(u32::try_from(all / 1000 + 1).unwrap_or(1));
        let deadline = Instant::now() + patience;
        while self.pages.here() < all {
            if Instant::now() > deadline {
                let here = self.pages.here();
                return Err(format!("only {here} of {all} sockets are there after {} s", patience.as_secs()));
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// One instance after another goes and comes again. What has begun is told to its end. What became of the sockets of
    /// one that was killed is known after a while to who has been there all the time: until then nobody else is killed,
    /// and one of the others is left in peace.
    async fn changes(&self, instances: &mut [Instance], wanted: Wanted, end: Option<Instant>) -> Result<(), String> {
        let every = wanted.span.map_or(CHANGE_EVERY, |span| CHANGE_EVERY.min(span / 8));
        let ends = async || match end {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        };
        let (mut verdicts, mut may_kill, mut witness, mut nth) = (JoinSet::new(), false, None, 0);
        loop {
            tokio::select! {
                () = sleep(every), if instances.len() > 1 => {}
                () = ends() => return Ok(()),
            }
            while verdicts.try_join_next().is_some() {}
            if witness == Some(nth) && !verdicts.is_empty() {
                nth = (nth + 1) % instances.len();
            }
            let next = (nth + 1) % instances.len();
            let instance = &mut instances[nth];
            let kills = wanted.kills && may_kill && verdicts.is_empty();
            let gone = if kills { self.kills(instance).await? } else { self.restarts(instance).await? };
            if kills {
                witness = Some(next);
            }
            (may_kill, nth) = (!kills, next);
            if let Some(id) = gone {
                verdicts.spawn(why::asks(self.doors.clone(), self.tally.clone(), id));
            }
        }
    }

    async fn restarts(&self, instance: &mut Instance) -> Result<Option<String>, String> {
        let (name, was) = (instance.name.clone(), self.pages.all().clone());
        self.tally.count(|counts| counts.restarts += 1);
        self.says(&format!("-- {name} is told to end (SIGTERM), with {} sockets", on(&was, &name).count()));
        self.town.end(instance, Signal::TERM).await?;
        self.comes_again(instance, &was).await
    }

    async fn kills(&self, instance: &mut Instance) -> Result<Option<String>, String> {
        let (name, was) = (instance.name.clone(), self.pages.all().clone());
        self.tally.count(|counts| {
            counts.kills += 1;
            counts.last_kill = Some(Instant::now());
        });
        self.says(&format!("-- {name} is killed (SIGKILL), with {} sockets", on(&was, &name).count()));
        self.town.end(instance, Signal::KILL).await?;
        self.comes_again(instance, &was).await
    }

    /// It starts again, and all pages have a socket again. One whose socket is another than before, by its former id.
    async fn comes_again(&self, instance: &mut Instance, was: &[Page]) -> Result<Option<String>, String> {
        let (name, began) = (instance.name.clone(), Instant::now());
        *instance = self.town.serve(self.exe, name.clone(), Some(instance.address), self.redis).await?;
        self.all_are_here().await?;
        let is = self.pages.all().clone();
        let resume = on(was, &name).filter(|nth| Pages::resumes(*nth)).count();
        let same = on(was, &name).filter(|nth| is[*nth].id == was[*nth].id).count();
        self.says(&format!(
            "-- {name} serves again, and all {} sockets are there, after {:.1} s; {same} of {resume} that resume have kept their id",
            is.len(),
            began.elapsed().as_secs_f64()
        ));
        let gone = on(was, &name).find(|nth| is[*nth].id != was[*nth].id);
        Ok(gone.map(|nth| was[nth].id.clone()))
    }

    fn says(&self, words: &str) {
        self.tally.tell(format_args!("{words}"));
    }
}

/// The pages that are on this instance.
fn on<'a>(pages: &'a [Page], instance: &'a str) -> impl Iterator<Item = usize> + 'a {
    let here = pages.iter().enumerate().filter(move |(_, page)| page.is_here && page.instance == instance);
    here.map(|(nth, _)| nth)
}
