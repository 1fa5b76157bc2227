//! What a process manager is told.

use crate::{gateway::Gateway, patience::soon};
use tokio::net::UnixDatagram;

/// systemd's `Type=notify`: ready once it is, and stopping as soon as it was asked to, with the time that it takes.
#[tokio::test]
async fn systemd_hears_ready_and_stopping() {
    let path = std::env::temp_dir().join(format!("holdfast-notify-{}", std::process::id()));
    let manager = UnixDatagram::bind(&path).unwrap();
    let notify = ("NOTIFY_SOCKET", path.to_str().unwrap());
    let gateway = Gateway::with([notify, ("DRAIN_TIMEOUT", "200s")]).await;
    assert_eq!(word(&manager).await, "READY=1");
    gateway.stop().await;
    // Five more for what comes after the drain; without it systemd kills after TimeoutStopSec.
    assert_eq!(word(&manager).await, "STOPPING=1\nEXTEND_TIMEOUT_USEC=205000000");
    std::fs::remove_file(path).unwrap();
}

async fn word(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 64];
    let length = soon("a word to the manager", manager.recv(&mut buffer)).await.unwrap();
    String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
}
