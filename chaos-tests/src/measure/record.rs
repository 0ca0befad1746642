//! The record of a run: who called whom, when, and how it ended.

use std::collections::HashSet;
use std::time::Duration;

use portolan_topology::names::{Locality, ServiceId};
use portolan_topology::policy::Scope;

/// A client's place in [`Record::clients`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u16);

/// A backend's place in [`Record::backends`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u16);

/// One client process's stand-in: a zone of a cluster that calls one service.
#[derive(Debug, Clone, PartialEq)]
pub struct Client {
    /// The service that it calls.
    pub service: ServiceId,
    /// Where it is; the zone is always known.
    pub locality: Locality,
}

/// A backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Its name, as it answers.
    pub name: String,
    /// The service that it is an endpoint of.
    pub service: ServiceId,
    /// Where it is; the zone is always known.
    pub locality: Locality,
    /// When the scenario took it out of service for good (scaled away), if it did.
    pub removed: Option<Duration>,
}

/// One call as its caller saw it. All times are since the run's time 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call {
    /// Who called.
    pub client: ClientId,
    /// When it began.
    pub start: Duration,
    /// When its last attempt was sent; `start` unless it was retried.
    pub sent: Duration,
    /// When it ended.
    pub end: Duration,
    /// Who got the last attempt; `None` if no backend was ever picked.
    pub backend: Option<BackendId>,
    /// Whom that backend called in turn, if its service calls another.
    pub callee: Option<BackendId>,
    /// Whether it succeeded.
    pub ok: bool,
}

/// An attempt of a call that was not its last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EarlierAttempt {
    /// The call's place in [`Record::calls`].
    pub call: usize,
    /// Who got it.
    pub backend: BackendId,
    /// When it was sent.
    pub start: Duration,
    /// When it ended.
    pub end: Duration,
}

/// A backend's death by SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Death {
    /// Whose.
    pub backend: BackendId,
    /// Just before the signal.
    pub killed: Duration,
    /// When waiting for the process returned.
    pub gone: Duration,
}

/// Everything that the clients and the runner saw.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// The clients.
    pub clients: Vec<Client>,
    /// The backends.
    pub backends: Vec<Backend>,
    /// The calls, in the order in which they ended.
    pub calls: Vec<Call>,
    /// What came before the last attempts.
    pub earlier: Vec<EarlierAttempt>,
    /// The deaths.
    pub deaths: Vec<Death>,
}

/// From a moment (included) until another (excluded).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first moment.
    pub from: Duration,
    /// The end.
    pub until: Duration,
}

impl Window {
    /// From `from` until `until`.
    #[must_use]
    pub fn new(from: Duration, until: Duration) -> Self {
        Self { from, until }
    }

    /// Whether `moment` is in it.
    #[must_use]
    pub fn contains(&self, moment: Duration) -> bool {
        self.from <= moment && moment < self.until
    }

    /// How long it is; zero if it ends before it begins.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.until.saturating_sub(self.from)
    }
}

/// Which calls a figure is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Those that started in this window …
    pub window: Window,
    /// … by clients in this scope (`None`: anywhere) …
    pub clients_in: Option<Scope>,
    /// … to this service (`None`: any).
    pub service: Option<ServiceId>,
}

impl Selection {
    /// All calls of a window.
    #[must_use]
    pub fn all(window: Window) -> Self {
        Self { window, clients_in: None, service: None }
    }

    /// The calls of a window by clients in `scope`.
    #[must_use]
    pub fn by_clients_in(window: Window, scope: &Scope) -> Self {
        Self { window, clients_in: Some(scope.clone()), service: None }
    }
}

impl Record {
    /// A client by its id.
    #[must_use]
    pub fn client(&self, id: ClientId) -> &Client {
        &self.clients[usize::from(id.0)]
    }

    /// A backend by its id.
    #[must_use]
    pub fn backend(&self, id: BackendId) -> &Backend {
        &self.backends[usize::from(id.0)]
    }

    /// The calls that `selection` is about.
    pub fn select<'a>(&'a self, selection: &'a Selection) -> impl Iterator<Item = &'a Call> {
        self.select_indexed(selection).map(|(_, call)| call)
    }

    fn select_indexed<'a>(&'a self, selection: &'a Selection) -> impl Iterator<Item = (usize, &'a Call)> {
        // Decided once a client, not once a call.
        let wanted: Vec<bool> = self
            .clients
            .iter()
            .map(|client| {
                selection.clients_in.as_ref().is_none_or(|scope| scope.contains(&client.locality))
                    && selection.service.as_ref().is_none_or(|service| *service == client.service)
            })
            .collect();
        self.calls
            .iter()
            .enumerate()
            .filter(move |(_, call)| wanted[usize::from(call.client.0)] && selection.window.contains(call.start))
    }

    /// How many of the selected calls failed.
    #[must_use]
    pub fn failed(&self, selection: &Selection) -> usize {
        self.select(selection).filter(|call| !call.ok).count()
    }

    /// How many of the selected calls had an attempt at a killed process that was open at any moment between its SIGKILL
    /// and its end.
    #[must_use]
    pub fn in_flight_at_kill(&self, selection: &Selection) -> usize {
        let open = |backend: BackendId, from: Duration, until: Duration| {
            self.deaths.iter().any(|death| death.backend == backend && from <= death.gone && until >= death.killed)
        };
        let earlier: HashSet<usize> = self
            .earlier
            .iter()
            .filter(|attempt| open(attempt.backend, attempt.start, attempt.end))
            .map(|attempt| attempt.call)
            .collect();
        self.select_indexed(selection)
            .filter(|(index, call)| {
                call.backend.is_some_and(|backend| open(backend, call.sent, call.end)) || earlier.contains(index)
            })
            .count()
    }
}
