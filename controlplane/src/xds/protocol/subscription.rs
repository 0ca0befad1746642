//! What a client asks for of one type: names of its own, a wildcard, or both. Each name is in the [`Ledger`] as long as
//! somebody asks for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Changes;
use super::ledger::{Before, Ledger};

/// One type's subscription on one stream.
#[derive(Debug, Default)]
pub struct Subscription {
    /// What was sent.
    pub(in crate::xds) ledger: Ledger,
    /// Whether it asks for everything.
    wildcard: bool,
    /// What everything is; `None`: not known yet.
    members: Option<BTreeSet<Arc<str>>>,
    /// Whether an answer is owed even if there is nothing in it.
    owed: bool,
    /// Whether the client may hold what it does not name, from an earlier stream.
    comes_back: bool,
}

impl Subscription {
    /// Whether there may be something to send.
    pub(in crate::xds) fn is_dirty(&self) -> bool {
        self.owed || self.ledger.is_dirty()
    }

    /// Whether the first answer to a wildcard must wait: an Envoy takes it for all that there is.
    pub(in crate::xds) fn must_wait(&self) -> bool {
        self.owed && (self.members.is_none() || self.ledger.awaits_members())
    }

    /// Whether an answer was owed; it is not any more.
    pub(in crate::xds) fn take_owed(&mut self) -> bool {
        std::mem::take(&mut self.owed)
    }

    /// Whether it asks for everything.
    pub(in crate::xds) fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// What a wildcard stands for from now on.
    pub(in crate::xds) fn set_members(&mut self, members: BTreeSet<Arc<str>>) -> Changes {
        self.members = Some(members);
        let mut changes = Changes::default();
        if self.wildcard {
            self.follow_members(&mut changes);
        }
        changes
    }

    /// Whether it asks for everything from now on. `comes_back`: whether the client may hold something of it.
    pub(in crate::xds) fn set_wildcard(&mut self, wildcard: bool, comes_back: bool, changes: &mut Changes) {
        if wildcard == self.wildcard {
            return;
        }
        self.wildcard = wildcard;
        self.owed = wildcard;
        self.comes_back = comes_back;
        if wildcard {
            self.follow_members(changes);
        } else {
            let only_by_wildcard: Vec<_> =
                self.ledger.names().filter(|name| !self.ledger.is_named(name)).cloned().collect();
            for name in only_by_wildcard {
                self.ledger.forget(&name);
                changes.removed.push(name);
            }
        }
    }

    fn follow_members(&mut self, changes: &mut Changes) {
        let Some(members) = &self.members else { return };
        let is_left = |name: &&Arc<str>| !members.contains(*name) && !self.ledger.is_named(name);
        let left: Vec<_> = self.ledger.names().filter(is_left).cloned().collect();
        for name in left {
            self.ledger.leave(&name, false);
            changes.removed.push(name);
        }
        // What comes to a wildcard later was never held.
        let before = if std::mem::take(&mut self.comes_back) { Before::Something } else { Before::Nothing };
        for name in members {
            if self.ledger.follow(name, false, before) {
                changes.added.push(name.clone());
            }
        }
    }

    /// The client holds `version` of `name` and asks for it by a wildcard alone.
    pub(in crate::xds) fn holds(&mut self, name: &str, before: Before, changes: &mut Changes) {
        let name: Arc<str> = name.into();
        let known_to_be_gone = self.members.as_ref().is_some_and(|members| !members.contains(&name));
        if self.ledger.follow(&name, false, before) {
            if known_to_be_gone {
                self.ledger.leave(&name, true);
            } else {
                changes.added.push(name);
            }
        }
    }

    /// The client names `name`. Says whether it had named it before.
    pub(in crate::xds) fn name(&mut self, name: &str, before: Before, changes: &mut Changes) -> bool {
        if self.ledger.is_named(name) {
            return true;
        }
        let name: Arc<str> = name.into();
        if self.ledger.follow(&name, true, before) {
            changes.added.push(name);
        }
        false
    }

    /// The client names `name` no longer. Says whether a wildcard still asks for it.
    pub(in crate::xds) fn unname(&mut self, name: &Arc<str>, changes: &mut Changes) -> bool {
        let is_member = self.members.as_ref().is_none_or(|members| members.contains(name));
        if self.wildcard && is_member {
            self.ledger.unname(name);
            return true;
        }
        if self.wildcard {
            // What is under way to the client comes to its wildcard, so it must hear that it is gone.
            self.ledger.leave(name, false);
        } else {
            self.ledger.forget(name);
        }
        changes.removed.push(name.clone());
        false
    }
}
