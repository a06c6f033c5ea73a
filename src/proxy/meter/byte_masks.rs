//! Finds the bytes of JSON's structure, 64 at a time, as bit masks.

use wide::i8x16;

/// Bytes of a block: the bits of a mask.
pub(super) const BLOCK: usize = 64;

/// Where in a block the bytes lie that can mean something, lowest bit first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteMasks {
    /// `"`
    pub(super) quotes: u64,
    /// `\`
    pub(super) backslashes: u64,
    /// `[`
    pub(super) opens: u64,
    /// `]`
    pub(super) closes: u64,
    /// `{` and `}`
    pub(super) braces: u64,
    /// `}`
    pub(super) closing_braces: u64,
}

impl ByteMasks {
    #[inline]
    pub(super) fn of(block: &[u8; BLOCK]) -> Self {
        let lanes = Lanes::of(block);
        let closing_braces = lanes.equal(b'}');
        Self {
            quotes: lanes.equal(b'"'),
            backslashes: lanes.equal(b'\\'),
            opens: lanes.equal(b'['),
            closes: lanes.equal(b']'),
            braces: lanes.equal(b'{') | closing_braces,
            closing_braces,
        }
    }

    #[inline]
    pub(super) fn any(&self) -> u64 {
        self.quotes | self.backslashes | self.opens | self.closes | self.braces
    }
}

/// A block as the processor compares it, sixteen bytes at once.
struct Lanes([i8x16; 4]);

impl Lanes {
    #[inline]
    fn of(block: &[u8; BLOCK]) -> Self {
        let (lanes, _) = block.as_chunks::<16>();
        Self([0, 1, 2, 3].map(|n: usize| i8x16::from(lanes[n].map(u8::cast_signed))))
    }

    /// Bit i is set if byte i is this one.
    #[inline]
    fn equal(&self, byte: u8) -> u64 {
        let byte = i8x16::splat(byte.cast_signed());
        let bits = |lane: i8x16| u64::from(lane.simd_eq(byte).to_bitmask());
        let [a, b, c, d] = self.0.map(bits);
        a | b << 16 | c << 32 | d << 48
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mark_is_where_its_byte_is() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..2_000 {
            let block = [0; BLOCK].map(|_: u8| *rng.choice(b"\"\\[]{},:1a\x00\xff").unwrap_or(&0));
            let at = |wanted: &[u8]| {
                (0..BLOCK).filter(|&i| wanted.contains(&block[i])).fold(0, |bits, i| bits | 1 << i)
            };
            let expected = ByteMasks {
                quotes: at(b"\""),
                backslashes: at(b"\\"),
                opens: at(b"["),
                closes: at(b"]"),
                braces: at(b"{}"),
                closing_braces: at(b"}"),
            };
            assert_eq!(ByteMasks::of(&block), expected, "{block:?}");
        }
    }
}
