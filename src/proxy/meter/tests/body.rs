//! Poll by poll: the frames that go on, when the body ends, and that its end is reported exactly once.

use std::{
    collections::VecDeque,
    num::NonZeroU64,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::{
    super::{Actual, AnswerMeter, BodyError, MeterLimits, MeteredBody, Outcome},
    answers,
};
use crate::limit::LimitName;

enum Step {
    Data(Bytes),
    Trailers,
    Wait,
    Fail,
}

/// A backend's body that follows a script; it notes its own drop.
struct Script {
    steps: VecDeque<Step>,
    /// Announces its length, and its end with its last byte, as a body with `Content-Length` does.
    sized: bool,
    ended: bool,
    log: Log,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Event>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    UpstreamDropped,
    Ended(Outcome, Actual),
}

impl Log {
    fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    /// The one end, reported after the upstream was dropped.
    fn end(&self) -> (Outcome, Actual) {
        match self.events()[..] {
            [Event::UpstreamDropped, Event::Ended(outcome, actual)] => (outcome, actual),
            ref other => panic!("{other:?}"),
        }
    }
}

impl Script {
    fn left(&self) -> u64 {
        self.steps.iter().map(|step| if let Step::Data(data) = step { data.len() as u64 } else { 0 }).sum()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.log.0.lock().unwrap().push(Event::UpstreamDropped);
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.steps.pop_front() {
            None => {
                assert!(!std::mem::replace(&mut self.ended, true), "polled after its end");
                Poll::Ready(None)
            }
            Some(Step::Data(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Step::Trailers) => Poll::Ready(Some(Ok(Frame::trailers(HeaderMap::new())))),
            Some(Step::Fail) => Poll::Ready(Some(Err("reset by peer"))),
            Some(Step::Wait) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.sized && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.sized { SizeHint::with_exact(self.left()) } else { SizeHint::default() }
    }
}

#[derive(Clone, Copy, Default)]
struct Setup {
    limits: MeterLimits,
    sized: bool,
    gzip: bool,
}

fn limits(bytes: u64, series: u64, points: u64) -> MeterLimits {
    let [bytes, series, points] = [bytes, series, points].map(NonZeroU64::new);
    MeterLimits { bytes, series, points }
}

fn metered(setup: Setup, steps: impl IntoIterator<Item = Step>) -> (Box<MeteredBody<Script>>, Log) {
    let log = Log::default();
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json; charset=utf-8".parse().unwrap());
    if setup.gzip {
        headers.insert("content-encoding", "gzip".parse().unwrap());
    }
    let told = log.clone();
    let on_end = Box::new(move |outcome, actual| told.0.lock().unwrap().push(Event::Ended(outcome, actual)));
    let script =
        Script { steps: steps.into_iter().collect(), sized: setup.sized, ended: false, log: log.clone() };
    (AnswerMeter::new(setup.limits, on_end).wrap(&headers, script), log)
}

fn data(text: &str) -> Step {
    Step::Data(Bytes::copy_from_slice(text.as_bytes()))
}

fn chunks(bytes: &[u8], size: usize) -> Vec<Step> {
    bytes.chunks(size).map(|chunk| Step::Data(Bytes::copy_from_slice(chunk))).collect()
}

type Polled = Poll<Option<Result<Frame<Bytes>, BodyError<&'static str>>>>;

fn poll(body: &mut MeteredBody<Script>) -> Polled {
    Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
}

/// Everything up to the end or the error.
fn drain(body: &mut MeteredBody<Script>) -> (Vec<u8>, Option<BodyError<&'static str>>) {
    let mut out = Vec::new();
    loop {
        match poll(body) {
            Poll::Pending => {}
            Poll::Ready(None) => return (out, None),
            Poll::Ready(Some(Err(error))) => return (out, Some(error)),
            Poll::Ready(Some(Ok(frame))) => {
                out.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            }
        }
    }
}

fn peek(body: Box<MeteredBody<Script>>) -> Poll<Result<Box<MeteredBody<Script>>, BodyError<&'static str>>> {
    pin!(body.peek()).poll(&mut Context::from_waker(Waker::noop()))
}

fn peeked(body: Box<MeteredBody<Script>>) -> Result<Box<MeteredBody<Script>>, BodyError<&'static str>> {
    let mut priming = pin!(body.peek());
    loop {
        if let Poll::Ready(done) = priming.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
    }
}

#[test]
fn a_whole_answer_passes_unchanged_and_ends_complete() {
    let text = answers::matrix(30, 40);
    let zipped = answers::gzip(text.as_bytes());
    for (sized, gzip) in [(false, false), (true, false), (false, true), (true, true)] {
        let sent = if gzip { &zipped } else { text.as_bytes() };
        let setup = Setup { sized, gzip, limits: limits(text.len() as u64, 30, 1200) };
        for prime_first in [false, true] {
            let (mut body, log) = metered(setup, chunks(sent, 100));
            if prime_first {
                body = peeked(body).unwrap();
                let (bytes_wire, bytes_decoded) = (sent.len() as u64, text.len() as u64);
                let all = Actual {
                    bytes_wire,
                    bytes_decoded,
                    series: 30,
                    samples: 1200,
                    items: 0,
                    series_fetched: None,
                    counted: true,
                };
                assert_eq!(body.total_if_complete(), Some(all), "known before the first byte");
            }
            if sized {
                assert_eq!(body.size_hint().exact(), Some(sent.len() as u64));
            }
            let (received, error) = drain(&mut body);
            assert!(error.is_none(), "{error:?}");
            assert_eq!(received, sent, "bytes untouched");
            let (outcome, actual) = log.end();
            assert_eq!(outcome, Outcome::Complete);
            let (bytes_wire, bytes_decoded) = (sent.len() as u64, text.len() as u64);
            assert_eq!(
                actual,
                Actual {
                    bytes_wire,
                    bytes_decoded,
                    series: 30,
                    samples: 1200,
                    items: 0,
                    series_fetched: None,
                    counted: true
                }
            );
            drop(body);
            log.end();
        }
    }
}

#[test]
fn a_sized_answer_is_complete_with_its_last_byte() {
    let (mut body, log) = metered(Setup { sized: true, ..Setup::default() }, [data("{"), data("}")]);
    assert!(poll(&mut body).is_ready());
    assert!(log.events().is_empty());
    assert!(poll(&mut body).is_ready());
    assert_eq!(log.end().0, Outcome::Complete);
    assert!(body.is_end_stream());
}

#[test]
fn an_empty_answer_is_complete_though_nobody_polls_it() {
    let (body, log) = metered(Setup { sized: true, ..Setup::default() }, []);
    assert!(body.is_end_stream());
    drop(body);
    assert_eq!(log.end(), (Outcome::Complete, Actual::default()));
    let (body, log) = metered(Setup::default(), []);
    drop(peeked(body).unwrap());
    assert_eq!(log.end().0, Outcome::Complete);
    let (body, log) = metered(Setup::default(), []);
    drop(body);
    assert_eq!(log.end().0, Outcome::Dropped, "its length was unknown and its end not asked for");
}

#[test]
fn trailers_pass() {
    let (mut body, log) = metered(Setup::default(), [data("{}"), Step::Trailers]);
    assert!(matches!(poll(&mut body), Poll::Ready(Some(Ok(frame))) if frame.is_data()));
    assert!(matches!(poll(&mut body), Poll::Ready(Some(Ok(frame))) if frame.is_trailers()));
    assert!(matches!(poll(&mut body), Poll::Ready(None)));
    assert_eq!(log.end().0, Outcome::Complete);
}

#[test]
fn a_failing_backend_ends_failed() {
    let (mut body, log) = metered(Setup::default(), [data("{\"data\":"), Step::Fail, data("never")]);
    let (received, error) = drain(&mut body);
    assert_eq!(received, b"{\"data\":");
    assert!(matches!(error, Some(BodyError::Upstream("reset by peer"))));
    assert!(matches!(poll(&mut body), Poll::Ready(None)), "nothing after an error");
    drop(body);
    let (outcome, actual) = log.end();
    assert_eq!((outcome, actual.bytes_wire, actual.counted), (Outcome::Failed, 8, false));
}

#[test]
fn a_client_that_leaves_ends_dropped_wherever_it_leaves() {
    let text = answers::matrix(3, 3);
    let frames = text.len().div_ceil(10);
    for taken in 0..frames {
        let (mut body, log) = metered(Setup { sized: true, ..Setup::default() }, chunks(text.as_bytes(), 10));
        for _ in 0..taken {
            assert!(poll(&mut body).is_ready());
        }
        drop(body);
        let (outcome, actual) = log.end();
        assert_eq!((outcome, actual.counted), (Outcome::Dropped, false), "after {taken}");
        assert_eq!(actual.bytes_wire, 10 * taken as u64);
    }
}

#[test]
fn each_limit_cuts_off_exactly_once_and_hands_on_nothing_over_it() {
    let text = answers::matrix(20, 10);
    let cases = [
        (limits(400, 0, 0), LimitName::MaxResponse, 400),
        (limits(0, 7, 0), LimitName::MaxSeries, 7),
        (limits(0, 0, 33), LimitName::MaxPoints, 33),
    ];
    for (limits, limit, max) in cases {
        for gzip in [false, true] {
            let zipped = answers::gzip(text.as_bytes());
            let sent = if gzip { &zipped } else { text.as_bytes() };
            let (mut body, log) = metered(Setup { limits, gzip, ..Setup::default() }, chunks(sent, 10));
            let (received, error) = drain(&mut body);
            let Some(BodyError::CutOff(cut)) = error else { panic!("{limit:?}: {error:?}") };
            assert_eq!((cut.limit, cut.max), (limit, max));
            assert!(cut.observed > max);
            assert!(received.len() < sent.len() && sent.starts_with(&received));
            let mut within = super::super::Scanner::new();
            if !gzip {
                within.feed(&received);
                let counts = within.counts();
                assert!(counts.series <= 7 || limit != LimitName::MaxSeries, "{counts:?}");
                assert!(counts.samples <= 33 || limit != LimitName::MaxPoints, "{counts:?}");
                assert!(received.len() <= 400 || limit != LimitName::MaxResponse);
            }
            assert!(matches!(poll(&mut body), Poll::Ready(None)));
            assert!(body.is_end_stream());
            drop(body);
            let (outcome, actual) = log.end();
            assert_eq!((outcome, actual.counted), (Outcome::CutOff(limit), false));
        }
    }
}

#[test]
fn a_limit_that_is_just_met_is_kept() {
    let text = answers::matrix(4, 5);
    let (mut body, log) = metered(
        Setup { limits: limits(text.len() as u64, 4, 20), ..Setup::default() },
        chunks(text.as_bytes(), 7),
    );
    assert!(drain(&mut body).1.is_none());
    assert_eq!(log.end().0, Outcome::Complete);
}

#[test]
fn an_announced_length_over_the_limit_is_refused_before_the_first_frame() {
    let setup = Setup { limits: limits(9, 0, 0), sized: true, gzip: false };
    let (body, log) = metered(setup, [Step::Wait, data("0123456789")]);
    let Poll::Ready(Err(BodyError::CutOff(cut))) = peek(body) else { panic!() };
    assert_eq!((cut.limit, cut.observed, cut.max), (LimitName::MaxResponse, 10, 9));
    assert_eq!(log.end().0, Outcome::CutOff(LimitName::MaxResponse));
}

#[test]
fn priming_refuses_what_the_first_frames_show_and_keeps_what_it_read() {
    let text = answers::matrix(20, 10);
    let setup = Setup { limits: limits(0, 7, 0), ..Setup::default() };
    let (body, log) = metered(setup, chunks(text.as_bytes(), 100));
    assert!(matches!(peeked(body), Err(BodyError::CutOff(cut)) if cut.limit == LimitName::MaxSeries));
    assert_eq!(log.end().0, Outcome::CutOff(LimitName::MaxSeries));

    let (body, log) = metered(Setup::default(), [Step::Fail]);
    assert!(matches!(peeked(body), Err(BodyError::Upstream("reset by peer"))));
    assert_eq!(log.end().0, Outcome::Failed);

    let (body, log) = metered(Setup::default(), [Step::Wait, data("{"), Step::Wait, data("}")]);
    let mut body = peeked(body).unwrap();
    assert!(log.events().is_empty());
    assert_eq!(drain(&mut body).0, b"{}");
    assert_eq!(log.end().0, Outcome::Complete);
}

#[test]
fn priming_waits_for_the_first_frame_only_and_holds_a_bounded_part() {
    let (body, log) = metered(Setup::default(), [Step::Wait]);
    assert!(peek(body).is_pending());
    assert_eq!(log.end().0, Outcome::Dropped, "given up while it waited");

    let (body, _) = metered(Setup::default(), [data("{"), Step::Wait, data("}")]);
    assert!(peek(body).is_ready());

    let big = " ".repeat(10_000);
    let (body, log) = metered(Setup { sized: true, ..Setup::default() }, (0..100).map(|_| data(&big)));
    let body = peeked(body).unwrap();
    assert_eq!(body.size_hint().exact(), Some(1_000_000), "held or not, it is still to come");
    drop(body);
    assert_eq!(log.end().1.bytes_wire, 70_000);
}

#[test]
fn a_broken_gzip_answer_passes_unchanged_and_is_not_learned_from() {
    let mut zipped = answers::gzip(answers::matrix(30, 30).as_bytes());
    let truncated = zipped[..zipped.len() / 2].to_vec();
    let middle = zipped.len() / 2;
    zipped[middle] ^= 0xff;
    for sent in [zipped, truncated, b"not gzip at all".to_vec()] {
        let (mut body, log) = metered(Setup { gzip: true, ..Setup::default() }, chunks(&sent, 50));
        let (received, error) = drain(&mut body);
        assert!(error.is_none());
        assert_eq!(received, sent);
        let (outcome, actual) = log.end();
        assert_eq!(
            (outcome, actual.counted, actual.bytes_wire),
            (Outcome::Complete, false, sent.len() as u64)
        );
    }
}

#[test]
fn a_bomb_is_stopped_by_the_limit_in_turns() {
    let bomb = answers::gzip(&vec![b' '; 20 << 20]);
    let max = 1 << 20;
    let setup = Setup { limits: limits(max, 0, 0), gzip: true, sized: false };
    let (mut body, log) = metered(setup, [Step::Data(bomb.into())]);
    assert!(poll(&mut body).is_pending(), "yields before the limit is reached");
    let (received, error) = drain(&mut body);
    assert!(received.is_empty());
    assert!(matches!(error, Some(BodyError::CutOff(cut)) if cut.limit == LimitName::MaxResponse));
    assert!(log.end().1.bytes_decoded < 2 * max);
}

#[test]
fn what_is_not_json_is_measured_but_not_counted() {
    let log = Log::default();
    let told = log.clone();
    let on_end = Box::new(move |outcome, actual| told.0.lock().unwrap().push(Event::Ended(outcome, actual)));
    let script = Script { steps: [data("{}")].into(), sized: true, ended: false, log: log.clone() };
    let mut body = AnswerMeter::new(MeterLimits::default(), on_end).wrap(&HeaderMap::new(), script);
    drain(&mut body);
    let actual = Actual { bytes_wire: 2, bytes_decoded: 2, ..Actual::default() };
    assert_eq!(log.end(), (Outcome::Complete, actual));
}

#[test]
fn a_meter_never_wrapped_still_ends() {
    let log = Log::default();
    let told = log.clone();
    let on_end = Box::new(move |outcome, actual| told.0.lock().unwrap().push(Event::Ended(outcome, actual)));
    drop(AnswerMeter::new(MeterLimits::default(), on_end));
    assert_eq!(log.events(), [Event::Ended(Outcome::Dropped, Actual::default())]);
}

#[test]
fn what_is_not_all_there_is_not_known() {
    let body = answers::matrix(1, 1);
    for last in [Step::Wait, Step::Fail] {
        let (body, _log) = metered(Setup::default(), [data(&body), Step::Wait, last]);
        assert_eq!(peeked(body).unwrap().total_if_complete(), None);
    }
}

#[test]
fn a_cut_off_explains_itself() {
    let came = Actual::default();
    let text = |limit| super::super::CutOff { limit, observed: 60_000, max: 50_000, came }.to_string();
    assert_eq!(
        text(LimitName::MaxSeries),
        "the answer holds at least 60,000 series, the limit is 50,000; aggregate, narrow the selectors or shorten \
         the range (weir-max-series, err-mimir-max-series-per-query)"
    );
    assert!(
        text(LimitName::MaxResponse)
            .starts_with("the answer is at least 58.6KiB long, the limit is 48.8KiB; ")
    );
    assert!(
        text(LimitName::MaxPoints)
            .ends_with("(weir-max-points, err-mimir-max-estimated-memory-consumption-per-query)")
    );
}
