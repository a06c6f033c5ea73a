//! Words to a tree: operators by precedence over a stack of our own, so that only brackets recurse, to a bounded depth.

mod call;
mod duration;
mod expr;
mod operand;
mod selector;
mod types;

use crate::base::TextSize;

use super::{
    ast::{Ast, Expr, Node, NodeId, Span, ValueType},
    error::{ParseError, Part},
    lexer::{Kind, Lexer, Token, unquote},
};

/// The most that is parsed at all. The configuration's limits on text are lower, and judged by the size of the tree;
/// these hold whatever it says, so that no query takes long to refuse, or the stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of text.
    pub bytes: usize,
    /// Brackets within brackets.
    pub depth: usize,
    /// Nodes of the tree.
    pub nodes: usize,
    /// Matchers in all selectors together.
    pub matchers: usize,
    /// Bytes of all regular expressions together.
    pub regex_bytes: usize,
    /// Functions that are not known here are [`function::UNKNOWN`](super::function::UNKNOWN), and not refused.
    pub unknown_functions: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 4 << 20,
            depth: 128,
            nodes: 50_000,
            matchers: 20_000,
            regex_bytes: 4 << 20,
            unknown_functions: false,
        }
    }
}

/// Parses and type-checks a query under the default [`Limits`].
///
/// # Errors
/// Names the mistake and its place.
pub fn parse(text: &str) -> Result<Ast, ParseError> {
    parse_with(text, &Limits::default())
}

/// Parses and type-checks a query.
///
/// # Errors
/// Names the mistake and its place, or the limit that the query exceeds.
pub fn parse_with(text: &str, limits: &Limits) -> Result<Ast, ParseError> {
    if text.len() > limits.bytes.min(u32::MAX as usize) {
        let message = format!("query is {} bytes long, more than the {} allowed", text.len(), limits.bytes);
        return Err(ParseError::limit(text, Span::default(), Part::Text, limits.bytes, message));
    }
    let mut lexer = Lexer::new(text);
    let token = lexer.next()?;
    let mut parser = Parser {
        text,
        limits,
        lexer,
        token,
        closed: 0,
        nodes: Vec::with_capacity(8),
        pending: Vec::new(),
        depth: 0,
        deepest: 0,
        matchers: 0,
        regex_bytes: 0,
        duration_parts: 0,
        data_labels: false,
        mistyped: None,
    };
    if token.kind == Kind::Eof {
        return Err(ParseError::new(text, Span::default(), "no expression found in input"));
    }
    let root = parser.expr()?;
    if parser.token.kind != Kind::Eof {
        return parser.unexpected("", "");
    }
    let size = TextSize {
        bytes: text.len() as u64,
        nodes: parser.nodes.len() as u64,
        depth: parser.deepest as u64,
        matchers: parser.matchers as u64,
        regex_bytes: parser.regex_bytes as u64,
    };
    match parser.mistyped {
        Some(error) => Err(error),
        None => Ok(Ast { text: text.into(), nodes: parser.nodes, root, size }),
    }
}

type Parsed<T> = Result<T, ParseError>;

struct Parser<'t> {
    text: &'t str,
    limits: &'t Limits,
    lexer: Lexer<'t>,
    /// The word that is next.
    token: Token,
    /// End of the word before.
    closed: u32,
    nodes: Vec<Node>,
    /// Operators that wait for their right operand.
    pending: Vec<expr::Pending>,
    /// Open brackets.
    depth: usize,
    /// The most that were open.
    deepest: usize,
    matchers: usize,
    regex_bytes: usize,
    /// Terms and operators of the duration expression at hand.
    duration_parts: usize,
    /// The next operand may be a selector without matchers: the second argument of `info`.
    data_labels: bool,
    /// The first type error; a syntax error anywhere goes before it.
    mistyped: Option<ParseError>,
}

impl<'t> Parser<'t> {
    fn advance(&mut self) -> Parsed<()> {
        self.closed = self.token.span.end;
        self.token = self.lexer.next()?;
        Ok(())
    }

    /// Steps over a word if it is the next one.
    fn eat(&mut self, kind: Kind) -> Parsed<bool> {
        let there = self.token.kind == kind;
        if there {
            self.advance()?;
        }
        Ok(there)
    }

    /// Steps over a word that must be the next one.
    fn need(&mut self, kind: Kind, context: &str, expected: &str) -> Parsed<()> {
        if self.eat(kind)? { Ok(()) } else { self.unexpected(context, expected) }
    }

    fn text_at(&self, span: Span) -> &'t str {
        self.text.get(span.start as usize..span.end as usize).unwrap_or_default()
    }

    fn fail<T>(&self, span: Span, message: impl Into<String>) -> Parsed<T> {
        Err(ParseError::new(self.text, span, message))
    }

    fn beyond<T>(&self, span: Span, part: Part, max: usize, message: impl Into<String>) -> Parsed<T> {
        Err(ParseError::limit(self.text, span, part, max, message))
    }

    /// Complains about the next word.
    fn unexpected<T>(&self, context: &str, expected: &str) -> Parsed<T> {
        let mut message = "unexpected ".to_owned();
        message.push_str(&self.token.kind.describe(self.text_at(self.token.span)));
        for (word, text) in [(" in ", context), (", expected ", expected)] {
            if !text.is_empty() {
                message.push_str(word);
                message.push_str(text);
            }
        }
        self.fail(self.token.span, message)
    }

    /// Notes a type error, unless there was one before.
    fn mistyped(&mut self, span: Span, message: impl FnOnce() -> String) {
        if self.mistyped.is_none() {
            self.mistyped = Some(ParseError::new(self.text, span, message()));
        }
    }

    /// Enters a bracket.
    fn nest(&mut self) -> Parsed<()> {
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        let max = self.limits.depth;
        if self.depth > max {
            let message = format!("query is nested deeper than the {max} levels allowed");
            return self.beyond(self.token.span, Part::Depth, max, message);
        }
        Ok(())
    }

    fn push(&mut self, expr: Expr, span: Span, ty: ValueType) -> Parsed<NodeId> {
        let max = self.limits.nodes;
        if self.nodes.len() >= max {
            let message = format!("query has more than the {max} parts allowed");
            return self.beyond(span, Part::Nodes, max, message);
        }
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(Node { expr, span, ty });
        Ok(id)
    }

    fn node(&self, id: NodeId) -> &Node {
        // Ids come from `push` alone, and nodes are never taken away.
        &self.nodes[id.0 as usize]
    }

    fn span(&self, id: NodeId) -> Span {
        self.node(id).span
    }

    fn ty(&self, id: NodeId) -> ValueType {
        self.node(id).ty
    }

    /// From a place to the end of the last word.
    fn since(&self, start: u32) -> Span {
        Span { start, end: self.closed }
    }

    /// The value of a string literal.
    fn unquoted(&self, span: Span) -> Parsed<Box<str>> {
        unquote(self.text_at(span)).map_err(|message| ParseError::new(self.text, span, message))
    }
}
