use super::*;
use crate::{
    base::{LabelSize, QueryCost},
    cost::{
        CostLimit, CostLimits, Count, Estimator, Need, ProbeNeed, QuerySplit, Remembered, TypeNeed,
        UNKNOWN_SERIES, Unknown, Verdict, distinct::different, explain,
    },
};

/// Judges by a limit for refusal and one that is near, and by a number of selectors.
fn judge(limits: CostLimits, selectors: u64) -> impl Fn(&QueryCost) -> Verdict {
    move |cost| {
        let passes = |limit: CostLimit| {
            cost.series.value > limit.series
                || cost.samples.value > limit.samples
                || cost.memory.value > limit.memory
        };
        if passes(limits.refuse) || cost.selectors > selectors {
            Verdict::Exceeded
        } else if passes(limits.near) {
            Verdict::NearLimit
        } else {
            Verdict::Within
        }
    }
}

/// At most this number of series, and memory that is near its limit from a quarter of 1 GiB on.
fn limits(series: u64) -> CostLimits {
    let refuse = CostLimit { series, memory: 1 << 30, ..CostLimit::UNLIMITED };
    CostLimits { refuse, near: CostLimit { memory: 1 << 28, ..refuse } }
}

fn known(n: u64, confidence: Confidence, source: Source) -> SeriesKnowledge {
    SeriesKnowledge::new(Estimate::new(n, confidence), source)
}

fn assumed() -> SeriesKnowledge {
    SeriesKnowledge::assumed(&Model::default())
}

/// The requests of an estimate, and its end.
#[derive(Debug)]
struct Run {
    asked: Vec<Vec<ProbeNeed>>,
    asked_history: bool,
    done: Estimated,
}

/// Runs an estimate: `count` answers probes by the text of the selector and the limit.
fn run(
    query: &str,
    known: Vec<SeriesKnowledge>,
    limits: CostLimits,
    remembered: Option<Remembered>,
    count: impl Fn(&str, u64) -> Count,
) -> Run {
    let (shape, model) = (shape(query, six_hours(60)), Model::default());
    let subject = subject(&shape, &model);
    let mut estimator = Estimator::new(subject, known, limits, judge(limits, 100));
    let (mut asked, mut asked_history) = (Vec::new(), false);
    loop {
        match estimator.need() {
            Need::Done(done) => return Run { asked, asked_history, done },
            Need::History => {
                asked_history = true;
                estimator.supply_history(remembered);
            }
            Need::Types(_) | Need::Values(_) => unreachable!("not asked for"),
            Need::Probes(needs) => {
                for need in &needs {
                    let text = &shape.selectors[need.selector].text;
                    estimator.supply_count(*need, count(text, need.limit));
                }
                asked.push(needs);
            }
        }
    }
}

fn exactly(n: u64) -> Count {
    Count::Series { series: Estimate::exact(n), truncated: false, labels: None }
}

/// The truth, as far as the probe counts.
fn truth(n: u64, limit: u64) -> Count {
    let truncated = n > limit;
    Count::Series { series: Estimate::exact(n.min(limit + 1)), truncated, labels: None }
}

#[test]
fn what_a_bound_clears_asks_for_nothing() {
    let run = run("sum(foo)", vec![at_most(500)], limits(1_000), None, |_, _| unreachable!());
    assert!(!run.asked_history && run.done.cost.series == Estimate::new(500, Confidence::UpperBound));
}

#[test]
fn a_limit_on_the_text_is_judged_before_anything_is_priced() {
    let query = (0..4_999).map(|n| format!("x{n}")).collect::<Vec<_>>().join("+");
    let run = run(&query, vec![assumed(); 4_999], limits(1_000), None, |_, _| unreachable!());
    assert!(run.done.selectors.is_empty() && run.done.cost.selectors == 4_999);
}

#[test]
fn history_comes_before_probes_and_a_count_beats_both() {
    let remembered = Some(Remembered { peak: 700, here: None });
    let run = run("sum(foo)", vec![assumed()], limits(1_000), remembered, |_, _| exactly(90));
    assert!(run.asked_history && run.asked.len() == 1);
    assert_eq!(run.done.cost.series, Estimate::exact(90));
}

#[test]
fn every_doubtful_selector_is_asked_about_once_in_waves() {
    let query = (0..20).map(|n| format!("tiny{n}")).collect::<Vec<_>>().join("+");
    let run = run(&query, vec![assumed(); 20], limits(1_000), None, |_, _| exactly(3));
    assert_eq!(run.asked.iter().map(Vec::len).collect::<Vec<_>>(), [8, 8, 4]);
    assert_eq!(run.done.cost.series, Estimate::exact(60), "and none is taken for 50,000");
    // The same selector over the same time is counted once.
    let run = self::run("foo / foo + bar", vec![assumed(); 3], limits(1_000), None, |_, _| exactly(3));
    assert_eq!(run.asked.iter().map(Vec::len).collect::<Vec<_>>(), [2]);
    assert_eq!(run.done.cost.series, Estimate::exact(6));
    assert_eq!(run.done.selectors.len(), 3);
}

#[test]
fn what_is_refused_anyway_is_asked_about_no_further() {
    let query = (0..20).map(|n| format!("m{n}")).collect::<Vec<_>>().join("+");
    let run = run(&query, vec![assumed(); 20], limits(1_000), None, |_, limit| truth(5_000, limit));
    assert_eq!(run.asked.len(), 1);
    assert!(run.done.cost.series.value > 1_000);
}

#[test]
fn a_count_that_stopped_too_early_is_made_again() {
    // The limit on memory refuses, and the memory of a selector is unknown.
    let only_memory = CostLimits {
        refuse: CostLimit { memory: 1 << 30, ..CostLimit::UNLIMITED },
        near: CostLimit { memory: 1 << 20, ..CostLimit::UNLIMITED },
    };
    let run = run("sum(foo)", vec![assumed()], only_memory, None, |_, limit| truth(20_000, limit.min(300)));
    assert_eq!(run.asked.len(), 3, "{:?}", run.asked);
    assert_eq!(run.done.cost.series.confidence, Confidence::Assumed);
    assert_eq!(run.done.cost.memory.value, 1 << 20, "the largest share of a budget");
}

#[test]
fn limits_of_probes_are_where_the_query_is_refused() {
    for (query, series, memory) in
        [("sum(foo)", 700, u64::MAX), ("foo", u64::MAX, 1 << 28), ("rate(foo[5m])", 10_000, 1 << 26)]
    {
        let refuse = CostLimit { series, memory, ..CostLimit::UNLIMITED };
        let limits = CostLimits { refuse, near: CostLimit { memory: memory / 4, ..refuse } };
        let asked = run(query, vec![assumed()], limits, None, |_, _| Count::Unknown).asked;
        let ProbeNeed { limit, enough, .. } = asked[0][0];
        let judged = |n| {
            let done = priced(query, six_hours(60), n, Kind::Prometheus);
            judge(limits, 100)(&done.cost)
        };
        assert_eq!(judged(enough), Verdict::Within, "{query}");
        assert!(judged(limit + limit / 50 + 1) == Verdict::Exceeded, "{query}: {limit}");
        assert!(judged(limit - limit / 10) != Verdict::Exceeded, "{query}: {limit}");
    }
}

#[test]
fn what_earlier_runs_touched_is_not_spread_evenly() {
    // Seven dead selectors and a live one: each may be the live one.
    let query = (0..8).map(|n| format!("m{n}")).collect::<Vec<_>>().join("+");
    let mut all = vec![assumed(); 8];
    assert!(SeriesKnowledge::remember(&mut all, Remembered { peak: 800, here: Some(800) }, 0));
    assert!(all.iter().all(|one| one.series == Estimate::new(800, Confidence::Learned)));
    // Another window lowers nothing, and raises the sum.
    let mut all = vec![at_most(900), at_most(50)];
    assert!(!SeriesKnowledge::remember(&mut all, Remembered { peak: 10, here: None }, 0));
    assert!(SeriesKnowledge::remember(&mut all, Remembered { peak: 2_000, here: None }, 1));
    assert_eq!((all[0], all[1].series.value), (at_most(900), 1_100));
    let mut one = vec![counted(900)];
    assert!(!SeriesKnowledge::remember(&mut one, Remembered { peak: 10, here: Some(10) }, 0), "{query}");
}

#[test]
fn nobody_left_to_ask_is_as_heavy_as_may_run() {
    let run = run("foo", vec![assumed()], limits(1_000), None, |_, _| Count::Unknown);
    assert_eq!(run.done.cost.series, Estimate::new(1_000, Confidence::Assumed));
    // And a query that is only near a limit is not refused by it.
    assert!(run.done.cost.memory.value <= 1 << 28);
    let (shape, model) = (shape("foo", six_hours(60)), Model { unknown: Unknown::Deny, ..Model::default() });
    let subject = subject(&shape, &model);
    let limits = limits(1_000);
    let known = subject.from_table(None, |_| None);
    let mut estimator = Estimator::new(subject, known, limits, judge(limits, 100));
    assert!(matches!(estimator.need(), Need::History));
    assert!(matches!(estimator.need(), Need::Probes(_)));
    assert!(matches!(estimator.need(), Need::Done(done) if done.cost.series.value == UNKNOWN_SERIES));
}

#[test]
fn a_query_that_may_be_split_is_counted_further() {
    let ast = std::sync::Arc::new(crate::promql::parse("sum by (job) (foo)").unwrap());
    let split = QuerySplit::of(&ast, six_hours(15), DEFAULT_LOOKBACK_MS).unwrap();
    let (shape, model) = (shape("sum by (job) (foo)", six_hours(15)), Model::default());
    let refuse = CostLimit { memory: 1 << 30, ..CostLimit::UNLIMITED };
    let limits = CostLimits { refuse, near: refuse };
    let subject = Subject { split: Some((&split, 1 << 30)), ..subject(&shape, &model) };
    let mut estimator = Estimator::new(subject, vec![assumed()], limits, judge(limits, 100));
    loop {
        match estimator.need() {
            Need::Done(done) => {
                assert!(done.cost.memory.value <= 1 << 30 && done.parts > 1, "{:?}", done.cost);
                return;
            }
            Need::History | Need::Types(_) | Need::Values(_) => {}
            Need::Probes(needs) => {
                for need in needs {
                    estimator.supply_count(need, truth(20_000, need.limit));
                }
            }
        }
    }
}

#[test]
fn a_count_of_this_window_replaces_all_but_a_lower_bound() {
    let bound = at_most(900);
    let learned = known(10, Confidence::Learned, Source::Learned);
    let at_least = |n| known(n, Confidence::AtLeast, Source::Probe);
    let n = |n, confidence| Estimate::new(n, confidence);
    for (before, series, truncated, after) in [
        (bound, Estimate::exact(400), false, counted(400)),
        (bound, Estimate::exact(1_000), false, counted(1_000)),
        (bound, n(1_000, Confidence::Learned), false, bound),
        (learned, n(400, Confidence::UpperBound), false, known(400, Confidence::UpperBound, Source::Probe)),
        (assumed(), n(4, Confidence::Learned), false, known(4, Confidence::Learned, Source::Probe)),
        (bound, Estimate::exact(101), true, bound),
        (learned, Estimate::exact(101), true, at_least(101)),
        (bound, Estimate::exact(1_001), true, at_least(1_001)),
    ] {
        assert_eq!(before.counted(series, truncated), after, "{before:?} {series:?} {truncated}");
    }
}

/// Native histograms take many times the memory of floats: unknown types are asked for, and the query is judged again.
#[test]
fn what_may_be_native_histograms_is_asked_for_before_it_is_let_in() {
    let (shape, model) = (shape("foo + foo offset 1h + {job=\"x\"}", six_hours(60)), Model::default());
    let subject = Subject { asks_types: true, ..subject(&shape, &model) };
    let limits = limits(1_000);
    let known = vec![counted(100), counted(100), counted(90_000)];
    let mut refused = Estimator::new(subject, known, limits, judge(limits, 100));
    assert!(matches!(refused.need(), Need::History));
    assert!(matches!(refused.need(), Need::Done(_)), "it is refused whatever its samples are");

    let limits = CostLimits {
        refuse: CostLimit::UNLIMITED,
        near: CostLimit { memory: 1 << 28, ..CostLimit::UNLIMITED },
    };
    let many = counted(60_000).holding(SampleType::Unknown);
    let mut unasked = Estimator::new(subject, vec![many; 3], limits, judge(limits, 100));
    assert!(matches!(unasked.need(), Need::History), "taken for histograms, it is near a limit");
    let known = vec![at_most(100), at_most(100), at_most(300)];
    let mut estimator = Estimator::new(subject, known, limits, judge(limits, 100));
    let need = |selector, series| TypeNeed { selector, series };
    let Need::Types(needs) = estimator.need() else { panic!("types first") };
    assert_eq!(needs, [need(0, 100), need(2, 300)], "equal selectors once");
    estimator.supply_type(needs[0], SampleType::HISTOGRAM);
    estimator.supply_type(needs[1], SampleType::of_share(0.25));
    // As histograms it is near a limit: now their number matters.
    assert!(matches!(estimator.need(), Need::History));
    let Need::Probes(probes) = estimator.need() else { panic!("then counts") };
    for probe in probes {
        estimator.supply_count(
            probe,
            Count::Series { series: Estimate::exact(90), truncated: false, labels: None },
        );
    }
    let Need::Done(done) = estimator.need() else { panic!("once only") };
    let floats = priced("foo + foo offset 1h + {job=\"x\"}", six_hours(60), 90, Kind::Prometheus);
    assert!(done.cost.memory.value > 10 * floats.cost.memory.value);
    assert_eq!(SampleType::of_share(0.0), SampleType::Float);
    assert_eq!(SampleType::of_share(0.001), SampleType::Histogram(1));
}

/// The price of a type that nobody knows was that of native histograms, and did not say so.
#[test]
fn samples_of_which_nobody_knows_the_type_say_that_they_are_taken_for_native_histograms() {
    let (shape, model) = (shape("foo + bar", six_hours(60)), Model::default());
    let subject = Subject { asks_types: true, ..subject(&shape, &model) };
    let limits = CostLimits { refuse: CostLimit::UNLIMITED, near: CostLimit::UNLIMITED };
    let mut estimator = Estimator::new(subject, vec![counted(100); 2], limits, judge(limits, 100));
    let Need::Types(needs) = estimator.need() else { panic!("types first") };
    estimator.supply_type(needs[1], SampleType::Float);
    let Need::Done(done) = estimator.need() else { panic!("once only") };
    let [foo, bar] = [0, 1].map(|i| explain::line(&done.selectors[i]));
    assert!(foo.ends_with("; the type of its samples is unknown, and taken for native histograms"), "{foo}");
    assert!(!bar.contains("native histograms"), "{bar}");
    let known = [SampleType::HISTOGRAM, SampleType::Float].map(|samples| counted(100).holding(samples));
    assert_eq!(done.cost.memory, subject.price(&known).cost.memory);
}

/// `count_values` on a graph was priced as if each sample had a value of its own: 25 GiB for a metric that is 0 or 1.
#[test]
fn the_values_of_a_graph_are_asked_for() {
    let model = Model::default();
    let limits = CostLimits {
        refuse: CostLimit { memory: 1 << 30, ..CostLimit::UNLIMITED },
        near: CostLimit::UNLIMITED,
    };
    let verdict = |cost: &QueryCost| match cost.memory.value {
        0..1_073_741_824 => Verdict::Within,
        _ => Verdict::Exceeded,
    };
    for (query, text, seen, is_small) in [
        (r#"count_values("v", up)"#, "up", &[0, 0, 0, 2][..], true),
        (r#"sum(count_values("v", round(up * 2, 10)))"#, "round(up * 2, 10)", &[0, 15, 20, 66], true),
        // A counter: each instant has its own.
        (r#"count_values("v", up)"#, "up", &[2_000, 0, 0, 0], false),
    ] {
        let shape = shape(query, six_hours(30));
        let mut estimator = Estimator::new(subject(&shape, &model), vec![at_most(2_000)], limits, verdict);
        let Need::Values(needs) = estimator.need() else { panic!("{query}: values first") };
        assert_eq!((&*needs[0].text, needs[0].series, needs[0].steps), (text, 2_000, 721));
        assert_eq!(needs[0].instants, [NOW - 6 * HOUR, NOW - 4 * HOUR, NOW - 2 * HOUR, NOW]);
        estimator.supply_values(&needs[0], seen);
        let done = loop {
            match estimator.need() {
                Need::Done(done) => break done,
                Need::History | Need::Probes(_) | Need::Types(_) => {}
                Need::Values(_) => panic!("asked twice"),
            }
        };
        let mib = done.cost.memory.value >> 20;
        assert_eq!(mib <= 120, is_small, "{query}: {mib} MiB");
    }
    // The table's guess will do: it says how much asking takes.
    let guess = SeriesKnowledge::new(Estimate::new(2_000, Confidence::Assumed), Source::LabelTable);
    let graph = shape(r#"count_values("v", up)"#, six_hours(30));
    let mut estimator = Estimator::new(subject(&graph, &model), vec![guess], limits, verdict);
    assert!(matches!(estimator.need(), Need::Values(_)));
    // An expression that depends on the time, or is moved in it, is not asked about.
    for query in [
        r#"count_values("v", timestamp(up))"#,
        r#"count_values("v", up offset 1h)"#,
        r#"count_values("v", up + time())"#,
        r#"count_values("v", max_over_time(up[1h]))"#,
        r#"max_over_time(count_values("v", up)[1h:1m])"#,
    ] {
        let shape = shape(query, six_hours(30));
        let mut estimator = Estimator::new(subject(&shape, &model), vec![at_most(2_000)], limits, verdict);
        assert!(!matches!(estimator.need(), Need::Values(_)), "{query}");
    }
}

#[test]
fn values_that_were_not_seen_are_estimated() {
    for (seen, steps, most) in [
        (&[0, 0, 0, 2][..], 721, 2..=2),
        // 10,000 values, of which each instant shows 1,813: nothing says that they end there.
        (&[3_980, 1_322, 195, 11], 594, 590_000..=600_000),
        // 500 series with new values at each step, and 500 that change once: 74,500 series, 331 MiB for 32.
        (&[2_000, 1_000, 0, 0], 149, 74_500..=76_000),
        (&[40, 0, 0, 0], 594, 5_900..=6_000),
        (&[], 594, 0..=0),
    ] {
        let different = different(seen, steps);
        assert!(most.contains(&different), "{seen:?}: {different}");
    }
}

/// A reader took the table's 21,259 for the number of series, where a count had stopped over the limit of 10,000.
#[test]
fn a_count_that_refuses_is_the_number_that_is_shown() {
    let run = run("sum(foo)", vec![at_most(21_259)], limits(10_000), None, |_, limit| truth(50_000, limit));
    assert_eq!(run.done.cost.series, Estimate::new(10_001, Confidence::AtLeast));
    assert_eq!(run.done.selectors[0].source, Source::Probe);
}

/// 1,000 series of 10,000 values: four instants repeat few of them, which says nothing of the next row, and 64 nearly all. The query
/// was priced at 40 times the truth and refused.
#[test]
fn values_that_come_again_are_looked_at_more_often() {
    let (shape, model) = (shape(r#"count_values("v", up)"#, six_hours(60)), Model::default());
    let limits = CostLimits {
        refuse: CostLimit { memory: 1 << 30, ..CostLimit::UNLIMITED },
        near: CostLimit::UNLIMITED,
    };
    let verdict = |cost: &QueryCost| match cost.memory.value {
        0..402_653_184 => Verdict::Within,
        _ => Verdict::Exceeded,
    };
    let mut estimator = Estimator::new(subject(&shape, &model), vec![at_most(1_000)], limits, verdict);
    let mut random = fastrand::Rng::with_seed(1);
    let (mut looks, mut values) = (Vec::new(), 0);
    while let Need::Values(needs) = estimator.need() {
        let instants = needs[0].instants.len();
        let mut times = vec![0_usize; 10_000];
        for _ in 0..instants {
            let now: std::collections::HashSet<usize> = (0..1_000).map(|_| random.usize(0..10_000)).collect();
            for value in now {
                times[value] += 1;
            }
        }
        let mut seen = vec![0; instants];
        times.into_iter().filter(|n| *n > 0).for_each(|n| seen[n - 1] += 1);
        values = different(&seen, needs[0].steps);
        estimator.supply_values(&needs[0], &seen);
        looks.push(instants);
    }
    assert_eq!(looks, [4, 16, 64]);
    assert!((10_000..11_500).contains(&values), "{values}");
}

/// VictoriaMetrics does not say how long its labels are: a `label_join` of values of 2,000 bytes was let in at a twentieth of its
/// memory, since none of them was asked about.
#[test]
fn labels_that_are_copied_are_asked_for_where_nobody_says_how_long_they_are() {
    let model = model(Kind::VictoriaMetrics);
    let query = format!(r#"label_join(longl, "a", ""{})"#, r#", "sql""#.repeat(20));
    let limits = CostLimits {
        refuse: CostLimit { memory: 1 << 30, ..CostLimit::UNLIMITED },
        near: CostLimit { memory: 1 << 30, ..CostLimit::UNLIMITED },
    };
    let long = LabelSize { set: 2_010, longest: 2_000 };
    for (query, asked) in
        [(&*query, true), ("longl * 2", false), (r#"label_replace(few, "a", "$1", "b", "(.*)")"#, false)]
    {
        let shape = shape(query, EvalTimes::instant(NOW));
        let series = if asked { 10_000 } else { 1_000 };
        let judge = judge(limits, 100);
        let mut estimator = Estimator::new(subject(&shape, &model), vec![at_most(series)], limits, judge);
        let mut probed = false;
        let done = loop {
            match estimator.need() {
                Need::Done(done) => break done,
                Need::Probes(probes) => {
                    probed = true;
                    let series = Estimate::new(series, Confidence::UpperBound);
                    let count = Count::Series { series, truncated: false, labels: Some(long) };
                    for probe in probes {
                        estimator.supply_count(probe, count);
                    }
                }
                Need::History | Need::Types(_) | Need::Values(_) => {}
            }
        };
        assert_eq!(probed, asked, "{query}");
        assert!(!asked || done.cost.memory.value > 400_000_000, "{}", done.cost.memory.value);
    }
}
