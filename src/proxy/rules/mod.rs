//! The rules in force: those of the configuration, and those set over the admin API, which outlive a restart.

pub(super) mod layer;

use std::{
    fs, io, mem,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::Deserialize;

use super::log::{Author, audit};
use crate::{
    base::files,
    rules::{Change, Changes, RULES_MAX, Rule, RuleSet, RuleSpec, Versioned},
    telemetry::metrics::Metrics,
};

/// The file in the data folder.
const FILE: &str = "rules.json";

/// Why a rule cannot be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The number of rules is at its limit.
    Full,
    /// One of the configuration has its name.
    Configured,
}

/// The rules in force.
#[derive(Debug)]
pub(crate) struct QueryRules {
    set: ArcSwap<RuleSet>,
    /// Held while the set or its file is changed.
    at_run_time: Mutex<AtRunTime>,
    metrics: Arc<Metrics>,
    /// Milliseconds since the epoch.
    clock: fn() -> i64,
}

/// The rules that are set over the admin API.
#[derive(Debug, Default)]
struct AtRunTime {
    changes: Changes,
    /// Where they are kept, if anywhere.
    file: Option<PathBuf>,
}

impl QueryRules {
    pub(super) fn new(configured: Vec<Arc<Rule>>, metrics: Arc<Metrics>, clock: fn() -> i64) -> Self {
        let set = RuleSet { at_run_time: Vec::new(), configured };
        set.iter().for_each(|rule| metrics.rule_set(rule.name(), rule.action.as_str()));
        Self { set: ArcSwap::from_pointee(set), at_run_time: Mutex::default(), metrics, clock }
    }

    /// The rules now.
    pub(crate) fn set(&self) -> Arc<RuleSet> {
        self.set.load_full()
    }

    /// Obeys other rules of the configuration from now on.
    pub(super) fn configure(&self, configured: Vec<Arc<Rule>>) {
        let kept = self.at_run_time.lock();
        self.replace(&kept.changes, configured);
    }

    /// Reads the rules that were set before the last stop, and keeps later ones there. Blocks.
    pub(super) fn keep_in(&self, folder: &Path) {
        let path = folder.join(FILE);
        let mut kept = self.at_run_time.lock();
        match read(&path, (self.clock)()) {
            Ok(changes) => {
                let early = mem::replace(&mut kept.changes, changes);
                for of in early.all(false) {
                    // They were read before.
                    let _ = kept.changes.take(of, (self.clock)());
                }
                self.replace(&kept.changes, self.set.load().configured.clone());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "rules set over the admin API are lost");
            }
        }
        kept.file = Some(path);
    }

    /// Sets a rule before all others; one that was set before under its name is replaced. The error of the file, where
    /// it could not be written: the rule holds until the next stop then. Blocks.
    pub(crate) fn add(&self, rule: Rule, by: &Author) -> Result<Option<io::Error>, NoRoom> {
        let mut kept = self.at_run_time.lock();
        let (now_ms, configured) = ((self.clock)(), self.set.load().configured.clone());
        if configured.iter().any(|known| known.name() == rule.name()) {
            return Err(NoRoom::Configured);
        }
        let others = kept.changes.rules(now_ms).iter().filter(|known| known.name() != rule.name()).count();
        if others >= RULES_MAX {
            return Err(NoRoom::Full);
        }
        let rule = Arc::new(rule);
        kept.changes.set(&rule, &by.name, now_ms);
        self.replace(&kept.changes, configured);
        audit::rule("add", &rule, by);
        Ok(write(&kept))
    }

    /// Takes away a rule that was set over the admin API, and the error of the file. Blocks.
    pub(crate) fn remove(&self, name: &str, by: &Author) -> Option<(Arc<Rule>, Option<io::Error>)> {
        let mut kept = self.at_run_time.lock();
        let removed = kept.changes.remove(name, &by.name, (self.clock)())?;
        self.replace(&kept.changes, self.set.load().configured.clone());
        audit::rule("remove", &removed, by);
        Some((removed, write(&kept)))
    }

    /// The changes over the admin API, the newest first; or only those that the fleet's store has not counted. `None` while
    /// they are being changed: that takes a write to the disk.
    pub(super) fn changes(&self, is_uncounted: bool) -> Option<Vec<Versioned>> {
        Some(self.at_run_time.try_lock()?.changes.all(is_uncounted))
    }

    /// Takes from the fleet the versions of changes that were made here, and the changes of other proxies. Gives the number
    /// of changes that cannot be read. Blocks.
    pub(super) fn exchange(&self, counted: &[Versioned], taken: Vec<Versioned>) -> usize {
        let mut kept = self.at_run_time.lock();
        for Versioned { version, change, .. } in counted {
            kept.changes.counted(change, *version);
        }
        let (mut unreadable, now_ms) = (0, (self.clock)());
        for of in taken {
            let (name, by) = (of.change.name.clone(), of.change.by.clone());
            let action = if of.change.rule.is_some() { "add" } else { "remove" };
            match kept.changes.take(of, now_ms) {
                Ok(Some(rule)) => audit::rule(action, &rule, &Author::elsewhere(&by)),
                Ok(None) => {}
                Err(why) => {
                    unreadable += 1;
                    tracing::warn!(rule = name, why, "a rule of another proxy is left out");
                }
            }
        }
        self.replace(&kept.changes, self.set.load().configured.clone());
        // Said there.
        let _ = write(&kept);
        unreadable
    }

    /// A rule of the configuration stands in for one that another proxy set under its name.
    fn replace(&self, changes: &Changes, configured: Vec<Arc<Rule>>) {
        let mut at_run_time = changes.rules((self.clock)());
        at_run_time.retain(|rule| configured.iter().all(|known| known.name() != rule.name()));
        let (before, after) = (self.set.load(), RuleSet { at_run_time, configured });
        let stays = |name: &str, action: &str| {
            after.iter().any(|rule| rule.name() == name && rule.action.as_str() == action)
        };
        for rule in before.iter().filter(|rule| !stays(rule.name(), rule.action.as_str())) {
            self.metrics.forget_rule(rule.name(), rule.action.as_str());
        }
        after.iter().for_each(|rule| self.metrics.rule_set(rule.name(), rule.action.as_str()));
        self.set.store(Arc::new(after));
    }
}

fn write(kept: &AtRunTime) -> Option<io::Error> {
    let file = kept.file.as_deref()?;
    let written = serde_json::to_vec_pretty(&kept.changes.all(false)).map_err(io::Error::other);
    let written = written.and_then(|text| files::replace(file, &text, true));
    let error = written.err()?;
    tracing::warn!(%error, file = %file.display(), "rules set over the admin API are not kept");
    Some(error)
}

/// A line of the file; earlier versions kept the rules alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Kept {
    Change(Versioned),
    Rule(RuleSpec),
}

/// The changes of the file that may still matter. One that cannot be read is left out, and said.
fn read(path: &Path, now_ms: i64) -> io::Result<Changes> {
    let kept: Vec<Kept> = serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)?;
    let mut changes = Changes::default();
    // The newest is the first.
    for kept in kept.into_iter().rev() {
        let of = match kept {
            Kept::Change(of) => of,
            Kept::Rule(spec) => Versioned {
                version: 0,
                until_ms: now_ms,
                change: Change { name: spec.name.clone(), rule: Some(spec), by: String::new() },
            },
        };
        let name = of.change.name.clone();
        if let Err(why) = changes.take(of, now_ms) {
            tracing::warn!(rule = name, why, "a rule of the data folder is left out");
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn rule(name: &str, expires: &str) -> Rule {
        let spec =
            serde_json::json!({"name": name, "match": {"metric": "m"}, "reason": "x", "expires": expires});
        serde_json::from_value::<RuleSpec>(spec).unwrap().read(Some(NOW)).unwrap()
    }

    fn names(rules: &QueryRules) -> Vec<String> {
        rules.set().iter().map(|rule| rule.name().to_owned()).collect()
    }

    fn started(folder: &Path, clock: fn() -> i64) -> QueryRules {
        let rules = QueryRules::new(
            vec![Arc::new(rule("configured", "9h"))],
            Arc::new(Metrics::new(1).unwrap()),
            clock,
        );
        rules.keep_in(folder);
        rules
    }

    #[test]
    fn rules_outlive_a_restart_until_they_expire() {
        let folder = tempfile::tempdir().unwrap();
        let by = Author { name: "ann".to_owned(), peer: None };
        let rules = started(folder.path(), || NOW);
        for (name, expires) in [("a", "1h"), ("b", "3h"), ("a", "2h")] {
            assert!(rules.add(rule(name, expires), &by).unwrap().is_none());
        }
        assert_eq!(names(&rules), ["a", "b", "configured"], "the newest first, each once");
        assert_eq!(rules.add(rule("configured", "1h"), &by).unwrap_err(), NoRoom::Configured);
        let again = started(folder.path(), || NOW);
        assert_eq!(names(&again), ["a", "b", "configured"]);
        assert!(again.remove("configured", &by).is_none(), "it is the file's");
        let later = started(folder.path(), || NOW + 2 * 3_600_000);
        assert_eq!(names(&later), ["b", "configured"]);
        assert!(later.remove("b", &by).unwrap().1.is_none());
        assert_eq!(names(&started(folder.path(), || NOW)), ["configured"]);
    }

    #[test]
    fn the_changes_of_a_fleet_outlive_a_restart_and_the_file_of_an_earlier_version_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let old =
            serde_json::json!([rule("new", "2h").spec, rule("old", "1h").spec, rule("over", "1ms").spec]);
        fs::write(folder.path().join(FILE), old.to_string()).unwrap();
        let rules = started(folder.path(), || NOW + 1);
        assert_eq!(names(&rules), ["new", "old", "configured"]);
        let change = |name: &str, spec: Option<RuleSpec>, version| Versioned {
            version,
            until_ms: NOW + 3_600_000,
            change: Change { name: name.to_owned(), rule: spec, by: "ann".to_owned() },
        };
        let [of_ours, theirs, hidden] =
            ["old", "theirs", "configured"].map(|name| Some(rule(name, "1h").spec));
        let taken = vec![
            change("theirs", theirs, 7),
            change("configured", hidden, 9),
            change("odd", Some(RuleSpec::default()), 8),
        ];
        let counted = Versioned {
            change: Change { by: String::new(), ..change("old", of_ours, 0).change },
            ..change("", None, 6)
        };
        assert_eq!(rules.exchange(&[counted], taken), 1, "one cannot be read");
        assert_eq!(names(&rules), ["new", "theirs", "old", "configured"], "uncounted ones come first");
        rules.remove("theirs", &Author::elsewhere("ben")).unwrap();
        let again = started(folder.path(), || NOW + 2);
        assert_eq!(names(&again), ["new", "old", "configured"]);
        assert_eq!(again.changes(false), rules.changes(false));
        assert_eq!(again.changes(true).unwrap().len(), 2, "the removal and `new` are to be counted");
    }

    #[test]
    fn there_are_not_more_than_can_be_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let by = Author { name: String::new(), peer: None };
        let rules = started(&folder.path().join("missing"), || NOW);
        for n in 0..RULES_MAX {
            assert!(rules.add(rule(&format!("r{n}"), "1h"), &by).unwrap().is_some(), "said, and set");
        }
        assert_eq!(rules.add(rule("more", "1h"), &by).unwrap_err(), NoRoom::Full);
        assert!(rules.add(rule("r5", "2h"), &by).is_ok());
    }
}
