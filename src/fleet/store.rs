//! Carries renewals to the store and answers back. A connection knows which run of the store's process it leads to, so that a
//! restart, a restored dump and a replica that took over are all seen as a lost memory.

use std::{collections::BTreeMap, fmt, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Pipeline, RedisError, Script, Value, aio::MultiplexedConnection,
    from_redis_value,
};
use tokio::time::timeout;

use super::{
    board::{BoardAnswer, BoardAsk, Row},
    lease::{Answer, Renewal, SKEW_MS, TTL_MS},
    tokens::{Draw, Drawn},
};
use crate::base::share::{Amount, SharedWindow};

/// The script that the store runs for each renewal.
pub(super) const SCRIPT: &str = concat!(include_str!("prelude.lua"), include_str!("lease.lua"));
/// The script that it runs for each request for tokens.
pub(super) const TOKENS: &str = concat!(include_str!("prelude.lua"), include_str!("tokens.lua"));
/// The script that it runs for each topic of the board.
const BOARD: &str = concat!(include_str!("prelude.lua"), include_str!("board.lua"));
/// The pool of seats, of which every proxy holds one: it counts them, and knows whether the store lost its memory.
pub const SEATS: &str = "proxies";
/// The scripts say so where a key held something else than they write.
const UNREADABLE: u64 = 2;
/// A connection is there after this many round trips at most: TCP, TLS, the password, and the run of the store.
const CONNECT_TRIPS: u32 = 5;
/// Lua counts exactly up to 2^53.
const NUMBER_MAX: u64 = 1 << 53;

/// A renewal of one pool's lease.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The pool's name within the fleet.
    pub pool: String,
    /// Its size.
    pub size: Amount,
    /// The longest time that a query holds a part of it, in milliseconds.
    pub hold_ms: u64,
    /// The request.
    pub renewal: Renewal,
}

/// A request for tokens of one rate.
#[derive(Clone, Debug)]
pub struct AskTokens {
    /// The name of the rate within the fleet.
    pub bucket: String,
    /// It fills by this much,
    pub count: u64,
    /// in this many milliseconds.
    pub per_ms: u64,
    /// The request.
    pub draw: Draw,
}

/// The requests of one round trip.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// Renewals; that of the seat comes first.
    pub leases: Vec<Ask>,
    /// Requests for tokens.
    pub tokens: Vec<AskTokens>,
    /// Writes to the board, and reads of its news.
    pub boards: Vec<BoardAsk>,
}

/// The answers in the order of the requests; `None` for one that came late.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// To renewals.
    pub leases: Vec<Option<Answer>>,
    /// To requests for tokens.
    pub tokens: Vec<Option<Drawn>>,
    /// Of the board.
    pub boards: Vec<BoardAnswer>,
    /// The proxies that have a seat, by name, where the board was asked.
    pub members: Option<Vec<String>>,
}

/// Why the store did not answer.
#[derive(Debug)]
pub enum StoreError {
    /// Not within this time.
    Slow(Duration),
    /// It cannot be reached, or refused.
    Failed(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow(limit) => write!(f, "no answer within {} ms", limit.as_millis()),
            Self::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<RedisError> for StoreError {
    fn from(error: RedisError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A connection, and the run of the process at its other end.
struct Connection {
    inner: MultiplexedConnection,
    run: u64,
}

/// A Redis or Valkey primary that keeps the leases of a fleet.
pub struct Store {
    client: Client,
    script: Script,
    tokens: Script,
    board: Script,
    /// Before the name of every key.
    prefix: String,
    /// This process; no other ever has the same.
    id: String,
    connection: Option<Connection>,
    /// In place of a server.
    #[cfg(test)]
    model: Option<std::sync::Arc<super::tests::model::Model>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("Store").field("prefix", &self.prefix).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Store {
    /// The store at a URL such as `redis://:password@host:6379/0`; nothing is sent yet.
    ///
    /// # Errors
    /// The URL cannot be used.
    pub fn new(url: &str, fleet: &str, id: String) -> Result<Self, String> {
        let client = Client::open(url).map_err(|error| error.to_string())?;
        let [script, tokens, board] = [SCRIPT, TOKENS, BOARD].map(Script::new);
        Ok(Self {
            client,
            script,
            tokens,
            board,
            prefix: format!("weir:{fleet}:"),
            id,
            connection: None,
            #[cfg(test)]
            model: None,
        })
    }

    /// A model of a store, which several proxies share.
    #[cfg(test)]
    pub(crate) fn modelled(model: &std::sync::Arc<super::tests::model::Model>, id: String) -> Self {
        let model = Some(std::sync::Arc::clone(model));
        Self { model, ..Self::new("redis://127.0.0.1/", "model", id).expect("a URL") }
    }

    /// Makes one round trip, after those of a new connection where there is none. Any failure closes the connection, so that
    /// nothing that was sent is read by a later call.
    ///
    /// # Errors
    /// The store did not answer all of them within `limit`, or could not be reached.
    pub async fn round(&mut self, round: &Round, limit: Duration) -> Result<Answers, StoreError> {
        #[cfg(test)]
        if let Some(model) = &self.model {
            let sent = self.pipeline(round, 1).get_packed_pipeline().len();
            return model.round(&self.id, round, sent, limit).await;
        }
        // Taken out: a call that is dropped closes the connection as well.
        let slow = |_| StoreError::Slow(limit);
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let limit = limit.saturating_mul(CONNECT_TRIPS);
                timeout(limit, self.connect(limit)).await.map_err(slow)??
            }
        };
        let answers = timeout(limit, self.exchange(&mut connection, round)).await.map_err(slow)??;
        self.connection = Some(connection);
        Ok(answers)
    }

    /// Whether a connection is open; the next call of [`Self::round`] needs none then.
    pub const fn is_connected(&self) -> bool {
        #[cfg(test)]
        if self.model.is_some() {
            return true;
        }
        self.connection.is_some()
    }

    async fn connect(&self, limit: Duration) -> Result<Connection, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(limit))
            .set_response_timeout(Some(limit));
        let mut inner = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut first = redis::pipe();
        first.cmd("INFO").arg("server");
        for script in [&self.script, &self.tokens, &self.board] {
            first.load_script(script).ignore();
        }
        let (info,): (String,) = first.query_async(&mut inner).await?;
        let run = run_of(&info).ok_or_else(|| StoreError::Failed("it names no run_id".to_owned()))?;
        Ok(Connection { inner, run })
    }

    /// The commands of a round, at a store of this run.
    fn pipeline(&self, round: &Round, run: u64) -> Pipeline {
        let mut pipeline = redis::pipe();
        let mut call = |script: &Script, name: &str, numbers: &[u64]| {
            let [key, seats] = [name, SEATS].map(|name| format!("{}{name}", self.prefix));
            pipeline.cmd("EVALSHA").arg(script.get_hash()).arg(2).arg(key).arg(seats).arg(&self.id);
            for number in numbers {
                pipeline.arg((*number).min(NUMBER_MAX));
            }
        };
        for ask in &round.leases {
            call(&self.script, &ask.pool, &numbers(ask, run, TTL_MS, SKEW_MS));
        }
        for ask in &round.tokens {
            call(&self.tokens, &ask.bucket, &token_numbers(ask, TTL_MS, SKEW_MS));
        }
        for ask in &round.boards {
            self.add_board(&mut pipeline, ask, run);
        }
        if !round.boards.is_empty() {
            // The scripts need this command too: no other permission is asked for.
            pipeline.cmd("HGETALL").arg(format!("{}{SEATS}", self.prefix));
        }
        pipeline
    }

    async fn exchange(&self, connection: &mut Connection, round: &Round) -> Result<Answers, StoreError> {
        let pipeline = self.pipeline(round, connection.run);
        let mut answers: Vec<Value> = pipeline.query_async(&mut connection.inner).await?;
        let seats = answers.pop_if(|_| !round.boards.is_empty());
        let seats = seats.and_then(|seats| from_redis_value::<BTreeMap<String, String>>(seats).ok());
        let counted = round.leases.len() + round.tokens.len();
        let boards = answers.split_off(counted.min(answers.len()));
        let numbers = answers.into_iter().map(from_redis_value::<Vec<u64>>).collect::<Result<Vec<_>, _>>();
        let numbers = numbers.map_err(|error| StoreError::Failed(error.to_string()))?;
        let (leases, tokens) = numbers.split_at_checked(round.leases.len()).unwrap_or((&numbers, &[]));
        Ok(Answers {
            leases: leases.iter().map(|numbers| answer(numbers)).collect(),
            tokens: tokens.iter().map(|numbers| drawn(numbers)).collect(),
            // An entry that is no entry must not end the leases.
            boards: boards
                .into_iter()
                .zip(&round.boards)
                .map(|(reply, ask)| read_board(reply, ask))
                .collect(),
            // Beside them stands the state of the pool.
            members: seats.map(|seats| seats.into_keys().filter(|name| name != "~").collect()),
        })
    }

    fn add_board(&self, pipeline: &mut Pipeline, ask: &BoardAsk, run: u64) {
        let key = format!("{}board:{}", self.prefix, ask.topic.as_str());
        let order = format!("{key}:order");
        pipeline.cmd("EVALSHA").arg(self.board.get_hash()).arg(2).arg(key).arg(order);
        for number in ask.numbers(run) {
            pipeline.arg(number.min(NUMBER_MAX));
        }
        for post in &ask.posts {
            pipeline.arg(&post.name).arg(post.version).arg(post.life_ms.min(NUMBER_MAX)).arg(&post.value[..]);
        }
    }
}

fn read_board(reply: Value, ask: &BoardAsk) -> BoardAnswer {
    type Reply = (u64, u64, u64, Vec<u64>, Vec<Value>);
    let Ok((incarnation, upto, seq, versions, rows)) = from_redis_value::<Reply>(reply) else {
        return BoardAnswer { cursor: ask.cursor, unreadable: 1, ..BoardAnswer::default() };
    };
    let rows = rows.into_iter().map(|row| from_redis_value::<Row>(row).ok()).collect();
    BoardAnswer::new((incarnation, upto, seq), versions, rows)
}

/// The arguments of the script behind the proxy's name.
pub(super) fn numbers(ask: &Ask, run: u64, ttl: u64, skew: u64) -> [u64; 24] {
    let Renewal { seq, epoch, demand, has, load, window, terms } = ask.renewal;
    let (waited, claim) = demand.claim;
    [
        run,
        seq,
        epoch,
        ask.size.bytes,
        ask.size.queries,
        ttl,
        skew,
        ask.hold_ms,
        demand.held.bytes,
        demand.held.queries,
        demand.wants.bytes,
        demand.wants.queries,
        claim,
        waited,
        demand.weight.max(1),
        load.bytes,
        load.queries,
        has.bytes,
        has.queries,
        window.cuts,
        window.cause,
        window.bytes,
        window.grown,
        terms,
    ]
}

/// Reads the numbers that the script returns.
pub(super) fn answer(numbers: &[u64]) -> Option<Answer> {
    let (&[bytes, queries, epoch, ttl_ms, learning, members, others_bytes, others_queries], window) =
        numbers.split_first_chunk()?;
    let &[cuts, cause, window, differing, gone] = window else { return None };
    Some(Answer {
        grant: Amount { bytes, queries },
        epoch,
        ttl_ms,
        learning: learning > 0,
        unreadable: learning == UNREADABLE,
        members,
        others: Amount { bytes: others_bytes, queries: others_queries },
        window: SharedWindow { cuts, cause, bytes: window, grown: 0 },
        differing,
        gone,
    })
}

/// The arguments of the script for tokens behind the proxy's name.
pub(super) fn token_numbers(ask: &AskTokens, ttl: u64, skew: u64) -> [u64; 8] {
    let Draw { seq, demand } = ask.draw;
    [seq, ask.count, ask.per_ms.max(1), ttl, skew, demand.stock, demand.wants, demand.claim]
}

/// Reads the numbers that the script for tokens returns.
pub(super) fn drawn(numbers: &[u64]) -> Option<Drawn> {
    let &[grant, ttl_ms, state] = numbers else { return None };
    Some(Drawn { grant, ttl_ms, unreadable: state == UNREADABLE })
}

/// The run of the store's process, as a number that Lua holds exactly.
fn run_of(info: &str) -> Option<u64> {
    let id = info.lines().find_map(|line| line.trim().strip_prefix("run_id:"))?;
    u64::from_str_radix(id.get(..13)?, 16).ok()
}
