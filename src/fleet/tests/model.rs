//! A store of leases without a server, on the runtime's clock: a whole fleet runs in a test that takes no time.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::super::{
    board::{BoardAnswer, BoardAsk, Cursor, Entry, PAGE_BYTES, PAGE_ENTRIES, Topic},
    lease::{Answer, SKEW_MS, TTL_MS},
    pool::{Pool, Terms},
    store::{Answers, Round, SEATS, StoreError},
};
use crate::base::share::Amount;

/// The work of a store.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) rounds: u64,
    pub(crate) scripts: u64,
    /// Bytes of the commands as the client sends them, and of the answers.
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// A topic of the board: its entries in the order of their places.
#[derive(Default)]
struct Entries {
    seq: u64,
    entries: VecDeque<(u64, Entry)>,
}

/// Its pools and its board; there are no tokens.
pub(crate) struct Model {
    began: Instant,
    /// How long a round trip takes.
    latency: Duration,
    pools: Mutex<HashMap<String, Pool>>,
    /// How long the leases of each pool count after their end, as it was asked last.
    holds: Mutex<HashMap<String, u64>>,
    board: Mutex<HashMap<Topic, Entries>>,
    /// Proxies whose messages do not arrive.
    isolated: Mutex<HashSet<u64>>,
    traffic: Mutex<Traffic>,
}

impl Model {
    pub(crate) fn new(latency: Duration) -> Self {
        Self {
            began: Instant::now(),
            latency,
            pools: Mutex::default(),
            board: Mutex::default(),
            isolated: Mutex::default(),
            traffic: Mutex::default(),
            holds: Mutex::default(),
        }
    }

    /// How long the leases of a pool count after their end, milliseconds.
    pub(crate) fn hold_ms(&self, pool: &str) -> Option<u64> {
        self.holds.lock().get(pool).copied()
    }

    /// From now on this proxy does not reach it.
    pub(crate) fn isolate(&self, id: u64) {
        self.isolated.lock().insert(id);
    }

    /// The part of a pool that it counts as this proxy's.
    pub(crate) fn leased(&self, pool: &str, id: u64) -> Amount {
        self.pools.lock().get(pool).map_or(Amount::NONE, |pool| pool.leased(id))
    }

    /// Its work so far.
    pub(crate) fn traffic(&self) -> Traffic {
        *self.traffic.lock()
    }

    /// `received` is the length of the commands.
    pub(in super::super) async fn round(
        &self,
        id: &str,
        round: &Round,
        received: usize,
        limit: Duration,
    ) -> Result<Answers, StoreError> {
        let number = id.rsplit('/').next().unwrap_or(id);
        let number = u64::from_str_radix(number, 16).expect("a number");
        let there_and_back = async {
            sleep(self.latency / 2).await;
            if self.isolated.lock().contains(&number) {
                std::future::pending::<()>().await;
            }
            let answers = self.answer(number, round);
            self.count(id, round, &answers, received);
            sleep(self.latency / 2).await;
            answers
        };
        timeout(limit, there_and_back).await.map_err(|_| StoreError::Slow(limit))
    }

    fn count(&self, id: &str, round: &Round, answers: &Answers, received: usize) {
        // Each seat is a name and some 60 digits.
        let seat = bulk(id.len()) + bulk(60);
        let seats = answers.leases.first().and_then(Option::as_ref).map_or(0, |answer| answer.members);
        let mut traffic = self.traffic.lock();
        traffic.rounds += 1;
        traffic.scripts += (round.leases.len() + round.boards.len()) as u64;
        traffic.received += received as u64;
        traffic.sent += length(answers) + if round.boards.is_empty() { 0 } else { seats * seat };
    }

    fn answer(&self, id: u64, round: &Round) -> Answers {
        let now = 1_000_000 + self.began.elapsed().as_millis() as u64;
        let mut pools = self.pools.lock();
        let leases = round.leases.iter().map(|ask| {
            self.holds.lock().insert(ask.pool.clone(), ask.hold_ms);
            let terms = Terms { pool: ask.size, ttl: TTL_MS, skew: SKEW_MS, hold: ask.hold_ms };
            if !pools.contains_key(&ask.pool) {
                let pool = pools.get(SEATS).map_or_else(Pool::default, Pool::beside);
                pools.insert(ask.pool.clone(), pool);
            }
            pools.get_mut(&ask.pool)?.renew((now, 1), &terms, id, &ask.renewal)
        });
        let leases = leases.collect();
        let mut board = self.board.lock();
        let boards = round.boards.iter().map(|ask| board.entry(ask.topic).or_default().exchange(ask));
        Answers { leases, boards: boards.collect(), ..Answers::default() }
    }
}

impl Entries {
    /// As `board.lua` does, for entries that live for longer than the test, and of which none has the name of another.
    fn exchange(&mut self, ask: &BoardAsk) -> BoardAnswer {
        for post in &ask.posts {
            self.seq += 1;
            let entry = Entry {
                name: post.name.clone(),
                version: self.seq,
                left_ms: post.life_ms,
                value: post.value.clone(),
            };
            self.entries.push_back((self.seq, entry));
        }
        let excess = self.entries.len().saturating_sub(ask.topic.entries_max());
        self.entries.drain(..excess);
        let first = self.entries.partition_point(|(seq, _)| *seq <= ask.cursor.seq);
        let (mut bytes, mut upto, mut entries) = (0, ask.cursor.seq, Vec::new());
        for (seq, entry) in self.entries.range(first..).take(PAGE_ENTRIES) {
            bytes += entry.name.len() + entry.value.len();
            if bytes > PAGE_BYTES {
                break;
            }
            upto = *seq;
            entries.push(entry.clone());
        }
        let versions = vec![1; ask.posts.len()];
        let cursor = Cursor { incarnation: 0, seq: upto };
        BoardAnswer { cursor, has_more: upto < self.seq, versions, entries, unreadable: 0 }
    }
}

/// Bytes of an array's head, a number and a text in the store's protocol.
fn number(value: u64) -> u64 {
    u64::from(value.checked_ilog10().unwrap_or(0)) + 4
}

const fn bulk(bytes: usize) -> u64 {
    bytes as u64 + 8
}

const ARRAY: u64 = 5;

/// Bytes of these answers.
fn length(answers: &Answers) -> u64 {
    let lease = |answer: &Answer| {
        let Answer { grant, epoch, ttl_ms, members, others, window, .. } = *answer;
        let amounts = [grant.bytes, grant.queries, others.bytes, others.queries];
        let rest = [epoch, ttl_ms, 0, members, window.cuts, window.cause, window.bytes, 0];
        amounts.into_iter().chain(rest).map(number).sum::<u64>()
    };
    let leases = answers.leases.iter().map(|answer| ARRAY + answer.as_ref().map_or(0, lease));
    let entry = |Entry { name, version, left_ms, value }: &Entry| {
        ARRAY + bulk(name.len()) + number(*version) + number(*left_ms) + bulk(value.len())
    };
    let board = |board: &BoardAnswer| {
        let versions = board.versions.iter().map(|version| number(*version)).sum::<u64>();
        let rows = board.entries.iter().map(entry).sum::<u64>();
        3 * ARRAY + 3 * number(board.cursor.seq) + versions + rows
    };
    leases.sum::<u64>() + answers.boards.iter().map(board).sum::<u64>()
}
