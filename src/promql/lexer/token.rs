//! The words of the language.

use crate::promql::ast::{AggregateOp, BinaryOp, Span};

/// One word of a query.
#[derive(Clone, Copy, Debug)]
pub(in crate::promql) struct Token {
    pub(in crate::promql) kind: Kind,
    pub(in crate::promql) span: Span,
}

/// The kind of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::promql) enum Kind {
    Eof,
    Ident,
    /// A name with a colon.
    MetricIdent,
    Str,
    Number,
    Duration,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    At,
    Equal,
    EqualRegex,
    NotRegex,
    Op(BinaryOp),
    Aggregate(AggregateOp),
    Word(Word),
}

/// Words that are neither operators nor aggregations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::promql) enum Word {
    Offset,
    Anchored,
    Smoothed,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Fill,
    FillLeft,
    FillRight,
    Bool,
    Start,
    End,
    Step,
    Range,
    MaxOf,
    MinOf,
}

/// The longest keyword, in bytes.
const KEYWORD_BYTES_MAX: usize = 12;

/// The keyword of a name outside braces, in any case; `None` for any other name.
pub(super) fn keyword(name: &str) -> Option<Kind> {
    let mut buffer = [0; KEYWORD_BYTES_MAX];
    let lower = buffer.get_mut(..name.len())?;
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    let word = Kind::Word;
    Some(match &*lower {
        b"and" => Kind::Op(BinaryOp::And),
        b"or" => Kind::Op(BinaryOp::Or),
        b"unless" => Kind::Op(BinaryOp::Unless),
        b"atan2" => Kind::Op(BinaryOp::Atan2),
        b"sum" => Kind::Aggregate(AggregateOp::Sum),
        b"avg" => Kind::Aggregate(AggregateOp::Avg),
        b"count" => Kind::Aggregate(AggregateOp::Count),
        b"min" => Kind::Aggregate(AggregateOp::Min),
        b"max" => Kind::Aggregate(AggregateOp::Max),
        b"group" => Kind::Aggregate(AggregateOp::Group),
        b"stddev" => Kind::Aggregate(AggregateOp::Stddev),
        b"stdvar" => Kind::Aggregate(AggregateOp::Stdvar),
        b"topk" => Kind::Aggregate(AggregateOp::Topk),
        b"bottomk" => Kind::Aggregate(AggregateOp::Bottomk),
        b"count_values" => Kind::Aggregate(AggregateOp::CountValues),
        b"quantile" => Kind::Aggregate(AggregateOp::Quantile),
        b"limitk" => Kind::Aggregate(AggregateOp::Limitk),
        b"limit_ratio" => Kind::Aggregate(AggregateOp::LimitRatio),
        b"offset" => word(Word::Offset),
        b"anchored" => word(Word::Anchored),
        b"smoothed" => word(Word::Smoothed),
        b"by" => word(Word::By),
        b"without" => word(Word::Without),
        b"on" => word(Word::On),
        b"ignoring" => word(Word::Ignoring),
        b"group_left" => word(Word::GroupLeft),
        b"group_right" => word(Word::GroupRight),
        b"fill" => word(Word::Fill),
        b"fill_left" => word(Word::FillLeft),
        b"fill_right" => word(Word::FillRight),
        b"bool" => word(Word::Bool),
        b"start" => word(Word::Start),
        b"end" => word(Word::End),
        b"step" => word(Word::Step),
        b"range" => word(Word::Range),
        b"max_of" => word(Word::MaxOf),
        b"min_of" => word(Word::MinOf),
        b"inf" | b"nan" => Kind::Number,
        _ => return None,
    })
}

impl Kind {
    /// How an error calls a word of this kind, as Prometheus does.
    pub(in crate::promql) fn describe(self, text: &str) -> String {
        match self {
            Self::Eof => "end of input".to_owned(),
            Self::Ident => format!("identifier {text:?}"),
            Self::MetricIdent => format!("metric identifier {text:?}"),
            Self::Str => format!("string {}", shortened(text)),
            Self::Number => format!("number {}", shortened(text)),
            Self::Duration => format!("duration {}", shortened(text)),
            Self::Op(_) => format!("<op:{text}>"),
            Self::At => "<op:@>".to_owned(),
            Self::Aggregate(_) => format!("<aggr:{text}>"),
            Self::Word(Word::Start | Word::End | Word::Step | Word::Range | Word::MaxOf | Word::MinOf) => {
                format!("{text:?}")
            }
            Self::Word(_) => format!("<{text}>"),
            _ => format!("{text:?}"),
        }
    }
}

/// Quoted, at most 10 characters of it.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(10) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
