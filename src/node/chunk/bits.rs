//! A stream of bits, lowest first.

/// Appends bits to bytes.
#[derive(Debug)]
pub(super) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    word: u128,
    used: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, word: 0, used: 0 }
    }

    /// Appends the low `width` bits (at most 64) of `value`, which has no others.
    pub(super) fn put(&mut self, value: u64, width: u32) {
        self.word |= u128::from(value) << self.used;
        self.used += width;
        if self.used >= 64 {
            self.out.extend_from_slice(&(self.word as u64).to_le_bytes());
            self.word >>= 64;
            self.used -= 64;
        }
    }

    pub(super) fn finish(self) {
        let bytes = self.used.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.word.to_le_bytes()[..bytes]);
    }
}

/// Takes bits from bytes; behind their end all bits are 0, see [`overran`](Self::overran).
#[derive(Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    word: u64,
    /// Bits left in `word`.
    have: u32,
    /// Bits that were not there.
    missing: u64,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, word: 0, have: 0, missing: 0 }
    }

    /// The next `width` bits, at most 64.
    pub(super) fn take(&mut self, width: u32) -> u64 {
        if width <= self.have {
            let value = self.word & (u64::MAX >> (64 - width.max(1)));
            self.word = self.word.checked_shr(width).unwrap_or(0);
            self.have -= width;
            return value;
        }
        let (low, from_low) = (self.word, self.have);
        self.refill();
        let rest = width - from_low;
        if rest > self.have {
            self.missing += u64::from(rest - self.have);
            self.have = rest;
        }
        let high = self.word & (u64::MAX >> (64 - rest));
        self.word = self.word.checked_shr(rest).unwrap_or(0);
        self.have -= rest;
        low | high << from_low
    }

    fn refill(&mut self) {
        if let Some((word, rest)) = self.bytes.split_first_chunk() {
            self.word = u64::from_le_bytes(*word);
            self.bytes = rest;
            self.have = 64;
            return;
        }
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(self.bytes) {
            *to = *from;
        }
        self.word = u64::from_le_bytes(word);
        self.have = self.bytes.len() as u32 * 8;
        self.bytes = &[];
    }

    /// Whether more bits were taken than there are.
    pub(super) fn overran(&self) -> bool {
        self.missing > 0
    }
}
