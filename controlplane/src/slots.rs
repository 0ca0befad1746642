//! Waiting for what the stage before hands over.

use std::future::pending;

use tokio::sync::watch;

/// Waits for the next value; a slot that nobody fills any more never has one.
pub(crate) async fn changed<T>(slot: &mut watch::Receiver<T>) {
    if slot.changed().await.is_err() {
        pending().await
    }
}
