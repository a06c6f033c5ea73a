//! The rules that are set over the admin API, as changes: the last one of each name counts. The proxies of a fleet exchange
//! them, and the store counts their versions, so that all have the same rules in the same order.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{RULES_MAX, Rule, RuleSpec};

/// Names that are kept, those of rules that were taken away among them.
const NAMES_MAX: usize = 1_000;

/// A rule was set or taken away.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The name of the rule.
    pub name: String,
    /// The rule; `None` where it was taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleSpec>,
    /// The operator.
    #[serde(default)]
    pub by: String,
}

/// A change, and its place among all.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Versioned {
    /// Counted by the store of the fleet; 0 until it has counted it.
    #[serde(default)]
    pub version: u64,
    /// When the last rule of this name ends, milliseconds since the epoch: until then an older one might come back.
    pub until_ms: i64,
    /// The change.
    pub change: Change,
}

/// A change, with the rule as it is obeyed.
#[derive(Clone, Debug)]
struct Known {
    of: Versioned,
    /// Its place among the changes of this proxy.
    order: u64,
    rule: Option<Arc<Rule>>,
}

impl Known {
    /// Changes that the store has not counted are the newest: they will get its highest versions.
    const fn age(&self) -> (u64, u64) {
        if self.of.version == 0 { (u64::MAX, self.order) } else { (self.of.version, 0) }
    }
}

/// The last change of each name.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    known: BTreeMap<String, Known>,
    made: u64,
}

impl Changes {
    /// The rules that hold, the newest first: [`RULES_MAX`] at most.
    pub fn rules(&self, now_ms: i64) -> Vec<Arc<Rule>> {
        let holds = |known: &&Known| known.rule.as_ref().is_some_and(|rule| !rule.is_expired(now_ms));
        let mut known: Vec<_> = self.known.values().filter(holds).collect();
        known.sort_by_key(|known| std::cmp::Reverse(known.age()));
        known.into_iter().take(RULES_MAX).filter_map(|known| known.rule.clone()).collect()
    }

    /// A rule is set.
    pub fn set(&mut self, rule: &Arc<Rule>, by: &str, now_ms: i64) {
        self.change(rule.name(), Some(rule), by, now_ms);
    }

    /// The rule of this name is taken away.
    pub fn remove(&mut self, name: &str, by: &str, now_ms: i64) -> Option<Arc<Rule>> {
        let removed = self.known.get(name)?.rule.clone()?;
        self.change(name, None, by, now_ms);
        Some(removed)
    }

    fn change(&mut self, name: &str, rule: Option<&Arc<Rule>>, by: &str, now_ms: i64) {
        let until_ms = rule.and_then(|rule| rule.expires_ms).unwrap_or(now_ms);
        let spec = rule.map(|rule| rule.spec.clone());
        let change = Change { name: name.to_owned(), rule: spec, by: by.to_owned() };
        self.insert(Versioned { version: 0, until_ms, change }, rule.cloned());
        self.forget(now_ms);
    }

    fn insert(&mut self, mut of: Versioned, rule: Option<Arc<Rule>>) {
        if let Some(before) = self.known.get(&of.change.name) {
            of.until_ms = of.until_ms.max(before.of.until_ms);
        }
        self.made += 1;
        self.known.insert(of.change.name.clone(), Known { of, order: self.made, rule });
    }

    /// Forgets names of which no rule can hold any more, and the oldest removals where there are too many.
    fn forget(&mut self, now_ms: i64) {
        self.known.retain(|_, known| known.of.until_ms > now_ms);
        while self.known.len() > NAMES_MAX {
            let oldest = self.known.iter().min_by_key(|(_, known)| (known.rule.is_some(), known.age()));
            let Some(name) = oldest.map(|(name, _)| name.clone()) else { return };
            self.known.remove(&name);
        }
    }

    /// The last changes, the newest first; or only those that the store has not counted.
    pub fn all(&self, is_uncounted: bool) -> Vec<Versioned> {
        let mut known: Vec<_> =
            self.known.values().filter(|known| !is_uncounted || known.of.version == 0).collect();
        known.sort_by_key(|known| std::cmp::Reverse(known.age()));
        known.into_iter().map(|known| known.of.clone()).collect()
    }

    /// The store counted a change of this proxy, unless another followed.
    pub fn counted(&mut self, change: &Change, version: u64) {
        if let Some(known) = self.known.get_mut(&change.name)
            && known.of.version == 0
            && known.of.change == *change
        {
            known.of.version = version;
        }
    }

    /// Takes a change of another proxy, or of the data folder. Gives the rule that it sets or takes away, and `None`
    /// where it changes nothing here.
    ///
    /// # Errors
    /// The rule cannot be read.
    pub fn take(&mut self, mut of: Versioned, now_ms: i64) -> Result<Option<Arc<Rule>>, String> {
        let rule = of.change.rule.as_ref().map(|spec| spec.read(None)).transpose();
        let rule = rule.map_err(|(key, why)| format!("{key}: {why}"))?.map(Arc::new);
        if let Some(rule) = &rule {
            let end = rule.expires_ms.ok_or("it has no end")?;
            if rule.name() != of.change.name {
                return Err("it has another name".to_owned());
            }
            of.until_ms = of.until_ms.max(end);
        }
        let mut seen = rule.clone();
        if let Some(known) = self.known.get_mut(&of.change.name) {
            known.of.until_ms = known.of.until_ms.max(of.until_ms);
            // A change of this proxy that is not counted yet comes after all that are.
            let place = |of: &Versioned| (of.version, text(&of.change));
            if known.of.version == 0 || place(&of) <= place(&known.of) {
                return Ok(None);
            }
            seen = seen.or_else(|| known.rule.clone()).filter(|_| known.of.change != of.change);
        }
        self.insert(of, rule);
        self.forget(now_ms);
        Ok(seen)
    }
}

/// Decides between changes of one version, which only a store can count that lost its memory while its clock went back.
fn text(change: &Change) -> String {
    // There are only numbers and texts.
    serde_json::to_string(change).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn rule(name: &str, expires: &str) -> Arc<Rule> {
        let spec =
            serde_json::json!({"name": name, "match": {"metric": "m"}, "reason": "x", "expires": expires});
        Arc::new(serde_json::from_value::<RuleSpec>(spec).unwrap().read(Some(NOW)).unwrap())
    }

    fn names(changes: &Changes) -> Vec<String> {
        changes.rules(NOW).iter().map(|rule| rule.name().to_owned()).collect()
    }

    /// A store as `fleet/board.lua` is one: the highest version of each name, in the order of arrival.
    #[derive(Default)]
    struct Board {
        last: u64,
        log: Vec<Versioned>,
    }

    impl Board {
        fn post(&mut self, of: Versioned) -> u64 {
            let known = self.log.iter().position(|known| known.change.name == of.change.name);
            let version = if of.version == 0 { self.last + 1 } else { of.version };
            let Some(at) = known else {
                self.last = self.last.max(version);
                self.log.push(Versioned { version, ..of });
                return version;
            };
            let mut old = self.log.remove(at);
            let until_ms = old.until_ms.max(of.until_ms);
            let is_newer = (version, text(&of.change)) > (old.version, text(&old.change));
            if is_newer {
                self.last = self.last.max(version);
                old = Versioned { version, ..of };
            }
            self.log.push(Versioned { until_ms, ..old });
            if is_newer { version } else { 0 }
        }
    }

    fn exchange(proxy: &mut Changes, board: &mut Board, offers_all: bool) {
        for of in proxy.all(!offers_all) {
            let (is_new, change) = (of.version == 0, of.change.clone());
            let version = board.post(of);
            if is_new {
                proxy.counted(&change, version);
            }
        }
        for of in board.log.clone() {
            proxy.take(of, NOW).unwrap();
        }
    }

    #[test]
    fn the_last_change_counts_everywhere_whatever_is_lost_and_who_is_away() {
        for seed in 0..300 {
            let (mut rng, mut board) = (Rng::with_seed(seed), Board::default());
            let mut proxies = vec![Changes::default(); 3];
            let mut last = BTreeMap::new();
            for _ in 0..60 {
                let at = rng.usize(0..3);
                let name = ["a", "b", "c"][rng.usize(0..3)];
                match rng.u8(0..5) {
                    0 => proxies[at].set(&rule(name, ["1h", "2h"][rng.usize(0..2)]), "ann", NOW),
                    1 => drop(proxies[at].remove(name, "ann", NOW)),
                    // It comes back without its memory; its clock has gone on.
                    2 => board = Board { last: board.last + 100, log: Vec::new() },
                    _ => {}
                }
                // A proxy that is away does not exchange; one that is there offers all to a store without memory.
                let who = rng.usize(0..3);
                exchange(&mut proxies[who], &mut board, true);
                for of in &board.log {
                    let entry = last.entry(of.change.name.clone()).or_insert_with(|| of.clone());
                    if of.version > entry.version {
                        *entry = of.clone();
                    }
                }
            }
            for _ in 0..2 {
                for proxy in &mut proxies {
                    exchange(proxy, &mut board, true);
                }
            }
            let all: Vec<_> = proxies.iter().map(|proxy| proxy.all(false)).collect();
            assert!(all[0] == all[1] && all[1] == all[2], "seed {seed}: {all:#?}");
            assert_eq!(names(&proxies[0]), names(&proxies[2]), "seed {seed}");
            for of in &all[0] {
                let counted = last.get(&of.change.name).filter(|known| known.version >= of.version);
                assert!(
                    counted.is_none_or(|known| known.change == of.change),
                    "seed {seed}: {counted:?} before {of:?}"
                );
            }
        }
    }

    #[test]
    fn a_removed_rule_does_not_come_back_as_long_as_any_rule_of_its_name_would_hold() {
        let (mut board, mut here, mut away) = (Board::default(), Changes::default(), Changes::default());
        here.set(&rule("a", "9h"), "ann", NOW);
        exchange(&mut here, &mut board, false);
        exchange(&mut away, &mut board, false);
        here.set(&rule("a", "1h"), "ann", NOW);
        assert!(here.remove("a", "ann", NOW).is_some());
        board = Board { last: board.last + 100, log: Vec::new() };
        exchange(&mut away, &mut board, true);
        exchange(&mut here, &mut board, true);
        exchange(&mut away, &mut board, true);
        assert!(names(&here).is_empty() && names(&away).is_empty());
        assert!(here.all(false).iter().all(|of| of.change.rule.is_none()));
        here.forget(NOW + 8 * 3_600_000);
        assert_eq!(here.all(false).len(), 1);
        here.forget(NOW + 10 * 3_600_000);
        assert!(here.all(false).is_empty(), "no rule of the name could hold");
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_there_is_a_bound() {
        let mut changes = Changes::default();
        let of = |name: &str, rule, version| Versioned {
            version,
            until_ms: i64::MAX,
            change: Change { name: name.to_owned(), rule, by: String::new() },
        };
        let spec = rule("a", "1h").spec.clone();
        for (name, spec) in
            [("a", RuleSpec::default()), ("b", spec.clone()), ("a", RuleSpec { expires: None, ..spec })]
        {
            assert!(changes.take(of(name, Some(spec), 1), NOW).is_err());
        }
        for n in 0..NAMES_MAX as u64 + 100 {
            changes.take(of(&n.to_string(), None, n + 1), NOW).unwrap();
        }
        assert_eq!(changes.all(false).len(), NAMES_MAX);
        for n in 0..300 {
            changes.set(&rule(&format!("r{n}"), "1h"), "", NOW);
        }
        assert_eq!((names(&changes).len(), &*names(&changes)[0]), (RULES_MAX, "r299"));
    }
}
