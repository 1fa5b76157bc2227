//! Ctrl-C, for commands that go on until somebody has seen enough.

/// Ends when somebody asks to stop. Where that cannot be heard, the process ends by itself.
pub async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
