//! When a set is fetched, for whom, and what counts meanwhile.

use super::*;
use futures_util::future::join_all;
use serde_json::json;
use std::{
    future::pending,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::time::{advance, sleep};

const MINUTE: Duration = Duration::from_secs(60);

/// Where the document stands.
#[derive(Default)]
struct Place {
    /// How many keys it has; none: it does not answer.
    keys: Mutex<Option<usize>>,
    max_age: Option<Duration>,
    hangs: bool,
    takes: Duration,
    asked: AtomicU64,
}

impl Place {
    fn of(keys: usize) -> Self {
        Self { keys: Mutex::new(Some(keys)), takes: Duration::from_millis(10), ..Self::default() }
    }

    fn becomes(&self, keys: Option<usize>) {
        *self.keys.lock().unwrap() = keys;
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    async fn fetch(&self) -> Result<Fetched, String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        sleep(self.takes).await;
        if self.hangs {
            pending::<()>().await;
        }
        let keys = self.keys.lock().unwrap().ok_or("it is away")?;
        let jwk = |id| json!({"kty": "OKP", "crv": "Ed25519", "kid": format!("{id}"), "x": "A".repeat(43)});
        let body = json!({"keys": (0..keys).map(jwk).collect::<Vec<_>>()}).to_string().into_bytes();
        Ok(Fetched { body, max_age: self.max_age })
    }

    /// What is true while the set is kept.
    async fn during(&self, facts: impl AsyncFnOnce(&Jwks)) {
        let (jwks, metrics) = (Jwks::default(), Metrics::default());
        tokio::select! {
            () = jwks.keep(&metrics, || self.fetch()) => {}
            () = facts(&jwks) => {}
        }
    }
}

/// What is known: how many keys, and whether nobody can say more.
fn known(jwks: &Jwks) -> (usize, bool) {
    (jwks.keys().len(), jwks.is_blind())
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_first_waits_for_the_first_answer() {
    let place = Place { takes: Duration::from_secs(2), ..Place::of(1) };
    place
        .during(async |jwks| {
            assert_eq!(known(jwks), (0, true));
            join_all((0..100).map(|_| jwks.ask())).await;
            assert_eq!((known(jwks), place.asked()), ((1, false), 1));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_unknown_keys_costs_one_fetch_in_a_while() {
    let place = Place { takes: Duration::from_millis(100), ..Place::of(1) };
    place
        .during(async |jwks| {
            jwks.ask().await;
            place.becomes(Some(2));
            // At once, although the first fetch was a moment ago; all wait for the same one.
            join_all((0..1000).map(|_| jwks.ask())).await;
            assert_eq!((known(jwks), place.asked()), ((2, false), 2));
            let began = Instant::now();
            join_all((0..1000).map(|_| jwks.ask())).await;
            assert_eq!((place.asked(), began.elapsed()), (2, Duration::ZERO));
            for _ in 0..300 {
                sleep(Duration::from_secs(1)).await;
                jwks.ask().await;
            }
            assert!((11..=13).contains(&place.asked()), "{}", place.asked());
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn it_is_fetched_again_before_it_is_used_up() {
    let day = Duration::from_secs(86_400);
    for (max_age, age) in [
        (None, 10 * MINUTE),
        (Some(Duration::ZERO), MINUTE),
        (Some(5 * MINUTE), 5 * MINUTE),
        (Some(Duration::MAX), day),
    ] {
        let place = Place { max_age, ..Place::of(1) };
        place
            .during(async |jwks| {
                jwks.ask().await;
                sleep(age.mul_f64(0.79)).await;
                assert_eq!(place.asked(), 1, "{age:?}");
                place.becomes(Some(2));
                sleep(age.mul_f64(0.12)).await;
                assert_eq!((known(jwks), place.asked()), ((2, false), 2), "{age:?}");
            })
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_known_stays_in_force_for_a_day_without_its_place_and_no_longer() {
    let place = Place::of(1);
    place
        .during(async |jwks| {
            jwks.ask().await;
            place.becomes(None);
            sleep(10 * MINUTE).await;
            assert_eq!(known(jwks), (1, true));
            sleep(Duration::from_secs(23 * 3600)).await;
            assert_eq!(known(jwks), (1, true));
            let asked = place.asked();
            sleep(MINUTE).await;
            assert!((2..=4).contains(&(place.asked() - asked)));
            sleep(Duration::from_secs(3600) + MINUTE).await;
            assert_eq!(known(jwks), (0, true));
            place.becomes(Some(1));
            sleep(AGAIN_MAX).await;
            assert_eq!(known(jwks), (1, false));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_gone_counts_no_more_and_so_do_all_of_an_empty_set() {
    let place = Place { max_age: Some(MINUTE), ..Place::of(3) };
    place
        .during(async |jwks| {
            jwks.ask().await;
            for keys in [2, 0, 1] {
                place.becomes(Some(keys));
                sleep(MINUTE).await;
                assert_eq!(known(jwks), (keys, false));
            }
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_place_that_hangs_holds_nobody_up_for_long() {
    let place = Place { hangs: true, ..Place::of(1) };
    place
        .during(async |jwks| {
            let began = Instant::now();
            join_all((0..100).map(|_| jwks.ask())).await;
            assert_eq!((known(jwks), place.asked()), ((0, true), 1));
            assert!(began.elapsed() <= FETCH + Duration::from_millis(1));
            advance(Duration::from_millis(1)).await;
            // Between two attempts, when one was asked for already, nobody waits.
            jwks.ask().await;
            let began = Instant::now();
            jwks.ask().await;
            assert_eq!(began.elapsed(), Duration::ZERO);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn whoever_is_in_a_hurry_has_it_fetched_at_once() {
    let place = Place::of(1);
    place
        .during(async |jwks| {
            jwks.ask().await;
            for keys in [2, 3] {
                place.becomes(Some(keys));
                jwks.hurry();
                jwks.ask().await;
                assert_eq!(known(jwks), (keys, false));
            }
            assert_eq!(place.asked(), 3);
        })
        .await;
}

#[test]
fn how_long_it_is_good_for_stands_among_other_words() {
    let seconds = |text| max_age(text).map(|age| age.as_secs());
    assert_eq!(seconds("public, max-age=19263, must-revalidate, no-transform"), Some(19263));
    assert_eq!(seconds("Max-Age=\"60\""), Some(60));
    for none in ["", "no-cache", "max-age", "max-age=", "max-age=-1", "s-maxage=5", "max-age=1e3"] {
        assert_eq!(seconds(none), None, "{none}");
    }
}
