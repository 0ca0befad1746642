//! Kubernetes Events: what is wrong with an object, said where its owner looks (`kubectl describe`).
//!
//! Who says something does not wait: what does not fit the queue is dropped, since whatever is still wrong is said again. The
//! same about the same object is said once in ten minutes.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How many wait to be said.
const QUEUE: usize = 256;
/// How long the same is not said again.
const AGAIN_AFTER: Duration = Duration::from_secs(600);
/// The longest note that an API server takes.
const LONGEST_NOTE: usize = 1024;
/// At most so many are remembered; the oldest go first.
const REMEMBERED: usize = 10_000;

/// Says what is wrong with objects. Clones share it.
#[derive(Debug, Clone)]
pub struct Events {
    queue: Option<mpsc::Sender<Said>>,
}

#[derive(Debug, Clone, PartialEq)]
struct Said {
    about: ObjectReference,
    reason: &'static str,
    note: String,
}

impl Events {
    /// Says them to the API server of `client`; `instance` is the node that says them.
    #[must_use]
    pub fn start(client: Client, instance: String) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE);
        let reporter = Reporter { controller: "portolan.dev/control-plane".to_owned(), instance: Some(instance) };
        tokio::spawn(publish(client, reporter, queue));
        Self { queue: Some(sender) }
    }

    /// Says nothing: where there is no Kubernetes.
    #[must_use]
    pub fn none() -> Self {
        Self { queue: None }
    }

    /// Says that something is wrong with an object: `reason` is one word in PascalCase, `note` a sentence.
    pub fn warn(&self, about: ObjectReference, reason: &'static str, note: impl Into<String>) {
        if let Some(queue) = &self.queue {
            // A full queue: what is still wrong is said again.
            let _ = queue.try_send(Said::new(about, reason, note.into()));
        }
    }

    /// The same for who has much to say and can wait: nothing is dropped.
    pub(super) async fn warn_in_turn(&self, about: ObjectReference, reason: &'static str, note: &str) {
        if let Some(queue) = &self.queue {
            // It is closed at the end.
            let _ = queue.send(Said::new(about, reason, note.to_owned())).await;
        }
    }
}

impl Said {
    fn new(about: ObjectReference, reason: &'static str, mut note: String) -> Self {
        if note.len() > LONGEST_NOTE {
            note.truncate(note.floor_char_boundary(LONGEST_NOTE - "…".len()));
            note.push('…');
        }
        Self { about, reason, note }
    }
}

async fn publish(client: Client, reporter: Reporter, mut queue: mpsc::Receiver<Said>) {
    let mut memory = Memory::default();
    let mut failing = false;
    while let Some(said) = queue.recv().await {
        if !memory.is_news(&said, Instant::now()) {
            continue;
        }
        let Said { about, reason, note } = said;
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        // A recorder that remembers would count a second note of one reason about an object as the first one again.
        let published = Recorder::new(client.clone(), reporter.clone()).publish(&event, &about).await;
        match &published {
            Err(error) if !failing => tracing::warn!(%error, "Kubernetes Events cannot be written"),
            _ => {}
        }
        failing = published.is_err();
    }
}

/// What was said, and when.
#[derive(Default)]
struct Memory {
    said: HashMap<(String, &'static str, String), Instant>,
}

impl Memory {
    fn is_news(&mut self, said: &Said, now: Instant) -> bool {
        if self.said.len() >= REMEMBERED {
            self.said.retain(|_, at| now.duration_since(*at) < AGAIN_AFTER);
            if self.said.len() >= REMEMBERED {
                self.said.clear();
            }
        }
        let ObjectReference { kind, namespace, name, uid, .. } = &said.about;
        let about = [kind, namespace, name, uid].map(|part| part.as_deref().unwrap_or_default()).join("/");
        let key = (about, said.reason, said.note.clone());
        match self.said.get(&key) {
            Some(at) if now.duration_since(*at) < AGAIN_AFTER => false,
            _ => {
                self.said.insert(key, now);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, note: &str) -> Said {
        let about = ObjectReference { name: Some(name.to_owned()), ..ObjectReference::default() };
        Said { about, reason: "Invalid", note: note.to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_of_the_same_object_is_said_once_in_ten_minutes() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        assert!(memory.is_news(&said("a", "x"), start));
        assert!(!memory.is_news(&said("a", "x"), start + Duration::from_secs(599)));
        assert!(memory.is_news(&said("b", "x"), start) && memory.is_news(&said("a", "y"), start));
        assert!(memory.is_news(&said("a", "x"), start + AGAIN_AFTER));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        for number in 0..3 * REMEMBERED {
            memory.is_news(&said(&number.to_string(), "x"), start);
        }
        assert!(memory.said.len() <= REMEMBERED);
    }

    #[test]
    fn a_note_that_is_too_long_is_cut_between_characters() {
        let (queue, mut received) = mpsc::channel(1);
        let events = Events { queue: Some(queue) };
        events.warn(ObjectReference::default(), "Invalid", "ä".repeat(LONGEST_NOTE));
        // The queue is full: this is dropped, and nobody waits.
        events.warn(ObjectReference::default(), "Invalid", "another");
        let note = received.try_recv().unwrap().note;
        assert!(note.len() <= LONGEST_NOTE && note.ends_with('…'), "{}", note.len());
        assert!(received.try_recv().is_err());
    }
}
