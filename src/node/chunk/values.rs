//! The column of values.

use super::{
    Corrupt,
    bits::{BitReader, BitWriter},
    bytes::{Input, put_varint},
    decimal::{POWERS, to_int},
    ints::{self, BLOCK, Column},
};

const ONE: u8 = 0;
const XOR: u8 = 1;
/// `DECIMAL + k`: integers divided by 10^k.
const DECIMAL: u8 = 2;
/// Beside a decimal: exceptions follow.
const EXCEPTIONS: u8 = 0x80;

/// Appends the values in the form that makes them smallest.
pub(super) fn encode(values: &[f64], out: &mut Vec<u8>) {
    let Some(&first) = values.first() else { return };
    if values.iter().all(|value| value.to_bits() == first.to_bits()) {
        out.push(ONE);
        out.extend_from_slice(&first.to_bits().to_le_bytes());
        return;
    }
    let start = out.len();
    if let Some(decimals) = Decimals::of(values) {
        decimals.encode(values, out);
        // XOR takes seven bytes a sample at its worst; below that it is not worth a try.
        if out.len() - start < values.len() * 4 {
            return;
        }
    }
    let mut xor = vec![XOR];
    encode_xor(values, &mut xor);
    if out.len() == start || xor.len() < out.len() - start {
        out.truncate(start);
        out.extend_from_slice(&xor);
    }
}

/// Values as integers over a power of ten.
struct Decimals {
    power: usize,
    ints: Vec<i64>,
    /// Positions of values that are no such integer; the integer there repeats the one before.
    exceptions: Vec<usize>,
}

impl Decimals {
    /// `None` if too many values are no decimals.
    fn of(values: &[f64]) -> Option<Self> {
        let exceptions_max = 2 + values.len() / 8;
        let mut decimals = Self { power: 0, ints: Vec::with_capacity(values.len()), exceptions: Vec::new() };
        let mut at = 0;
        while let Some(&value) = values.get(at) {
            let int = match to_int(value, decimals.power) {
                Some(int) => int,
                None => {
                    match (decimals.power + 1..POWERS.len()).find(|&more| to_int(value, more).is_some()) {
                        Some(more) => {
                            // The values before are written with more decimals as well; this happens a dozen times at
                            // most.
                            decimals.power = more;
                            decimals.ints.clear();
                            decimals.exceptions.clear();
                            at = 0;
                            continue;
                        }
                        None => {
                            decimals.exceptions.push(at);
                            if decimals.exceptions.len() > exceptions_max {
                                return None;
                            }
                            decimals.ints.last().copied().unwrap_or(0)
                        }
                    }
                }
            };
            decimals.ints.push(int);
            at += 1;
        }
        (decimals.exceptions.len() <= exceptions_max).then_some(decimals)
    }

    fn encode(&self, values: &[f64], out: &mut Vec<u8>) {
        let form = DECIMAL + self.power as u8;
        if self.exceptions.is_empty() {
            out.push(form);
        } else {
            out.push(form | EXCEPTIONS);
            put_varint(self.exceptions.len() as u64, out);
        }
        for &at in &self.exceptions {
            put_varint(at as u64, out);
            out.extend_from_slice(&values[at].to_bits().to_le_bytes());
        }
        ints::encode(&self.ints, out);
    }
}

/// Gorilla's XOR with the value before, with one window of meaningful bits that is kept while it fits.
fn encode_xor(values: &[f64], out: &mut Vec<u8>) {
    let mut bits = BitWriter::new(out);
    let mut last = 0u64;
    let (mut lead, mut trail) = (65, 0);
    for value in values {
        let xor = value.to_bits() ^ last;
        last = value.to_bits();
        if xor == 0 {
            bits.put(0, 1);
            continue;
        }
        let (leading, trailing) = (xor.leading_zeros(), xor.trailing_zeros());
        // A new window costs 12 bits more; an old one that is much too wide costs more than that.
        if lead <= 64 && leading >= lead && trailing >= trail && leading + trailing < lead + trail + 12 {
            bits.put(0b01, 2);
        } else {
            (lead, trail) = (leading, trailing);
            bits.put(0b11, 2);
            bits.put(u64::from(lead), 6);
            bits.put(u64::from(63 - lead - trail), 6);
        }
        bits.put(xor >> trail, 64 - lead - trail);
    }
    bits.finish();
}

/// Appends `count` values.
pub(super) fn decode(input: &mut Input<'_>, count: usize, values: &mut Vec<f64>) -> Result<(), Corrupt> {
    if count == 0 {
        return Ok(());
    }
    values.reserve(count);
    match input.byte()? {
        ONE => {
            let value = f64::from_bits(input.word()?);
            values.resize(values.len() + count, value);
            Ok(())
        }
        XOR => decode_xor(input.rest(), count, values),
        form => {
            let power = (form & !EXCEPTIONS).checked_sub(DECIMAL).map(usize::from);
            let scale =
                power.and_then(|power| POWERS.get(power)).ok_or(Corrupt("an unknown form of values"))?;
            let exceptions = if form & EXCEPTIONS == 0 { 0 } else { input.varint()? };
            decode_decimals(input, count, exceptions, *scale, values)
        }
    }
}

fn decode_decimals(
    input: &mut Input<'_>,
    count: usize,
    exceptions: u64,
    scale: f64,
    values: &mut Vec<f64>,
) -> Result<(), Corrupt> {
    let start = values.len();
    if exceptions > count as u64 {
        return Err(Corrupt("more exceptions than samples"));
    }
    let later = input.take(exceptions_len(input, exceptions)?)?;
    let mut column = Column::open(input, count)?;
    let mut block = [0; BLOCK];
    loop {
        let got = column.next(input, &mut block)?;
        if got == 0 {
            break;
        }
        if scale == 1.0 {
            values.extend(block[..got].iter().map(|&int| int as f64));
        } else {
            values.extend(block[..got].iter().map(|&int| int as f64 / scale));
        }
    }
    let decoded = values.get_mut(start..).unwrap_or_default();
    let mut exceptions = Input::new(later);
    while !exceptions.is_empty() {
        let at = exceptions.varint()? as usize;
        let value = f64::from_bits(exceptions.word()?);
        *decoded.get_mut(at).ok_or(Corrupt("an exception outside its chunk"))? = value;
    }
    Ok(())
}

/// Bytes that this many exceptions take, which stand before the integers they correct.
fn exceptions_len(input: &Input<'_>, exceptions: u64) -> Result<usize, Corrupt> {
    let mut ahead = input.ahead();
    let before = ahead.len();
    for _ in 0..exceptions {
        ahead.varint()?;
        ahead.word()?;
    }
    Ok(before - ahead.len())
}

fn decode_xor(bytes: &[u8], count: usize, values: &mut Vec<f64>) -> Result<(), Corrupt> {
    let mut bits = BitReader::new(bytes);
    let mut last = 0u64;
    let (mut trail, mut width) = (0, 64);
    for _ in 0..count {
        if bits.take(1) == 1 {
            if bits.take(1) == 1 {
                let lead = bits.take(6) as u32;
                width = bits.take(6) as u32 + 1;
                trail = 64u32.checked_sub(lead + width).ok_or(Corrupt("a window over 64 bits"))?;
            }
            last ^= bits.take(width) << trail;
        }
        values.push(f64::from_bits(last));
    }
    if bits.overran() { Err(Corrupt("it ends early")) } else { Ok(()) }
}
