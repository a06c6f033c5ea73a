//! Records in the order of their arrival: a journal has them in that of their end.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use crate::journal::Record;

/// Records that are held back. A query that ran while more than these came and ended goes on late.
const HELD_BACK: usize = 20_000;

/// Holds records back, and gives the earliest of them.
#[derive(Debug, Default)]
pub struct Arrivals {
    held: BinaryHeap<Reverse<Arrival>>,
    numbers: u64,
}

#[derive(Debug)]
struct Arrival {
    /// When it came, and a number that keeps the order of those that came together.
    at: (i64, u64),
    record: Box<Record>,
}

impl PartialEq for Arrival {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Arrival {}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Arrival {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}

impl Arrivals {
    /// Takes a record; gives the earliest one where too many are held.
    pub fn push(&mut self, record: Record) -> Option<Box<Record>> {
        self.numbers += 1;
        let at = (record.at_ms, self.numbers);
        self.held.push(Reverse(Arrival { at, record: Box::new(record) }));
        if self.held.len() > HELD_BACK { self.pop() } else { None }
    }

    /// The earliest of those that are held.
    pub fn pop(&mut self) -> Option<Box<Record>> {
        self.held.pop().map(|Reverse(arrival)| arrival.record)
    }
}
