//! The column of times.

use super::{
    Corrupt,
    bytes::{Input, put_signed, put_varint},
    ints::{self, BLOCK, Column},
};

const RUNS: u8 = 0;
const PACKED: u8 = 1;
const GRID: u8 = 2;
const REGULAR: u8 = 3;

/// Appends the times in the form that makes them smallest.
pub(super) fn encode(times: &[i64], out: &mut Vec<u8>) {
    let Some(&first) = times.first() else { return };
    let start = out.len();
    let runs = runs(times);
    if let [(delta, _)] = runs.as_slice() {
        out.push(REGULAR);
        put_signed(first, out);
        put_signed(*delta, out);
        return;
    }
    // Every run takes at least two bytes; many of them are for the other forms.
    if runs.len() <= FEW_RUNS.max(times.len() / 16) {
        out.push(RUNS);
        put_signed(first, out);
        put_varint(runs.len() as u64, out);
        for (delta, count) in &runs {
            put_signed(*delta, out);
            put_varint(*count, out);
        }
        if runs.len() <= FEW_RUNS {
            return;
        }
    }
    let packed = |out: &mut Vec<u8>| {
        out.push(PACKED);
        ints::encode(times, out);
    };
    if out.len() == start {
        packed(out);
    } else {
        let mut other = Vec::new();
        packed(&mut other);
        replace_if_smaller(start, &other, out);
    }
    // With jitter no delta repeats, so the middle one says more than the commonest.
    let mut deltas: Vec<i64> = runs.iter().map(|(delta, _)| *delta).collect();
    let middle = deltas.len() / 2;
    let median = *deltas.select_nth_unstable(middle).1;
    let commonest = runs.iter().max_by_key(|(_, count)| *count).map_or(median, |run| run.0);
    replace_if_smaller(start, &grid(times, median), out);
    if commonest != median {
        replace_if_smaller(start, &grid(times, commonest), out);
    }
}

/// So few runs that no other form is smaller by much.
const FEW_RUNS: usize = 3;

fn replace_if_smaller(start: usize, other: &[u8], out: &mut Vec<u8>) {
    if other.len() < out.len() - start {
        out.truncate(start);
        out.extend_from_slice(other);
    }
}

/// Differences of neighbours, and how often each comes in a row.
fn runs(times: &[i64]) -> Vec<(i64, u64)> {
    let mut runs: Vec<(i64, u64)> = Vec::new();
    for pair in times.windows(2) {
        let delta = pair[1].wrapping_sub(pair[0]);
        match runs.last_mut() {
            Some((last, count)) if *last == delta => *count += 1,
            _ => runs.push((delta, 1)),
        }
    }
    runs
}

fn grid(times: &[i64], interval: i64) -> Vec<u8> {
    let mut out = vec![GRID];
    put_signed(interval, &mut out);
    let off: Vec<i64> = times
        .iter()
        .enumerate()
        .map(|(i, time)| time.wrapping_sub(interval.wrapping_mul(i as i64)))
        .collect();
    ints::encode(&off, &mut out);
    out
}

/// Appends `count` times.
pub(super) fn decode(input: &mut Input<'_>, count: usize, times: &mut Vec<i64>) -> Result<(), Corrupt> {
    if count == 0 {
        return Ok(());
    }
    times.reserve(count);
    match input.byte()? {
        REGULAR => {
            let (first, delta) = (input.signed()?, input.signed()?);
            times.extend((0..count as i64).map(|i| first.wrapping_add(delta.wrapping_mul(i))));
            Ok(())
        }
        RUNS => decode_runs(input, count, times),
        PACKED => decode_grid(input, count, 0, times),
        GRID => {
            let interval = input.signed()?;
            decode_grid(input, count, interval, times)
        }
        _ => Err(Corrupt("an unknown form of times")),
    }
}

fn decode_runs(input: &mut Input<'_>, count: usize, times: &mut Vec<i64>) -> Result<(), Corrupt> {
    let mut time = input.signed()?;
    let runs = input.varint()?;
    times.push(time);
    let mut left = count as u64 - 1;
    for _ in 0..runs {
        let delta = input.signed()?;
        let length = input.varint()?;
        if length == 0 || length > left {
            return Err(Corrupt("more times than samples"));
        }
        left -= length;
        times.extend((1..=length as i64).map(|i| time.wrapping_add(delta.wrapping_mul(i))));
        time = time.wrapping_add(delta.wrapping_mul(length as i64));
    }
    if left == 0 { Ok(()) } else { Err(Corrupt("fewer times than samples")) }
}

fn decode_grid(
    input: &mut Input<'_>,
    count: usize,
    interval: i64,
    times: &mut Vec<i64>,
) -> Result<(), Corrupt> {
    let mut column = Column::open(input, count)?;
    let mut block = [0; BLOCK];
    let mut origin = 0i64;
    loop {
        let got = column.next(input, &mut block)?;
        if got == 0 {
            return Ok(());
        }
        times.extend(
            block[..got]
                .iter()
                .enumerate()
                .map(|(i, off)| off.wrapping_add(origin).wrapping_add(interval.wrapping_mul(i as i64))),
        );
        origin = origin.wrapping_add(interval.wrapping_mul(got as i64));
    }
}
