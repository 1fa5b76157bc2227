//! What the application is told of sockets: logged once it happens, told from where it was logged, and left for others.

use super::{
    ending,
    fleet::{self, Fleet},
    record,
};
use registry::{
    Admission, Attempt, Cap, Cause, Policy, Registered, Registry, Resumable, SocketId, SocketRecord, UserName,
    event::{EVENTS_MAX, Kind, LANES, Logged, Place, lane},
    owner::{PARTITIONS, partition},
};
use std::{num::NonZeroU32, sync::Arc, time::Duration};
use tokio::time::timeout;

const NO_CAP: Cap = Cap { sockets_max: 0, policy: Policy::EvictOldest };

async fn wanting(fleet: &mut Fleet, name: &str) -> Registry {
    let registry = fleet.instance(name).await;
    registry.want_events();
    registry
}

/// A socket of that kind comes, and that is logged.
async fn comes(at: &Registry, record: SocketRecord) -> Arc<SocketRecord> {
    let record = Arc::new(record);
    assert!(matches!(at.register(record.clone()).await, Registered::Fresh));
    at.connected(&record).await;
    record
}

fn resumable(at: &Registry, window: u32) -> SocketRecord {
    let resumable = Resumable { window: NonZeroU32::new(window).unwrap(), confirmed: 0 };
    SocketRecord { user: UserName::parse("ann").ok(), resumable: Some(resumable), ..record(at) }
}

/// The next that is to be told of that socket.
async fn next(at: &Registry, of: SocketId) -> Logged {
    timeout(fleet::DEADLINE, at.next_event(lane(partition(of)))).await.unwrap()
}

/// What the log has of a socket.
async fn left(at: &Registry, of: SocketId) -> Vec<String> {
    let logged = at.events(partition(of), None, Duration::ZERO, EVENTS_MAX).await.unwrap();
    let logged = logged.into_iter().filter(|logged| logged.event.data.socket_id == of);
    logged.map(|logged| logged.event.id).collect()
}

fn id(of: &SocketRecord, kind: Kind) -> String {
    format!("{}.{kind}", of.id)
}

async fn told(at: &Registry, logged: &Logged) {
    at.event_told(partition(logged.event.data.socket_id), logged.at.unwrap()).await;
}

async fn nothing_more(at: &Registry) {
    for lane in 0..LANES {
        assert_eq!(timeout(Duration::from_millis(1), at.next_event(lane)).await.ok(), None);
    }
}

pub async fn whoever_comes_and_goes_is_told_once_each_by_whoever_logged_it(mut fleet: Fleet) {
    let web1 = wanting(&mut fleet, "web1").await;
    let web2 = wanting(&mut fleet, "web2").await;
    let socket = comes(&web1, SocketRecord { user: UserName::parse("ann").ok(), ..record(&web1) }).await;
    let came = next(&web1, socket.id).await;
    assert_eq!((came.event.kind, came.event.id.clone()), (Kind::Connected, id(&socket, Kind::Connected)));
    assert_eq!(
        (came.event.data.user_id.clone(), came.event.data.connected_at),
        (socket.user.clone(), socket.connected_at)
    );
    assert_eq!(left(&web2, socket.id).await, [id(&socket, Kind::Connected)]);
    told(&web1, &came).await;
    assert_eq!(left(&web2, socket.id).await, [""; 0]);

    assert!(web1.unregister(socket.id, socket.session, ending(Cause::Kicked)).await);
    let ended = next(&web1, socket.id).await;
    assert_eq!((ended.event.kind, ended.event.id.clone()), (Kind::Disconnected, id(&socket, Kind::Disconnected)));
    let end = ended.event.data.end.clone().unwrap();
    assert_eq!((end.cause, end.close_code, &*end.reason), (Cause::Kicked, Some(1000), "bye"));
    // Who says it again is told that it is over, and logs nothing.
    assert!(!web1.unregister(socket.id, socket.session, ending(Cause::ClientClosed)).await);
    assert_eq!(left(&web2, socket.id).await, [id(&socket, Kind::Disconnected)]);
    told(&web1, &ended).await;
    assert_eq!(left(&web2, socket.id).await, [""; 0]);
    nothing_more(&web1).await;
}

pub async fn a_socket_that_is_away_has_not_ended(mut fleet: Fleet) {
    let web1 = wanting(&mut fleet, "web1").await;
    let socket = comes(&web1, resumable(&web1, 600)).await;
    assert_eq!(next(&web1, socket.id).await.event.kind, Kind::Connected);
    assert!(web1.unregister(socket.id, socket.session, ending(Cause::ConnectionLost)).await);
    assert_eq!(left(&web1, socket.id).await, [id(&socket, Kind::Connected)]);
    let attempt = Attempt { n: 2, accepted_at: web1.now_ms() + 50 };
    let newcomer = Arc::new(SocketRecord { id: socket.id, attempt, ..resumable(&web1, 600) });
    let Ok((back, Admission::Welcome { .. })) = web1.admit_back(&newcomer, NO_CAP).await else { panic!() };
    // The end of a connection that has been replaced is none of the socket.
    web1.unregister(socket.id, socket.session, ending(Cause::Replaced)).await;
    assert_eq!(left(&web1, socket.id).await, [id(&socket, Kind::Connected)]);
    assert!(web1.unregister(socket.id, back.record.session, ending(Cause::PingTimeout)).await);
    assert!(web1.dismiss(socket.id, &ending(Cause::Kicked)).await);
    let ended = next(&web1, socket.id).await.event;
    assert_eq!((ended.kind, ended.data.end.unwrap().cause), (Kind::Disconnected, Cause::Kicked));
    assert_eq!(left(&web1, socket.id).await.len(), 2);
    nothing_more(&web1).await;
}

pub async fn who_does_not_come_back_is_told_to_have_ended_by_whoever_minds_it(mut fleet: Fleet) {
    let web1 = wanting(&mut fleet, "web1").await;
    let socket = comes(&web1, resumable(&web1, 1)).await;
    assert_eq!(next(&web1, socket.id).await.event.kind, Kind::Connected);
    assert!(web1.unregister(socket.id, socket.session, ending(Cause::ConnectionLost)).await);
    let ended = next(&web1, socket.id).await.event;
    assert_eq!((ended.kind, ended.data.end.unwrap().cause), (Kind::Disconnected, Cause::ConnectionLost));
}

pub async fn what_is_not_told_is_found_in_order_by_one_who_minds_it(mut fleet: Fleet) {
    let (web1, web2) = (wanting(&mut fleet, "web1").await, wanting(&mut fleet, "web2").await);
    let k = 7;
    let mut ids: Vec<_> = std::iter::repeat_with(SocketId::fresh).filter(|id| partition(*id) == k).take(5).collect();
    for id in &ids {
        comes(&web1, SocketRecord { id: *id, ..record(&web1) }).await;
    }
    let page = async |after: Option<Place>| web2.events(k, after, Duration::ZERO, 2).await.unwrap();
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let some = page(after).await;
        let Some(last) = some.last() else { break };
        after = last.at;
        found.extend(some.iter().map(|logged| logged.event.data.socket_id));
    }
    assert_eq!((found, web2.events_left(k).await), (ids.clone(), Ok(5)));
    assert_eq!(web2.events(k, None, Duration::from_secs(60), 9).await, Ok(Vec::new()), "they are young");
    told(&web2, &page(None).await[0]).await;
    ids.remove(0);
    assert_eq!(page(None).await.iter().map(|logged| logged.event.data.socket_id).collect::<Vec<_>>(), ids[..2]);
    fleet::eventually(async || {
        let minds = |at: &Registry| (0..PARTITIONS).filter(|k| at.minds_events(*k)).count();
        (minds(&web1) + minds(&web2) == PARTITIONS).then_some(())
    })
    .await;
}

pub async fn the_oldest_of_too_many_events_go_and_are_counted(mut fleet: Fleet) {
    let web1 = wanting(&mut fleet, "web1").await;
    let socket = comes(&web1, record(&web1)).await;
    for _ in 0..EVENTS_MAX + 4 {
        web1.connected(&socket).await;
    }
    let k = partition(socket.id);
    assert_eq!((web1.events_left(k).await, web1.figures().events_dropped), (Ok(EVENTS_MAX), 5));
}

pub async fn where_nobody_wants_to_be_told_nothing_is_logged(mut fleet: Fleet) {
    let web1 = fleet.instance("web1").await;
    let socket = comes(&web1, record(&web1)).await;
    assert!(web1.unregister(socket.id, socket.session, ending(Cause::Kicked)).await);
    assert_eq!(web1.events_left(partition(socket.id)).await, Ok(0));
    nothing_more(&web1).await;
    assert_eq!(fleet.keys().iter().filter(|key| key.ends_with(":events")).count(), 0);
}
