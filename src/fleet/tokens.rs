//! One proxy's requests for tokens of a rate that several share, on a clock in milliseconds that only goes forward. The
//! tokens themselves are kept where they are spent.

use crate::base::share::TokenDemand;

/// A proxy's request for tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Draw {
    /// Its place among the proxy's requests: the store refuses one that comes late.
    pub seq: u64,
    /// Its demand.
    pub demand: TokenDemand,
}

/// The store's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Drawn {
    /// Tokens beside those that the proxy had.
    pub grant: u64,
    /// How long all of them are good for, in milliseconds from before the request.
    pub ttl_ms: u64,
    /// Something else than tokens was found in their place, and was removed.
    pub unreadable: bool,
}

/// The requests of one proxy for the tokens of one rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Draws {
    seq: u64,
    /// When the request that is under way was made.
    asked: Option<u64>,
}

impl Draws {
    /// A request. The tokens at hand may be spent meanwhile.
    pub fn ask(&mut self, now: u64, demand: TokenDemand) -> Draw {
        // Beyond those for the same rate that were forgotten since.
        self.seq = now.max(self.seq + 1);
        self.asked = Some(now);
        Draw { seq: self.seq, demand }
    }

    /// The tokens that came with the answer to the request with this number, and when all end; `None` for one that came
    /// late, or to an earlier request.
    pub fn answered(&mut self, now: u64, seq: u64, drawn: &Drawn) -> Option<(u64, u64)> {
        let asked = self.asked.filter(|_| self.seq == seq)?;
        let until = asked + drawn.ttl_ms;
        if until <= now {
            return None;
        }
        self.asked = None;
        Some((drawn.grant, until))
    }
}
