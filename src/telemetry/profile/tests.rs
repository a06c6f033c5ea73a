use super::{stacks::Stack, *};

#[test]
fn parameters_are_read_and_bounded() {
    let asked = |query| ProfileRequest::parse(query).map(|asked| (asked.seconds.as_secs(), asked.format));
    assert_eq!(asked(""), Ok((SECONDS_DEFAULT, Format::Pprof)));
    assert_eq!(asked("seconds=3&format=svg&debug=0"), Ok((3, Format::Svg)));
    for bad in ["seconds=0", "seconds=61", "seconds=-1", "seconds=x", "format=png"] {
        assert_eq!(asked(bad).unwrap_err().status().as_u16(), 400, "{bad}");
    }
}

#[test]
fn one_at_a_time() {
    let turn = Turn::take().unwrap();
    assert!(Turn::take().is_none());
    drop(turn);
    drop(Turn::take().unwrap());
}

#[test]
fn a_picture_has_the_names_and_their_shares() {
    let here = backtrace::Backtrace::new_unresolved();
    let addresses: Vec<usize> = here.frames().iter().map(|frame| frame.ip() as usize).take(20).collect();
    let profile = Profile {
        kinds: &[("samples", "count"), ("cpu", "nanoseconds")],
        stacks: vec![
            Stack { addresses: addresses.clone(), values: vec![3, 30_000_000] },
            Stack { addresses: addresses[addresses.len() - 1..].to_vec(), values: vec![1, 10_000_000] },
        ],
        period: (("cpu", "nanoseconds"), 10_000_000),
        duration: Duration::from_secs(1),
        own: "nothing has this name",
        own_callers: 0,
    };
    let symbols = Symbols::of(&profile);
    let svg = flame::draw(&profile, &symbols);
    assert!(svg.contains("a_picture_has_the_names_and_their_shares: 0.03 s, 75.0 %"), "{svg}");
    assert!(svg.contains("Weir: cpu, 0.04 s") && svg.ends_with("</svg>\n"));
    assert!(!svg.contains("<title><"), "names are escaped");
}
