use bytes::Bytes;

use super::{
    super::{Counts, gzip::GzipReader},
    answers,
};

fn read(pieces: &[&[u8]]) -> GzipReader {
    let mut reader = GzipReader::new();
    for piece in pieces {
        reader.load(&Bytes::copy_from_slice(piece));
        while !reader.inflate(1000) {}
    }
    reader
}

#[test]
fn counts_equal_the_plain_ones_at_random_splits() {
    let mut rng = fastrand::Rng::with_seed(4);
    for _ in 0..100 {
        let answer = answers::answer(&mut rng, "matrix");
        let text = answers::text(&mut rng, &answer);
        let zipped = answers::gzip(text.as_bytes());
        let mut reader = read(&answers::pieces(&mut rng, &zipped, 7));
        assert!(reader.finish());
        assert_eq!(reader.scanner().counts(), answers::truth(&answer));
        assert_eq!(reader.bytes(), text.len() as u64);
    }
}

#[test]
fn several_members_are_one_answer() {
    let text = answers::matrix(300, 300);
    let (head, tail) = text.as_bytes().split_at(100_000);
    let zipped = [answers::gzip(head), answers::gzip(tail)].concat();
    let mut rng = fastrand::Rng::with_seed(5);
    let mut reader = read(&answers::pieces(&mut rng, &zipped, 5000));
    assert!(reader.finish());
    assert_eq!(reader.scanner().counts(), Counts { series: 300, samples: 90_000, items: 0 });
}

#[test]
fn every_truncation_is_noticed() {
    let zipped = answers::gzip(answers::matrix(3, 30).as_bytes());
    for end in 0..zipped.len() {
        assert!(!read(&[&zipped[..end]]).finish(), "cut at {end} of {}", zipped.len());
    }
}

#[test]
fn garbage_and_damage_are_noticed_and_survived() {
    let whole = answers::gzip(answers::matrix(10, 50).as_bytes());
    let mut rng = fastrand::Rng::with_seed(6);
    for _ in 0..500 {
        let garbage: Vec<u8> = (0..rng.usize(..300)).map(|_| rng.u8(..)).collect();
        assert!(!read(&answers::pieces(&mut rng, &garbage, 50)).finish());
        let mut damaged = whole.clone();
        // Behind the header, whose time and system nobody checks.
        let at = rng.usize(10..damaged.len());
        damaged[at] ^= 1 << rng.u8(..8);
        assert!(!read(&answers::pieces(&mut rng, &damaged, 50)).finish(), "byte {at}");
    }
    let trailing = [whole, b"more".to_vec()].concat();
    assert!(!read(&[&trailing]).finish());
}

#[test]
fn a_bomb_comes_out_in_turns() {
    let bomb = answers::gzip(&vec![b' '; 50 << 20]);
    assert!(bomb.len() < 1 << 20);
    let mut reader = GzipReader::new();
    reader.load(&Bytes::from(bomb));
    let mut turns = 0;
    while !reader.inflate(1 << 20) {
        turns += 1;
        assert!(reader.bytes() <= (turns + 1) << 20, "a turn is bounded");
    }
    assert!(turns >= 45);
    assert_eq!(reader.bytes(), 50 << 20);
}
