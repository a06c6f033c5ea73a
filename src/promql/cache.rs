//! Trees of queries that come again and again.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use super::{Fingerprint, Limits, ParseError, ast::Ast, parse_with};

/// Bytes that one entry may hold on average, trees included, before others are given up for it.
const ENTRY_BYTES: u64 = 4 << 10;

/// A parsed query, and values computed from its tree alone.
#[derive(Debug)]
pub struct CachedQuery {
    /// The tree.
    pub ast: Arc<Ast>,
    fingerprint: OnceLock<Fingerprint>,
}

impl CachedQuery {
    /// Its fingerprint, computed when it is first asked for.
    pub fn fingerprint(&self) -> Fingerprint {
        *self.fingerprint.get_or_init(|| Fingerprint::of(&self.ast))
    }
}

/// Trees by text, bounded in number and in bytes. Refused queries are not kept.
#[derive(Debug)]
pub struct Cache {
    trees: moka::sync::Cache<Arc<str>, Arc<CachedQuery>>,
    limits: Limits,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Cache {
    /// Up to `entries` queries of ordinary size, under the default [`Limits`].
    pub fn new(entries: u64) -> Self {
        Self::with_limits(entries, Limits::default())
    }

    /// Up to `entries` queries of ordinary size.
    pub fn with_limits(entries: u64, limits: Limits) -> Self {
        let bytes = entries.saturating_mul(ENTRY_BYTES);
        let trees = moka::sync::Cache::builder()
            .max_capacity(bytes)
            // However small, an entry costs its share: so the number is bounded too.
            .weigher(|_, query: &Arc<CachedQuery>| bytes_of(&query.ast).max(ENTRY_BYTES as u32))
            .build();
        Self { trees, limits, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The tree of a query, kept or parsed now.
    ///
    /// # Errors
    /// As [`parse_with`].
    pub fn parse(&self, text: &str) -> Result<Arc<Ast>, ParseError> {
        self.query(text).map(|query| Arc::clone(&query.ast))
    }

    /// A query, kept or parsed now.
    ///
    /// # Errors
    /// As [`parse_with`].
    pub fn query(&self, text: &str) -> Result<Arc<CachedQuery>, ParseError> {
        if let Some(query) = self.trees.get(text) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(query);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let ast = Arc::new(parse_with(text, &self.limits)?);
        let text = Arc::clone(&ast.text);
        let query = Arc::new(CachedQuery { ast, fingerprint: OnceLock::new() });
        self.trees.insert(text, Arc::clone(&query));
        Ok(query)
    }

    /// How many queries were found.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// How many queries had to be parsed.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }
}

/// Approximate bytes of a tree: its nodes, its text, and the text again in matchers, in their normal form and as
/// selectors.
fn bytes_of(ast: &Ast) -> u32 {
    let bytes = ast.nodes.capacity() * size_of::<super::ast::Node>() + ast.text.len() * 5;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_parsed_once() {
        let cache = Cache::new(10);
        let first = cache.parse("sum(up)").unwrap();
        let again = cache.parse("sum(up)").unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert!(cache.parse("sum(").is_err() && cache.parse("sum(").is_err());
        assert_eq!((cache.hits(), cache.misses()), (1, 3));
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let cache = Cache::new(16);
        let long = "x".repeat(20_000);
        for i in 0..1000 {
            cache.parse(&format!("up{{a=\"{i}\"}}")).unwrap();
            cache.parse(&format!("up{{a=\"{i}{long}\"}}")).unwrap();
        }
        cache.trees.run_pending_tasks();
        assert!(cache.trees.entry_count() <= 16, "{}", cache.trees.entry_count());
        assert!(cache.trees.weighted_size() <= 16 * ENTRY_BYTES);
    }
}
