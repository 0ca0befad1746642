//! What the Envoys of each gateway are served now, and who is to hear when that changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::GatewayResources;
use crate::gateway::objects::ObjectName;

/// Somebody who is served a gateway's resources. It is called from the task that made the change: it must not wait.
pub trait GatewayWatcher: Send + Sync + 'static {
    /// This is what it is served from now on.
    fn gateway_changed(&self, resources: Arc<GatewayResources>);
}

/// The gateways' resources.
#[derive(Default)]
pub struct GatewayBook {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// `None`: it is not known yet what gateways there are.
    current: Option<BTreeMap<ObjectName, Arc<GatewayResources>>>,
    watchers: HashMap<ObjectName, HashMap<u64, Arc<dyn GatewayWatcher>>>,
    last: u64,
}

/// Keeps a watcher informed until it is dropped.
pub struct GatewayWatch {
    book: Arc<GatewayBook>,
    gateway: ObjectName,
    number: u64,
}

impl GatewayBook {
    /// What the Envoys of `gateway` are served now: nothing, if there is no such gateway; `None`: that is not known yet.
    /// `watcher` hears of every change from then on, until the [`GatewayWatch`] is dropped.
    pub fn watch(
        self: &Arc<Self>,
        gateway: &ObjectName,
        watcher: &Arc<dyn GatewayWatcher>,
    ) -> (Option<Arc<GatewayResources>>, GatewayWatch) {
        let mut state = self.state.lock();
        state.last += 1;
        let number = state.last;
        state.watchers.entry(gateway.clone()).or_default().insert(number, watcher.clone());
        let now = state.current.as_ref().map(|current| current.get(gateway).cloned().unwrap_or_default());
        (now, GatewayWatch { book: self.clone(), gateway: gateway.clone(), number })
    }

    /// Takes over what all gateways are served from now on, and tells those whose gateway differs.
    pub fn replace(&self, now: BTreeMap<ObjectName, Arc<GatewayResources>>) {
        let mut news = Vec::new();
        {
            let mut state = self.state.lock();
            let before = state.current.replace(now);
            let State { current: Some(now), watchers, .. } = &*state else { return };
            for (gateway, watchers) in watchers {
                let resources = now.get(gateway).cloned().unwrap_or_default();
                let same = before.as_ref().is_some_and(|before| match before.get(gateway) {
                    Some(before) => *before == resources,
                    None => !now.contains_key(gateway),
                });
                if !same {
                    news.extend(watchers.values().map(|watcher| (watcher.clone(), resources.clone())));
                }
            }
        }
        // Not under the lock. The next change comes from the same task, so the order holds.
        for (watcher, resources) in news {
            watcher.gateway_changed(resources);
        }
    }
}

impl Drop for GatewayWatch {
    fn drop(&mut self) {
        let mut state = self.book.state.lock();
        if let Some(watchers) = state.watchers.get_mut(&self.gateway) {
            watchers.remove(&self.number);
            if watchers.is_empty() {
                state.watchers.remove(&self.gateway);
            }
        }
    }
}

impl std::fmt::Debug for GatewayBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayBook").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for GatewayWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayWatch").field("gateway", &self.gateway).finish_non_exhaustive()
    }
}
