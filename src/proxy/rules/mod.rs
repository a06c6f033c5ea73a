//! The rules in force: those of the configuration, and those set over the admin API, which outlive a restart.

pub(super) mod layer;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::log::{Author, audit};
use crate::{
    base::files,
    rules::{RULES_MAX, Rule, RuleSet, RuleSpec},
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
    /// Held while the set or its file is changed; where the file is, if anywhere.
    changing: Mutex<Option<PathBuf>>,
    metrics: Arc<Metrics>,
    /// Milliseconds since the epoch.
    clock: fn() -> i64,
}

impl QueryRules {
    pub(super) fn new(configured: Vec<Arc<Rule>>, metrics: Arc<Metrics>, clock: fn() -> i64) -> Self {
        let set = RuleSet { at_run_time: Vec::new(), configured };
        set.iter().for_each(|rule| metrics.rule_set(rule.name(), rule.action.as_str()));
        Self { set: ArcSwap::from_pointee(set), changing: Mutex::default(), metrics, clock }
    }

    /// The rules now.
    pub(crate) fn set(&self) -> Arc<RuleSet> {
        self.set.load_full()
    }

    /// Obeys other rules of the configuration from now on.
    pub(super) fn configure(&self, configured: Vec<Arc<Rule>>) {
        let _changing = self.changing.lock();
        self.replace(RuleSet { configured, at_run_time: self.set.load().at_run_time.clone() });
    }

    /// Reads the rules that were set before the last stop, and keeps later ones there. Blocks.
    pub(super) fn keep_in(&self, folder: &Path) {
        let path = folder.join(FILE);
        let mut changing = self.changing.lock();
        match read(&path, (self.clock)()) {
            Ok(at_run_time) => {
                let configured = self.set.load().configured.clone();
                self.replace(RuleSet { at_run_time, configured });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "rules set over the admin API are lost");
            }
        }
        *changing = Some(path);
    }

    /// Sets a rule before all others; one that was set before under its name is replaced. The error of the file, where
    /// it could not be written: the rule holds until the next stop then. Blocks.
    pub(crate) fn add(&self, rule: Rule, by: &Author) -> Result<Option<io::Error>, NoRoom> {
        let changing = self.changing.lock();
        let now_ms = (self.clock)();
        let before = self.set.load();
        if before.configured.iter().any(|known| known.name() == rule.name()) {
            return Err(NoRoom::Configured);
        }
        let rule = Arc::new(rule);
        let stays = |known: &&Arc<Rule>| known.name() != rule.name() && !known.is_expired(now_ms);
        let rest = before.at_run_time.iter().filter(stays).cloned();
        let at_run_time: Vec<_> = std::iter::once(Arc::clone(&rule)).chain(rest).collect();
        if at_run_time.len() > RULES_MAX {
            return Err(NoRoom::Full);
        }
        self.replace(RuleSet { at_run_time, configured: before.configured.clone() });
        audit::rule("add", &rule, by);
        Ok(self.write(changing.as_deref()))
    }

    /// Takes away a rule that was set over the admin API, and the error of the file. Blocks.
    pub(crate) fn remove(&self, name: &str, by: &Author) -> Option<(Arc<Rule>, Option<io::Error>)> {
        let changing = self.changing.lock();
        let before = self.set.load();
        let mut at_run_time = before.at_run_time.clone();
        let removed = at_run_time.remove(at_run_time.iter().position(|rule| rule.name() == name)?);
        self.replace(RuleSet { at_run_time, configured: before.configured.clone() });
        audit::rule("remove", &removed, by);
        Some((removed, self.write(changing.as_deref())))
    }

    fn replace(&self, after: RuleSet) {
        let before = self.set.load();
        let stays = |name: &str, action: &str| {
            after.iter().any(|rule| rule.name() == name && rule.action.as_str() == action)
        };
        for rule in before.iter().filter(|rule| !stays(rule.name(), rule.action.as_str())) {
            self.metrics.forget_rule(rule.name(), rule.action.as_str());
        }
        after.iter().for_each(|rule| self.metrics.rule_set(rule.name(), rule.action.as_str()));
        self.set.store(Arc::new(after));
    }

    fn write(&self, file: Option<&Path>) -> Option<io::Error> {
        let file = file?;
        let set = self.set.load();
        let specs: Vec<&RuleSpec> = set.at_run_time.iter().map(|rule| &rule.spec).collect();
        let written = serde_json::to_vec_pretty(&specs).map_err(io::Error::other);
        let written = written.and_then(|text| files::replace(file, &text, true));
        let error = written.err()?;
        tracing::warn!(%error, file = %file.display(), "rules set over the admin API are not kept");
        Some(error)
    }
}

/// The rules of the file that have not expired. One that cannot be read is left out, and said.
fn read(path: &Path, now_ms: i64) -> io::Result<Vec<Arc<Rule>>> {
    let specs: Vec<RuleSpec> = serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)?;
    let rules = specs.into_iter().take(RULES_MAX).filter_map(|spec| match spec.read(None) {
        Ok(rule) => Some(Arc::new(rule)).filter(|rule| !rule.is_expired(now_ms)),
        Err((key, why)) => {
            tracing::warn!(rule = spec.name, key, why, "a rule of the data folder is left out");
            None
        }
    });
    Ok(rules.collect())
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
