//! Tells the owners of objects what the source cannot use of them, as Events, on the node that holds the Lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::events::Events;
use super::lease::Standing;
use crate::source::kube::Notes;

/// What is still wrong is said again, for Events are forgotten after an hour.
const AGAIN_AFTER: Duration = Duration::from_secs(600);
/// The reason of each: what is used of the object, and what is not, the note says.
const REASON: &str = "Invalid";

/// Says them while the Lease is ours, for as long as it runs.
pub(super) async fn run(mut notes: watch::Receiver<Arc<Notes>>, events: Events, mut lease: watch::Receiver<Standing>) {
    while lease.wait_for(|standing| standing.mine).await.is_ok() {
        let now = notes.borrow_and_update().clone();
        for (about, note) in now.iter() {
            events.warn_in_turn(about.clone(), REASON, note).await;
        }
        tokio::select! {
            changed = notes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(AGAIN_AFTER) => {}
        }
    }
}
