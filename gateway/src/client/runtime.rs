//! Where commands that do several things at once run: on one thread, until the command has its outcome.

use super::{asking::Failure, exit};

/// Whatever still waits then, such as a look-up of a name, is left behind.
pub fn run<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = built.map_err(|error| Failure::new(exit::FAILED, format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(Box::pin(command));
    runtime.shutdown_background();
    outcome
}
