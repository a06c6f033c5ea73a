//! One rule for each function.

use super::{
    Interpreter, Traversal,
    engine::Order,
    text,
    value::{Load, MadeLabels, Operands, Priced, Value, sum, times},
};
use crate::promql::{
    ast::{NodeId, ValueType},
    function::FunctionId,
    shape::NodeShape,
};

/// Copies of a string that is being made: the buffer that grew by append, the string, and the key under which the label
/// set is looked up. Measured: one string of 500 MB takes Prometheus 2.42 past 3 GiB.
pub(super) const STRING_COPIES: u64 = 4;
/// A histogram of floats has this many buckets at least: an upper bound and `+Inf`.
const CLASSIC_BUCKETS_LEAST: u64 = 2;
/// A sample of a window that is copied to be sorted, in a slice that grew by append.
const SORTED_POINT_BYTES: u64 = 96;
/// Most bytes of such copies that a collection finds. Measured on Prometheus 2.42: 14 MiB over 4 of
/// `quantile by () (0.9, quantile_over_time(0.9, m[1h]))`, 100 series on 1,441 steps.
const GARBAGE_BYTES_MAX: u64 = 8 << 20;
/// A label's values differ in length by this much, and by a factor of two, bytes.
const SHORT_BYTES: u64 = 16;
/// Bytes of a label of an info metric that `info()` joins, and of its working memory for each series (`info.go`).
const INFO_BYTES: u64 = 600;

impl Interpreter<'_> {
    #[expect(clippy::too_many_lines, reason = "one line for each function, so that none is forgotten")]
    pub(super) fn call(&self, id: FunctionId, args: &[NodeId], at: NodeShape) -> Priced {
        use FunctionId as F;
        match id {
            F::Time | F::Pi | F::Start | F::End | F::Step | F::Range => {
                self.one(Traversal::Windows, args, at.steps)
            }
            F::MaxOf | F::MinOf | F::Vector => self.one(Traversal::EachSeries, args, at.steps),
            F::Scalar => self.one(Traversal::All, args, at.steps),
            F::Absent => self.absent(Traversal::EachSeries, args, at.steps),
            F::AbsentOverTime => self.absent_over_time(args, at.steps),
            F::Abs
            | F::Acos
            | F::Acosh
            | F::Asin
            | F::Asinh
            | F::Atan
            | F::Atanh
            | F::Ceil
            | F::Clamp
            | F::ClampMax
            | F::ClampMin
            | F::Cos
            | F::Cosh
            | F::Deg
            | F::Exp
            | F::Floor
            | F::Ln
            | F::Log10
            | F::Log2
            | F::Rad
            | F::Round
            | F::Sin
            | F::Sinh
            | F::Sqrt
            | F::Tan
            | F::Tanh
            | F::Year
            | F::HistogramAvg
            | F::HistogramCount
            | F::HistogramStddev
            | F::HistogramStdvar
            | F::HistogramSum => self.each(args, at.steps, u64::MAX),
            F::StartTimestamp | F::Timestamp => self.each_apart(args, at.steps, u64::MAX),
            F::Sgn => self.each(args, at.steps, 4),
            F::DayOfYear => self.each(args, at.steps, 367),
            F::Minute => self.each(args, at.steps, 61),
            F::DayOfMonth | F::DayOfWeek | F::DaysInMonth | F::Hour | F::Month => {
                self.each(args, at.steps, 32)
            }
            F::AvgOverTime
            | F::Delta
            | F::FirstOverTime
            | F::Idelta
            | F::Increase
            | F::Irate
            | F::LastOverTime
            | F::Rate
            | F::SumOverTime => self.windows(args, at.steps, true),
            F::MadOverTime | F::QuantileOverTime => self.sorted_windows(args, at.steps),
            F::PresentOverTime => self.counted(args, at.steps, 1),
            F::Changes | F::CountOverTime | F::Resets => self.counted(args, at.steps, u64::MAX),
            F::Deriv
            | F::DoubleExponentialSmoothing
            | F::HoltWinters
            | F::MaxOverTime
            | F::MinOverTime
            | F::PredictLinear
            | F::StddevOverTime
            | F::StdvarOverTime
            | F::TsOfFirstOverTime
            | F::TsOfLastOverTime
            | F::TsOfMaxOverTime
            | F::TsOfMinOverTime => self.windows(args, at.steps, false),
            F::HistogramFraction | F::HistogramQuantile => self.quantiles(args, at.steps, 1),
            F::HistogramQuantiles => {
                self.quantiles(args, at.steps, args.len().saturating_sub(2).max(1) as u64)
            }
            F::Sort | F::SortDesc | F::SortByLabel | F::SortByLabelDesc => self.sort(args, at.steps),
            F::LabelReplace => self.label_replace(args, at.steps),
            F::LabelJoin => self.label_join(args, at.steps),
            F::Info => self.info(args, at),
            F::Unknown => self.unknown("", args, at.steps),
        }
    }

    /// One series without labels.
    fn one(&self, traversal: Traversal, args: &[NodeId], steps: u64) -> Priced {
        self.produce(traversal, self.operands(args, traversal), Value::one(steps), 0)
    }

    /// One series with the labels of the selector's equality matchers: its text bounds them.
    fn absent(&self, traversal: Traversal, args: &[NodeId], steps: u64) -> Priced {
        let labels = args.first().map_or(0, |arg| self.text_bytes(*arg));
        let value =
            Value { labels, longest: labels, fresh: true, distinct: 1, domain: 1, ..Value::one(steps) };
        self.produce(traversal, self.operands(args, traversal), value, 0)
    }

    /// Prometheus makes the whole result of the range function before it looks for gaps, with a set of all steps.
    fn absent_over_time(&self, args: &[NodeId], steps: u64) -> Priced {
        let all = self.windows(args, steps, false);
        let absent = self.absent(Traversal::Windows, args, steps);
        // VictoriaMetrics makes all rows as well.
        let all = if self.engine.order == Order::InPlace { self.materialised(all) } else { all };
        let set = Load::bytes(times(40, steps));
        Priced { peak: absent.peak.max(all.peak.plus(set)), ..absent }
    }

    fn text_bytes(&self, id: NodeId) -> u64 {
        let span = self.ast.nodes.get(id.0 as usize).map(|node| node.span).unwrap_or_default();
        u64::from(span.end.saturating_sub(span.start))
    }

    /// A float for each point of the first argument (or of the step, where there is none), of at most this number of
    /// values, and no more than the argument has, where all others are constant.
    fn each(&self, args: &[NodeId], steps: u64, values: u64) -> Priced {
        let is_constant = args.iter().skip(1).all(|arg| self.shape_of(*arg).number.is_some());
        let domain = args.first().filter(|_| is_constant).map_or(u64::MAX, |arg| self.value(*arg).domain);
        self.each_apart(args, steps, values.min(domain))
    }

    /// The same, for any values of the argument.
    fn each_apart(&self, args: &[NodeId], steps: u64, values: u64) -> Priced {
        let value = args.first().map_or(Value::one(steps), |arg| self.value(*arg).floats(steps));
        let value = Value { distinct: value.distinct.min(values), domain: values, ..value };
        self.produce(Traversal::EachSeries, self.operands(args, Traversal::EachSeries), value, 0)
    }

    /// The same where each window is copied to be sorted: while the collector works, the copies stay.
    fn sorted_windows(&self, args: &[NodeId], steps: u64) -> Priced {
        let of = self.windows(args, steps, false);
        if self.engine.order != Order::Eager {
            return of;
        }
        let ranged = args.iter().find(|arg| self.ty(**arg) == ValueType::Matrix);
        let points = ranged.map_or(0, |arg| match self.shape_of(self.unwrapped(*arg)).window {
            0 => self.value(*arg).points,
            window => window,
        });
        let copies = times(times(of.value.series, steps), times(points, SORTED_POINT_BYTES));
        Priced { peak: of.peak.plus(Load::bytes(copies.min(GARBAGE_BYTES_MAX))), ..of }
    }

    /// The same of windows, whose values are numbers of their points.
    fn counted(&self, args: &[NodeId], steps: u64, values: u64) -> Priced {
        let points = args.first().map_or(0, |arg| self.value(*arg).points);
        let domain = values.min(points.saturating_add(1));
        let of = self.windows(args, steps, false);
        Priced { value: Value { distinct: of.value.distinct.min(domain), domain, ..of.value }, ..of }
    }

    /// A point for each window of the argument that has windows.
    fn windows(&self, args: &[NodeId], steps: u64, keeps_histograms: bool) -> Priced {
        let ranged = args.iter().find(|arg| self.ty(**arg) == ValueType::Matrix);
        let Value { buckets, .. } = ranged.map_or(Value::default(), |arg| self.value(*arg));
        let floats = ranged.map_or(Value::one(steps), |arg| Value { distinct: steps, ..self.value(*arg) });
        let floats = Value { present: u64::MAX, ..floats.floats(steps) };
        let value = if keeps_histograms { Value { buckets, objects: steps, ..floats } } else { floats };
        self.produce(Traversal::Windows, self.operands(args, Traversal::Windows), value, 0)
    }

    /// Series that differ in their bucket alone become one; a native histogram already is.
    fn quantiles(&self, args: &[NodeId], steps: u64, quantiles: u64) -> Priced {
        let vector =
            args.iter().map(|arg| self.value(*arg)).max_by_key(|value| (value.buckets, value.series));
        let vector = vector.unwrap_or_default();
        let groups = match vector.buckets {
            0 => vector.series.div_ceil(CLASSIC_BUCKETS_LEAST),
            _ => vector.series,
        };
        let value = Value {
            series: times(groups, quantiles),
            present: times(vector.all_points(), quantiles),
            distinct: steps,
            labels: vector.labels.saturating_add(self.engine.longest),
            made: if quantiles > 1 { MadeLabels::Any } else { vector.made },
            ..vector.floats(steps)
        };
        // Buckets of 16 bytes, and label sets as keys of groups.
        let work = times(32, vector.series)
            .saturating_add(times(groups, times(2, vector.labels).saturating_add(50)));
        self.produce(Traversal::All, self.operands(args, Traversal::All), value, work)
    }

    fn sort(&self, args: &[NodeId], steps: u64) -> Priced {
        let value = args.first().map_or(Value::default(), |arg| self.value(*arg));
        self.produce(Traversal::All, self.operands(args, Traversal::All), Value { points: steps, ..value }, 0)
    }

    /// `label_replace(v, dst, replacement, src, regex)`
    fn label_replace(&self, args: &[NodeId], steps: u64) -> Priced {
        let &[vector, dst, replacement, source, ..] = args else { return Priced::default() };
        let longest = self.longest(&self.value(vector), self.string(source));
        let made = text::expanded(self.string(replacement), longest);
        self.relabelled(vector, self.string(dst).len() as u64, made, steps)
    }

    /// `label_join(v, dst, separator, src…)`
    fn label_join(&self, args: &[NodeId], steps: u64) -> Priced {
        let &[vector, dst, separator, ref sources @ ..] = args else { return Priced::default() };
        let separators = times(self.string(separator).len() as u64, (sources.len() as u64).saturating_sub(1));
        let of = self.value(vector);
        let values = sources.iter().map(|source| self.longest(&of, self.string(*source)));
        let made = values.fold(separators, u64::saturating_add);
        self.relabelled(vector, self.string(dst).len() as u64, made, steps)
    }

    /// Bytes of a label's longest value: some are twice as long as the average.
    fn longest(&self, of: &Value, label: &str) -> u64 {
        match self.table.and_then(|table| table.value_bytes(label)) {
            Some(mean) if of.made == MadeLabels::None => {
                of.longest.min(times(2, mean).saturating_add(SHORT_BYTES))
            }
            _ => of.longest,
        }
    }

    /// The same series with one more label, or a longer one.
    fn relabelled(&self, vector: NodeId, name: u64, made: u64, steps: u64) -> Priced {
        let source = self.value(vector);
        let value = Value {
            points: steps,
            labels: sum([source.labels, name, made, 2]),
            longest: source.longest.max(made),
            fresh: true,
            made: MadeLabels::Any,
            ..source
        };
        let operands = self.operands(&[vector], Traversal::EachSeries);
        self.produce(Traversal::EachSeries, operands, value, times(STRING_COPIES, made))
    }

    /// `info(v, data)`: each series of `v` with the labels of its info metric, which may change with time.
    fn info(&self, args: &[NodeId], at: NodeShape) -> Priced {
        let base = args.first().map_or(Value::default(), |arg| self.value(*arg));
        let read = self.leaf(at).map_or(Priced::default(), |leaf| self.rows_of(leaf, at.steps));
        let operands = args
            .first()
            .map_or(Operands::default(), |arg| Operands::default().then(&self.materialised(self.get(*arg))));
        let operands = operands.then(&self.materialised(read));
        let value = Value {
            labels: base.labels.saturating_add(read.value.labels),
            longest: base.longest.max(read.value.longest),
            fresh: true,
            points: at.steps,
            ..base
        };
        let work = times(base.series, base.labels.saturating_add(INFO_BYTES));
        self.produce(Traversal::All, operands, value, work)
    }
}
