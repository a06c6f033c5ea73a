//! How each function is evaluated.

use super::{
    call::Call, date, date::DateFn, each::Each, extreme::Extreme, math, over_time, range::Over, rate,
    rate::Rate, totals::Totals,
};
use crate::{
    node::engine::{
        error::EvalError,
        eval::{Eval, Sink},
        selector::Take,
    },
    promql::function::FunctionId,
};

/// A function that needs all of its input at once, or has a way of its own.
pub(super) type Whole = fn(&Eval<'_>, &Call<'_>, Sink<'_>) -> Result<(), EvalError>;

/// How a function is evaluated.
pub(super) enum Kind {
    /// It returns a scalar.
    Scalar,
    /// One series at a time, one value at a time.
    Each(Each),
    /// One series at a time, one window at a time.
    Range(Over),
    /// In a way of its own.
    Whole(Whole),
}

fn math(f: math::FloatFn) -> Kind {
    Kind::Each(Each::Math(f))
}

fn date(f: DateFn) -> Kind {
    Kind::Each(Each::Date(f))
}

fn window(f: over_time::RangeFn) -> Kind {
    Kind::Range(Over::Window(f))
}

/// How a function is evaluated.
#[allow(clippy::too_many_lines, reason = "a table: one line for each function")]
pub(super) fn of(func: FunctionId) -> Kind {
    use FunctionId as F;
    match func {
        F::End | F::MaxOf | F::MinOf | F::Pi | F::Range | F::Scalar | F::Start | F::Step | F::Time => {
            Kind::Scalar
        }

        F::Abs => math(f64::abs),
        F::Acos => math(f64::acos),
        F::Acosh => math(f64::acosh),
        F::Asin => math(f64::asin),
        F::Asinh => math(f64::asinh),
        F::Atan => math(f64::atan),
        F::Atanh => math(f64::atanh),
        F::Ceil => math(f64::ceil),
        F::Cos => math(f64::cos),
        F::Cosh => math(f64::cosh),
        F::Deg => math(math::degrees),
        F::Exp => math(f64::exp),
        F::Floor => math(f64::floor),
        F::Ln => math(f64::ln),
        F::Log10 => math(f64::log10),
        F::Log2 => math(f64::log2),
        F::Rad => math(math::radians),
        F::Sgn => math(math::sign),
        F::Sin => math(f64::sin),
        F::Sinh => math(f64::sinh),
        F::Sqrt => math(f64::sqrt),
        F::Tan => math(f64::tan),
        F::Tanh => math(f64::tanh),

        F::DayOfMonth => date(|c| c.day),
        F::DayOfWeek => date(|c| c.weekday),
        F::DayOfYear => date(|c| c.day_of_year),
        F::DaysInMonth => date(date::days_in_month),
        F::Hour => date(|c| c.hour),
        F::Minute => date(|c| c.minute),
        F::Month => date(|c| c.month),
        F::Year => date(|c| c.year),

        F::Clamp => Kind::Each(Each::Clamp { low: Some(1), high: Some(2) }),
        F::ClampMax => Kind::Each(Each::Clamp { low: None, high: Some(1) }),
        F::ClampMin => Kind::Each(Each::Clamp { low: Some(1), high: None }),
        F::Round => Kind::Each(Each::Round),
        F::Timestamp => Kind::Each(Each::Timestamp(Take::Time)),
        F::StartTimestamp => Kind::Each(Each::Timestamp(Take::Start)),
        // They are about native histograms and pass over floats, which is all there is here.
        F::HistogramAvg | F::HistogramCount | F::HistogramStddev | F::HistogramStdvar | F::HistogramSum => {
            Kind::Each(Each::Nothing)
        }

        F::Rate => Kind::Range(Over::Rate(Rate::RATE)),
        F::Increase => Kind::Range(Over::Rate(Rate::INCREASE)),
        F::Delta => Kind::Range(Over::Rate(Rate::DELTA)),
        F::MaxOverTime => Kind::Range(Over::Extreme(Extreme::new(true))),
        F::MinOverTime => Kind::Range(Over::Extreme(Extreme::new(false))),
        F::AvgOverTime => Kind::Range(Over::Total(Totals::new(true))),
        F::SumOverTime => Kind::Range(Over::Total(Totals::new(false))),
        F::QuantileOverTime => Kind::Range(Over::Sorted(over_time::quantile_of)),
        F::MadOverTime => Kind::Range(Over::Sorted(|values, _| over_time::median_deviation(values))),
        F::Irate => window(|w, _| rate::instant(w, true)),
        F::Idelta => window(|w, _| rate::instant(w, false)),
        F::Resets => window(|w, _| rate::count_resets(w)),
        F::Changes => window(|w, _| rate::count_changes(w)),
        F::CountOverTime => window(|w, _| Some(w.values.len() as f64)),
        F::PresentOverTime => window(|_, _| Some(1.0)),
        F::FirstOverTime => window(|w, _| w.first().map(|(_, value)| value)),
        F::LastOverTime => window(|w, _| w.last().map(|(_, value)| value)),
        F::StddevOverTime => window(|w, _| Some(over_time::variance(w.values).sqrt())),
        F::StdvarOverTime => window(|w, _| Some(over_time::variance(w.values))),
        F::TsOfFirstOverTime => window(over_time::ts_of_first),
        F::TsOfLastOverTime => window(over_time::ts_of_last),
        F::TsOfMaxOverTime => window(over_time::ts_of_max),
        F::TsOfMinOverTime => window(over_time::ts_of_min),
        F::Deriv => window(over_time::deriv),
        F::PredictLinear => window(over_time::predict_linear),
        F::DoubleExponentialSmoothing | F::HoltWinters => window(over_time::smoothed),

        F::Absent => Kind::Whole(super::absent::absent),
        F::AbsentOverTime => Kind::Whole(super::absent::absent_over_time),
        F::HistogramFraction => Kind::Whole(super::histogram::fraction),
        F::HistogramQuantile => Kind::Whole(super::histogram::quantile),
        F::HistogramQuantiles => Kind::Whole(super::histogram::quantiles),
        F::Info => Kind::Whole(super::info::info),
        F::LabelJoin => Kind::Whole(super::labels::join),
        F::LabelReplace => Kind::Whole(super::labels::replace),
        F::Sort => Kind::Whole(super::sort::ascending),
        F::SortDesc => Kind::Whole(super::sort::descending),
        F::SortByLabel => Kind::Whole(super::sort::by_label),
        F::SortByLabelDesc => Kind::Whole(super::sort::by_label_descending),
        F::Vector => Kind::Whole(super::scalar::vector),
        F::Unknown => Kind::Whole(unknown),
    }
}

/// The node's parser takes only functions that it knows.
fn unknown(_: &Eval<'_>, _: &Call<'_>, _: Sink<'_>) -> Result<(), EvalError> {
    Err(EvalError::Execution("the query calls a function that this node does not know".to_owned()))
}
