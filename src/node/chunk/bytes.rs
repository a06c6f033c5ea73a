//! Bytes in and out: varints and fixed words.

use super::Corrupt;

/// Appends a number, seven bits to a byte, lowest first.
pub(in crate::node) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number; small ones of either sign are short.
pub(in crate::node) fn put_signed(value: i64, out: &mut Vec<u8>) {
    put_varint(((value << 1) ^ (value >> 63)) as u64, out);
}

/// Bytes that `put_varint` takes.
pub(in crate::node) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// The bytes left to read.
#[derive(Debug)]
pub(in crate::node) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(in crate::node) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(in crate::node) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::node) fn len(&self) -> usize {
        self.0.len()
    }

    /// The same input, to look ahead.
    pub(in crate::node) fn ahead(&self) -> Self {
        Self(self.0)
    }

    pub(in crate::node) fn byte(&mut self) -> Result<u8, Corrupt> {
        let (first, rest) = self.0.split_first().ok_or(Corrupt("it ends early"))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(in crate::node) fn take(&mut self, count: usize) -> Result<&'a [u8], Corrupt> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Corrupt("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(in crate::node) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(in crate::node) fn word(&mut self) -> Result<u64, Corrupt> {
        let (word, rest) = self.0.split_first_chunk().ok_or(Corrupt("it ends early"))?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*word))
    }

    pub(in crate::node) fn half(&mut self) -> Result<u32, Corrupt> {
        let (half, rest) = self.0.split_first_chunk().ok_or(Corrupt("it ends early"))?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*half))
    }

    pub(in crate::node) fn varint(&mut self) -> Result<u64, Corrupt> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Corrupt("a number is too long"))
    }

    pub(in crate::node) fn signed(&mut self) -> Result<i64, Corrupt> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}
