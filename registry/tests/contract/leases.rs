//! What an instance says of itself, as the others read it.

use super::{Fleet, fleet::eventually};

pub async fn the_hash_of_the_settings_is_the_one_in_force(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    // One that says none is no wonder: it may be of an earlier version.
    for hash in ["", "c0ffee", "decaf"] {
        web1.configured(hash.to_owned());
        for asked in [&web1, &web2] {
            eventually(async || {
                let listed = asked.instances().await.unwrap();
                let said = |name: &str| listed.iter().find(|lease| lease.about.instance == name);
                let (first, second) = (said("web1")?, said("web2")?);
                assert_eq!((second.configuration.as_str(), second.about.restarts), ("", None));
                (first.configuration == hash).then_some(())
            })
            .await;
        }
    }
}
