use super::{
    super::{Counts, Scanner},
    answers::{self, KINDS},
};

fn scan<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Scanner {
    let mut scanner = Scanner::new();
    for chunk in chunks {
        scanner.feed(chunk);
    }
    scanner
}

#[test]
fn counts_equal_the_parsed_truth_at_random_splits() {
    let mut rng = fastrand::Rng::with_seed(1);
    for round in 0..300 {
        for kind in KINDS {
            let answer = answers::answer(&mut rng, kind);
            let text = answers::text(&mut rng, &answer);
            let truth = answers::truth(&answer);
            let whole = scan([text.as_bytes()]);
            assert_eq!(whole.counts(), truth, "round {round}: {text}");
            assert!(whole.is_whole(), "{text}");
            let longest = [1, 9, 63, 64, 65, 300][rng.usize(..6)];
            let split = scan(answers::pieces(&mut rng, text.as_bytes(), longest));
            assert_eq!((split.counts(), split.is_whole()), (truth, true), "round {round}, in pieces: {text}");
        }
    }
}

#[test]
fn every_single_split_counts_the_same_and_no_part_is_whole() {
    let mut rng = fastrand::Rng::with_seed(2);
    for kind in KINDS {
        let answer = answers::answer(&mut rng, kind);
        let text = answer.to_string();
        for at in 1..text.len() {
            let (head, tail) = text.as_bytes().split_at(at);
            assert!(!scan([head]).is_whole(), "{kind} up to {at}: {text}");
            assert_eq!(scan([head, tail]).counts(), answers::truth(&answer), "{kind} at {at}: {text}");
        }
    }
}

#[test]
fn runs_of_backslashes_are_read_right_wherever_they_fall() {
    for before in 0..130 {
        for run in 0..6 {
            let label = format!("{}{}\"[{{", "x".repeat(before), "\\".repeat(run));
            let answer = serde_json::json!({"data": {"resultType": "vector", "result": [
                {"metric": {"a": label}, "value": [1, "2"]}, {"metric": {}, "value": [1, "2"]}
            ]}});
            let text = answer.to_string();
            for size in [7, 64, text.len()] {
                let scanner = scan(text.as_bytes().chunks(size).flat_map(|chunk| [chunk, &[]]));
                assert_eq!((scanner.counts(), scanner.is_whole()), (answers::truth(&answer), true), "{text}");
            }
        }
    }
}

#[test]
fn counts_never_fall_while_an_answer_streams() {
    let text = answers::matrix(20, 20);
    let mut scanner = Scanner::new();
    let mut last = Counts::default();
    for byte in text.as_bytes() {
        scanner.feed(&[*byte]);
        let now = scanner.counts();
        assert!(now.series >= last.series && now.samples >= last.samples);
        last = now;
    }
    assert_eq!(last, Counts { series: 20, samples: 400, items: 0 });
}

#[test]
fn key_order_white_space_and_look_alikes_do_not_matter() {
    let matrix = Counts { series: 1, samples: 2, items: 0 };
    let cases: &[(&str, Counts)] = &[
        (r#"{"data":{"result":[{"values":[[1,"2"],[3,"4"]],"metric":{}}],"resultType":"matrix"}}"#, matrix),
        ("{ \"data\" :\n{ \"result\" : [ { \"values\" : [ [ 1 , \"2\" ] , [ 3, \"4\" ] ] } ] } }", matrix),
        (r#"{"data":{"results":[{"values":[[1,"2"]]}]}}"#, Counts::default()),
        (r#"{"dat":{"result":[{"values":[[1,"2"]]}]}}"#, Counts::default()),
        (r#"{"x":{"data":{"result":[{"values":[[1,"2"]]}]}}}"#, Counts::default()),
        (r#"{"data":{"result":[{"metric":{},"values":[]}]}}"#, Counts { series: 1, samples: 0, items: 0 }),
        (r#"{"data":{"result":[]}}"#, Counts::default()),
        (r#"{"data":null}"#, Counts::default()),
        (r#"{"data":[]}"#, Counts::default()),
    ];
    for (text, want) in cases {
        assert_eq!(scan([text.as_bytes()]).counts(), *want, "{text}");
    }
}

#[test]
fn garbage_is_survived_and_never_whole_by_accident() {
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..2_000 {
        let garbage: Vec<u8> =
            (0..rng.usize(..200)).map(|_| b"{}[]\"\\,:ab\xff\x00"[rng.usize(..12)]).collect();
        scan(answers::pieces(&mut rng, &garbage, 20));
    }
    for text in ["", "   ", "}", "]]]]", "hello", "\"", "{", "{\"a"] {
        assert!(!scan([text.as_bytes()]).is_whole(), "{text}");
    }
    let deep = "[".repeat(100_000);
    assert!(!scan([deep.as_bytes()]).is_whole());
}

#[test]
fn what_victoria_fetched_is_read_at_the_end() {
    let answer = |labels: &str, stats: &str| {
        format!(
            r#"{{"status":"success","data":{{"result":[{{"metric":{{{labels}}},"value":[1,"2"]}}]}}{stats}}}"#
        )
    };
    let stats = r#","stats":{"seriesFetched": "20000","executionTimeMsec": 12}"#;
    for (text, want) in [
        (answer("", stats), Some(20_000)),
        (answer("", r#","stats":{"seriesFetched":7}"#), Some(7)),
        (answer(r#""seriesFetched":"5""#, stats), Some(20_000)),
        (answer(r#""a":"\"seriesFetched\":5""#, ""), None),
        (answer("", r#","stats":{"seriesFetched":"many"}"#), None),
        (answer("", ""), None),
    ] {
        for size in [1, 7, 64, 1_000] {
            assert_eq!(scan(text.as_bytes().chunks(size)).series_fetched(), want, "{text}");
        }
    }
}
