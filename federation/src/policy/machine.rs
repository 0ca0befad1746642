//! The policy state machine: what committed commands come to. Pure: the same commands give the same state on every node.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use portolan_topology::policy::{PolicyObject, PolicySet, StoredPolicy};
use serde::{Deserialize, Serialize};

use super::types::{Command, Outcome, PolicyChange};

/// How many changes the history keeps. A change is some 1 KB, so a snapshot stays under 10 MB.
const HISTORY_LIMIT: usize = 10_000;

/// All policy objects, and how they came to be.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Machine {
    set: PolicySet,
    history: VecDeque<Change>,
}

/// What brings a copy of a machine up to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Update {
    /// All of it.
    Whole(Machine),
    /// What changed since.
    Since {
        /// The last change.
        revision: u64,
        /// The changes, oldest first.
        changes: Vec<Change>,
        /// The objects that they are about, as they are now; `None`: removed.
        objects: BTreeMap<String, Option<StoredPolicy>>,
    },
}

/// One change of one object, as the history keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Its revision; objects that one command changed share it.
    pub revision: u64,
    /// The object.
    pub key: String,
    /// Who.
    pub by: String,
    /// When, by the clock of the node that was asked.
    pub at: Timestamp,
    /// What it became; `None`: removed.
    pub object: Option<PolicyObject>,
}

impl Machine {
    /// All objects.
    #[must_use]
    pub fn set(&self) -> &PolicySet {
        &self.set
    }

    /// The changes kept, oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Change> {
        self.history.iter()
    }

    /// Applies a committed command, whole or not at all. `revision` is its log index.
    pub fn apply(&mut self, revision: u64, command: &Command) -> Outcome {
        for key in command.change.keys() {
            let stored = self.set.objects.get(&key);
            let found = stored.map_or(0, |stored| stored.revision);
            if let Some(stored) = stored
                && stored.owner != command.owner
                && !command.take_over
            {
                return Outcome::Owned { key, owner: stored.owner.clone() };
            }
            if command.expected_revision.is_some_and(|expected| expected != found) {
                return Outcome::Conflict { key, found };
            }
            if found == 0 && matches!(command.change, PolicyChange::Delete(_)) {
                return Outcome::NotFound { key };
            }
        }
        let changed = match &command.change {
            PolicyChange::Apply(objects) => {
                objects.iter().filter(|object| self.put(revision, object, command)).count() > 0
            }
            PolicyChange::Delete(keys) => {
                for key in keys {
                    self.set.objects.remove(key);
                    self.remember(revision, key.clone(), None, command);
                }
                true
            }
        };
        if !changed {
            return Outcome::Unchanged { revision: self.set.revision };
        }
        self.set.revision = revision;
        Outcome::Applied { revision }
    }

    /// What brings a copy at `revision` up to this.
    #[must_use]
    pub fn since(&self, revision: u64) -> Update {
        // What is not in the history any more cannot be told apart from what never was.
        let remembered = self.history.front().is_some_and(|first| first.revision <= revision);
        if !remembered {
            return Update::Whole(self.clone());
        }
        let changes: Vec<_> = self.history.iter().filter(|change| change.revision > revision).cloned().collect();
        let now = |change: &Change| (change.key.clone(), self.set.objects.get(&change.key).cloned());
        Update::Since { revision: self.set.revision, objects: changes.iter().map(now).collect(), changes }
    }

    /// Brings this copy up to what `update` was made from; one that is older changes nothing.
    pub fn update(&mut self, update: Update) {
        let (revision, changes, objects) = match update {
            Update::Whole(machine) => {
                *self = machine;
                return;
            }
            Update::Since { revision, changes, objects } => (revision, changes, objects),
        };
        if revision <= self.set.revision {
            return;
        }
        let known = self.set.revision;
        changes.into_iter().filter(|change| change.revision > known).for_each(|change| self.keep(change));
        for (key, stored) in objects {
            match stored {
                Some(stored) => drop(self.set.objects.insert(key, stored)),
                None => drop(self.set.objects.remove(&key)),
            }
        }
        self.set.revision = revision;
    }

    fn put(&mut self, revision: u64, object: &PolicyObject, command: &Command) -> bool {
        let key = object.key();
        let before = self.set.objects.get(&key);
        if before.is_some_and(|stored| stored.object == *object && stored.owner == command.owner) {
            return false;
        }
        let created = before.map_or(revision, |stored| stored.created);
        let (owner, by) = (command.owner.clone(), command.by.clone());
        let stored = StoredPolicy { object: object.clone(), owner, created, revision, by, at: command.at };
        self.set.objects.insert(key.clone(), stored);
        self.remember(revision, key, Some(object.clone()), command);
        true
    }

    fn remember(&mut self, revision: u64, key: String, object: Option<PolicyObject>, command: &Command) {
        self.keep(Change { revision, key, by: command.by.clone(), at: command.at, object });
    }

    fn keep(&mut self, change: Change) {
        if self.history.len() == HISTORY_LIMIT {
            self.history.pop_front();
        }
        self.history.push_back(change);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portolan_topology::policy::{Drain, DrainSpec, Owner, Scope};

    use super::*;

    fn drain(name: &str, percent: u32) -> PolicyObject {
        PolicyObject::Drain(Drain {
            name: name.to_owned(),
            spec: DrainSpec {
                scope: Scope::Region("us-east".parse().unwrap()),
                services: None,
                percent,
                over: Duration::ZERO,
                restore_over: Duration::ZERO,
                start_time: None,
                end_time: None,
                force: false,
                reason: "a test".to_owned(),
            },
        })
    }

    fn command(change: PolicyChange, expected_revision: Option<u64>) -> Command {
        let (owner, take_over, at) = (Owner::Admin, false, Timestamp::UNIX_EPOCH);
        Command { change, expected_revision, owner, take_over, by: "ada".to_owned(), at }
    }

    fn of_kubernetes(cluster: &str, change: PolicyChange) -> Command {
        Command { owner: Owner::Kubernetes(cluster.parse().unwrap()), ..command(change, None) }
    }

    fn apply(objects: Vec<PolicyObject>, expected: Option<u64>) -> Command {
        command(PolicyChange::Apply(objects), expected)
    }

    #[test]
    fn a_change_takes_the_log_index_as_its_revision_and_stays_in_the_history() {
        let mut machine = Machine::default();
        assert_eq!(machine.apply(7, &apply(vec![drain("a", 10)], None)), Outcome::Applied { revision: 7 });
        assert_eq!(machine.apply(9, &apply(vec![drain("a", 20)], None)), Outcome::Applied { revision: 9 });
        let stored = &machine.set().objects["Drain/a"];
        assert_eq!((stored.created, stored.revision, machine.set().revision), (7, 9, 9));
        let removed = command(PolicyChange::Delete(vec!["Drain/a".to_owned()]), None);
        assert_eq!(machine.apply(11, &removed), Outcome::Applied { revision: 11 });
        let history: Vec<_> = machine.history().map(|change| (change.revision, change.object.is_some())).collect();
        assert_eq!(history, [(7, true), (9, true), (11, false)]);
    }

    #[test]
    fn what_is_so_already_writes_nothing() {
        let mut machine = Machine::default();
        machine.apply(7, &apply(vec![drain("a", 10)], None));
        assert_eq!(machine.apply(8, &apply(vec![drain("a", 10)], None)), Outcome::Unchanged { revision: 7 });
        assert_eq!(machine.history().count(), 1);
    }

    #[test]
    fn an_expected_revision_is_compared_for_every_object_before_any_is_written() {
        let mut machine = Machine::default();
        machine.apply(7, &apply(vec![drain("a", 10)], None));
        let outcome = machine.apply(8, &apply(vec![drain("b", 10), drain("a", 20)], Some(0)));
        assert_eq!(outcome, Outcome::Conflict { key: "Drain/a".to_owned(), found: 7 });
        assert!(!machine.set().objects.contains_key("Drain/b"));
        assert_eq!(machine.apply(9, &apply(vec![drain("a", 20)], Some(7))), Outcome::Applied { revision: 9 });
    }

    #[test]
    fn removing_what_does_not_exist_says_which() {
        let mut machine = Machine::default();
        machine.apply(7, &apply(vec![drain("a", 10)], None));
        let keys = vec!["Drain/a".to_owned(), "Drain/zz".to_owned()];
        let outcome = machine.apply(8, &command(PolicyChange::Delete(keys), None));
        assert_eq!(outcome, Outcome::NotFound { key: "Drain/zz".to_owned() });
        assert!(machine.set().objects.contains_key("Drain/a"));
    }

    #[test]
    fn an_object_of_another_owner_is_neither_changed_nor_removed() {
        let mut machine = Machine::default();
        let theirs = || PolicyChange::Apply(vec![drain("a", 10)]);
        assert_eq!(machine.apply(7, &of_kubernetes("use1-a", theirs())), Outcome::Applied { revision: 7 });
        let owned = Outcome::Owned { key: "Drain/a".to_owned(), owner: Owner::Kubernetes("use1-a".parse().unwrap()) };
        let removed = || PolicyChange::Delete(vec!["Drain/a".to_owned()]);
        for foreign in [
            apply(vec![drain("b", 10), drain("a", 20)], None),
            command(removed(), None),
            of_kubernetes("euw1-a", theirs()),
        ] {
            assert_eq!(machine.apply(8, &foreign), owned);
        }
        assert_eq!(machine.set().objects.len(), 1);
        assert_eq!(machine.apply(9, &of_kubernetes("use1-a", theirs())), Outcome::Unchanged { revision: 7 });
        assert_eq!(machine.apply(10, &of_kubernetes("use1-a", removed())), Outcome::Applied { revision: 10 });
    }

    #[test]
    fn what_its_owner_cannot_speak_for_is_taken_over() {
        let mut machine = Machine::default();
        machine.apply(7, &of_kubernetes("use1-a", PolicyChange::Apply(vec![drain("a", 10)])));
        let taken = Command { take_over: true, ..apply(vec![drain("a", 10)], None) };
        assert_eq!(machine.apply(8, &taken), Outcome::Applied { revision: 8 });
        assert_eq!(machine.set().objects["Drain/a"].owner, Owner::Admin);
    }

    #[test]
    fn an_entry_of_the_log_without_an_owner_is_the_admin_interface_s() {
        let old = r#"{"change": {"delete": ["Drain/a"]}, "expectedRevision": null, "by": "ada", "at": "1970-01-01T00:00:00Z"}"#;
        let command: Command = serde_json::from_str(old).unwrap();
        assert_eq!((command.owner, command.take_over), (Owner::Admin, false));
    }

    #[test]
    fn the_history_is_bounded() {
        let mut machine = Machine::default();
        for revision in 1..=(HISTORY_LIMIT as u64 + 5) {
            machine.apply(revision, &apply(vec![drain("a", 1 + u32::try_from(revision % 2).unwrap())], None));
        }
        assert_eq!(machine.history().count(), HISTORY_LIMIT);
        assert_eq!(machine.history().next().unwrap().revision, 6);
    }

    proptest::proptest! {
        #[test]
        fn a_copy_that_is_told_now_and_then_has_what_the_machine_has(
            commands in proptest::collection::vec((0_usize..4, 0_u32..3, proptest::bool::ANY, proptest::bool::ANY), 0..60),
        ) {
            let (mut machine, mut copy) = (Machine::default(), Machine::default());
            for (revision, (name, percent, delete, tell)) in (1..).zip(commands) {
                let name = ["a", "b", "c", "d"][name];
                let change = if delete {
                    PolicyChange::Delete(vec![format!("Drain/{name}")])
                } else {
                    PolicyChange::Apply(vec![drain(name, percent), drain("all", percent)])
                };
                machine.apply(revision, &command(change, None));
                if tell {
                    copy.update(machine.since(copy.set().revision));
                    proptest::prop_assert_eq!(&copy, &machine);
                }
            }
            copy.update(machine.since(copy.set().revision));
            proptest::prop_assert_eq!(copy, machine);
        }
    }
}
