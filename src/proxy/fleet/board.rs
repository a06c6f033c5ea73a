//! The news of a fleet: kills, rules, pressure and observed costs, exchanged over the board of its store once a second, in
//! the round trip of the leases. Each topic is applied by the part of the proxy that it is about.

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::{
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
    time::Instant,
};

use super::{
    counts::SharedCounts,
    outbox::{ORDER_BYTES_MAX, Order, Outbox},
    pressure::{FRESH, Reading, Readings},
};
use crate::{
    base::distress::Signal,
    cost::History,
    fleet::{BoardAnswer, BoardAsk, Cursor, Entry, Post, Topic, VALUE_BYTES_MAX, page},
    proxy::{
        log::{ActiveQueries, Author, audit},
        rules::QueryRules,
    },
    rules::Versioned,
    telemetry::metrics::Metrics,
};

/// Time between two exchanges.
const EVERY: Duration = Duration::from_secs(1);
/// How long the store keeps a kill: a proxy that was cut off for less takes it up.
const KILL_LIFE: Duration = Duration::from_secs(30);
/// The same for an observed cost.
const HISTORY_LIFE: Duration = Duration::from_secs(600);
/// Observed costs, and counts, that a proxy offers in one exchange.
const OFFERS_MAX: usize = 32;
/// Longest time for which another proxy's count is kept.
const COUNT_LIFE_MAX: Duration = Duration::from_secs(3_600);
/// How long an entry that could not be read is a finding.
const UNREADABLE_FOR: Duration = Duration::from_secs(600);

/// The parts of a proxy that news are about.
#[derive(Clone)]
pub(in crate::proxy) struct Subjects {
    pub(in crate::proxy) active: Arc<ActiveQueries>,
    pub(in crate::proxy) rules: Arc<QueryRules>,
    pub(in crate::proxy) history: Arc<History>,
    pub(in crate::proxy) counts: Arc<SharedCounts>,
    pub(in crate::proxy) metrics: Arc<Metrics>,
    /// Milliseconds since the epoch.
    pub(in crate::proxy) clock: fn() -> i64,
}

/// The side of the board for requests, supervisors and the admin API.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) outbox: Outbox,
    readings: Mutex<Readings>,
    unreadable: Mutex<Option<(&'static str, Instant)>>,
}

impl News {
    /// Takes the pressure that this proxy read at a backend; gives the highest that any proxy did.
    pub(super) fn worst_pressure(&self, backend: &str, own: Option<(Signal, f64)>) -> Option<(Signal, f64)> {
        self.readings.lock().worst(backend, own, Instant::now())
    }

    /// The topic of an entry, or the kind of shares, that could not be read of late.
    pub(super) fn unreadable(&self) -> Option<&'static str> {
        let (topic, at) = (*self.unreadable.lock())?;
        (at.elapsed() < UNREADABLE_FOR).then_some(topic)
    }

    fn count(&self, metrics: &Metrics, topic: Topic, taken: usize, unreadable: usize) {
        metrics.fleet_entries(topic.as_str(), "taken", taken);
        self.count_unreadable(metrics, topic.as_str(), unreadable);
    }

    /// Counts what was found at the store in place of these entries, which becomes a finding.
    pub(super) fn count_unreadable(&self, metrics: &Metrics, topic: &'static str, entries: usize) {
        if entries > 0 {
            metrics.fleet_entries(topic, "unreadable", entries);
            tracing::warn!(topic, entries, "entries at the fleet's store cannot be read");
            *self.unreadable.lock() = Some((topic, Instant::now()));
        }
    }
}

/// An exchange under way.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) asks: Vec<BoardAsk>,
    /// Those who wait for the confirmation.
    waiting: Vec<oneshot::Sender<Result<(), String>>>,
    /// The changes of rules among the entries to be written, in their order.
    changes: Vec<Versioned>,
}

/// Keeps a proxy and the board in step.
pub(super) struct Board {
    subjects: Subjects,
    news: Arc<News>,
    /// The end of the names of this process' entries.
    author: String,
    cursors: HashMap<Topic, Cursor>,
    next: Instant,
    posted: u64,
    /// Kills that were applied, and until when the store may show them again.
    applied: HashMap<String, Instant>,
    /// The store may have lost changes of rules: all, and the rest of them.
    offers_all: bool,
    offers: Vec<Versioned>,
    /// Rules that are being read and written to the disk.
    applying: Option<JoinHandle<()>>,
}

impl Board {
    pub(super) fn new(subjects: Subjects, news: Arc<News>, author: String) -> Self {
        Self {
            subjects,
            news,
            author,
            cursors: HashMap::new(),
            next: Instant::now(),
            posted: 0,
            applied: HashMap::new(),
            offers_all: false,
            offers: Vec::new(),
            applying: None,
        }
    }

    /// The questions of this round: none while no second has passed and nobody waits.
    pub(super) fn ask(&mut self, now: Instant) -> Exchange {
        let mut exchange = Exchange::default();
        if now < self.next && self.news.outbox.is_empty() {
            return exchange;
        }
        self.next = now + EVERY;
        let changes = self.changes();
        for topic in Topic::ALL {
            let mut posts = match topic {
                Topic::Kills => self.kills(&mut exchange, changes.is_none()),
                Topic::Rules => match &changes {
                    Some(changes) => self.rules(&mut exchange, changes.clone()),
                    None => continue,
                },
                Topic::Pressure => self.pressure(now),
                Topic::History => self.observed(),
                Topic::Counts => self.counted(),
            };
            let (posts, too_large) = page(&mut posts);
            self.subjects.metrics.fleet_entries(topic.as_str(), "posted", posts.len());
            self.subjects.metrics.fleet_entries(topic.as_str(), "too_large", too_large);
            let cursor = self.cursors.get(&topic).copied().unwrap_or_default();
            exchange.asks.push(BoardAsk { topic, cursor, posts });
        }
        exchange
    }

    fn own(&self, name: &str, life: Duration, value: Vec<u8>) -> Post {
        let name = format!("{name}/{}", self.author);
        Post { name, version: 0, life_ms: life.as_millis() as u64, value }
    }

    /// Orders; `only_orders` while nobody can say whether the rules are passed on.
    fn kills(&mut self, exchange: &mut Exchange, only_orders: bool) -> Vec<Post> {
        let mut posts = Vec::new();
        for waiting in self.news.outbox.take(only_orders) {
            if let Some(order) = waiting.order {
                self.posted += 1;
                posts.push(self.own(&self.posted.to_string(), KILL_LIFE, order));
            }
            exchange.waiting.push(waiting.confirmed);
        }
        posts
    }

    /// Changes of rules that the store has not counted, and those that it may have lost; `None` while the rules are being
    /// written to the disk.
    fn changes(&mut self) -> Option<Vec<Versioned>> {
        if self.applying.as_ref().is_some_and(|task| !task.is_finished()) {
            return None;
        }
        let mut changes = self.subjects.rules.changes(!self.offers_all)?;
        if !mem::take(&mut self.offers_all) {
            changes.append(&mut self.offers);
        }
        self.offers.clear();
        Some(changes)
    }

    fn rules(&mut self, exchange: &mut Exchange, mut changes: Vec<Versioned>) -> Vec<Post> {
        let now_ms = (self.subjects.clock)();
        let mut posts = Vec::new();
        changes.retain(|of| {
            let post = post(of, now_ms);
            let fits = post.value.len() <= VALUE_BYTES_MAX;
            posts.extend(Some(post).filter(|_| fits));
            fits
        });
        let (posts, _) = page(&mut posts);
        // The rest is for the next exchange: uncounted ones are asked for anew.
        let rest = changes.split_off(posts.len().min(changes.len()));
        self.offers = rest.into_iter().filter(|of| of.version > 0).collect();
        exchange.changes = changes;
        posts
    }

    fn pressure(&mut self, now: Instant) -> Vec<Post> {
        let own: Vec<_> = self.news.readings.lock().own(now).collect();
        let post = |reading: &Reading| {
            let value = serde_json::to_vec(reading).ok()?;
            Some(self.own(reading.backend(), FRESH, value))
        };
        own.iter().filter_map(post).collect()
    }

    fn observed(&mut self) -> Vec<Post> {
        let offers = self.subjects.history.take_offers(OFFERS_MAX, (self.subjects.clock)());
        offers.into_iter().map(|(name, value)| self.own(&name, HISTORY_LIFE, value)).collect()
    }

    fn counted(&self) -> Vec<Post> {
        let offers = self.subjects.counts.take_offers(OFFERS_MAX);
        offers.into_iter().map(|(name, life, value)| self.own(&name, life, value)).collect()
    }

    /// Takes the answers to an exchange, which began at `sent`. Says whether there are more news to be read at once.
    pub(super) fn take(
        &mut self,
        exchange: Exchange,
        asks: &[BoardAsk],
        answers: Result<&[BoardAnswer], String>,
        sent: Instant,
    ) -> bool {
        let said = answers.as_ref().map(|_| ()).map_err(Clone::clone);
        for waiting in exchange.waiting {
            // A caller that waits no more has been answered.
            let _ = waiting.send(said.clone());
        }
        let Ok(answers) = answers else {
            // Nobody knows which entries it took.
            self.cursors.remove(&Topic::Rules);
            return false;
        };
        let mut has_more = false;
        for (ask, answer) in asks.iter().zip(answers) {
            has_more |= answer.has_more;
            let cursor = self.cursors.insert(ask.topic, answer.cursor).unwrap_or_default();
            let is_new = cursor.incarnation != answer.cursor.incarnation;
            match ask.topic {
                Topic::Rules => self.take_rules(&exchange.changes, answer, is_new),
                topic => self.take_each(topic, answer, sent),
            }
        }
        has_more |= self.offers_all || !self.offers.is_empty();
        if has_more {
            self.next = Instant::now();
        }
        has_more
    }

    /// Topics of which each entry stands for itself.
    fn take_each(&mut self, topic: Topic, answer: &BoardAnswer, sent: Instant) {
        let (mut taken, mut unreadable) = (0, answer.unreadable);
        for entry in &answer.entries {
            let Some((name, author)) = entry.name.rsplit_once('/') else {
                unreadable += 1;
                continue;
            };
            if author == self.author {
                continue;
            }
            let is_taken = match topic {
                Topic::Kills => self.kill(entry),
                Topic::Pressure => self.hear(name, author, entry, sent),
                Topic::History => self.learn(entry),
                Topic::Counts => {
                    let until = sent + Duration::from_millis(entry.left_ms).min(COUNT_LIFE_MAX);
                    self.subjects.counts.take(name, &entry.value, until)
                }
                Topic::Rules => false,
            };
            if is_taken { taken += 1 } else { unreadable += 1 }
        }
        self.news.count(&self.subjects.metrics, topic, taken, unreadable);
    }

    /// Stops the queries that were there when the order was given; each order once.
    fn kill(&mut self, entry: &Entry) -> bool {
        let now = Instant::now();
        self.applied.retain(|_, until| now < *until);
        let Some(Order { which, kill }) = read::<Order>(&entry.value, ORDER_BYTES_MAX) else { return false };
        if which.is_empty() {
            return false;
        }
        if self.applied.insert(entry.name.clone(), now + KILL_LIFE).is_none() {
            let age = age(entry, KILL_LIFE);
            let (by, kill) = (Author::elsewhere(&kill.by), Arc::new(kill));
            let was_there = |began: Instant| began + age <= now;
            let killed =
                self.subjects.active.kill(|query| which.has(query) && was_there(query.facts.began), &kill);
            audit::killed(&by, &which, &kill.reason, &killed);
        }
        true
    }

    fn hear(&self, backend: &str, author: &str, entry: &Entry, sent: Instant) -> bool {
        let Some(reading) = read::<Reading>(&entry.value, ORDER_BYTES_MAX) else { return false };
        let until = sent + FRESH.min(Duration::from_millis(entry.left_ms));
        reading.backend() == backend && self.news.readings.lock().hear(author, reading, until)
    }

    fn learn(&self, entry: &Entry) -> bool {
        let age_ms = age(entry, HISTORY_LIFE).as_millis() as u64;
        self.subjects.history.take(&entry.value, age_ms, (self.subjects.clock)())
    }

    fn take_rules(&mut self, posted: &[Versioned], answer: &BoardAnswer, is_new: bool) {
        let (rules, now_ms) = (Arc::clone(&self.subjects.rules), (self.subjects.clock)());
        self.offers_all |= is_new;
        let counted =
            posted.iter().zip(&answer.versions).filter(|(of, version)| of.version == 0 && **version > 0);
        let counted: Vec<_> =
            counted.map(|(of, version)| Versioned { version: *version, ..of.clone() }).collect();
        let read = answer.entries.len();
        let taken: Vec<_> = answer.entries.iter().filter_map(|entry| change(entry, now_ms)).collect();
        let unreadable = answer.unreadable + read - taken.len();
        if counted.is_empty() && taken.is_empty() {
            return self.news.count(&self.subjects.metrics, Topic::Rules, 0, unreadable);
        }
        let (news, metrics, all) = (Arc::clone(&self.news), Arc::clone(&self.subjects.metrics), taken.len());
        // Expressions are compiled and a file is written.
        self.applying = Some(spawn_blocking(move || {
            let left_out = rules.exchange(&counted, taken);
            news.count(&metrics, Topic::Rules, all - left_out, unreadable + left_out);
        }));
    }
}

fn read<T: DeserializeOwned>(value: &[u8], bytes_max: usize) -> Option<T> {
    serde_json::from_slice(Some(value).filter(|value| value.len() <= bytes_max)?).ok()
}

/// How long ago an entry of this life was written.
fn age(entry: &Entry, life: Duration) -> Duration {
    life.saturating_sub(Duration::from_millis(entry.left_ms))
}

fn post(of: &Versioned, now_ms: i64) -> Post {
    Post {
        name: of.change.name.clone(),
        version: of.version,
        life_ms: of.until_ms.saturating_sub(now_ms).max(1) as u64,
        // There are only numbers and texts.
        value: serde_json::to_vec(&of.change).unwrap_or_default(),
    }
}

fn change(entry: &Entry, now_ms: i64) -> Option<Versioned> {
    let change: crate::rules::Change = serde_json::from_slice(&entry.value).ok()?;
    let until_ms = now_ms.saturating_add_unsigned(entry.left_ms);
    (change.name == entry.name).then_some(Versioned { version: entry.version, until_ms, change })
}
