//! Expressions.

use weir::promql::ast::{
    AggregateOp, Ast, At, BinaryOp, Edges, Expr, Function, Group, Grouping, MatchOp, Matcher, Node, NodeId,
    Selector, Span, ValueType, VectorMatching,
};

use super::cursor::Cursor;

pub(super) struct Parser<'t> {
    pub(super) cursor: Cursor<'t>,
    pub(super) nodes: Vec<Node>,
}

type Parsed<T> = Result<T, String>;

const SCALARS: [&str; 9] = ["time", "pi", "scalar", "start", "end", "range", "step", "min_of", "max_of"];

const OPERATORS: [(&str, u8, BinaryOp); 19] = [
    ("or", 1, BinaryOp::Or),
    ("and", 2, BinaryOp::And),
    ("unless", 2, BinaryOp::Unless),
    ("==", 3, BinaryOp::Eq),
    ("!=", 3, BinaryOp::Ne),
    (">=", 3, BinaryOp::Ge),
    ("<=", 3, BinaryOp::Le),
    ("</", 3, BinaryOp::TrimUpper),
    (">/", 3, BinaryOp::TrimLower),
    (">", 3, BinaryOp::Gt),
    ("<", 3, BinaryOp::Lt),
    ("+", 4, BinaryOp::Add),
    ("-", 4, BinaryOp::Sub),
    ("*", 5, BinaryOp::Mul),
    ("/", 5, BinaryOp::Div),
    ("%", 5, BinaryOp::Mod),
    ("atan2", 5, BinaryOp::Atan2),
    ("^", 6, BinaryOp::Pow),
    ("bool", 0, BinaryOp::Add),
];

const AGGREGATIONS: [(&str, AggregateOp, bool); 14] = [
    ("sum", AggregateOp::Sum, false),
    ("avg", AggregateOp::Avg, false),
    ("count", AggregateOp::Count, false),
    ("min", AggregateOp::Min, false),
    ("max", AggregateOp::Max, false),
    ("group", AggregateOp::Group, false),
    ("stddev", AggregateOp::Stddev, false),
    ("stdvar", AggregateOp::Stdvar, false),
    ("topk", AggregateOp::Topk, true),
    ("bottomk", AggregateOp::Bottomk, true),
    ("count_values", AggregateOp::CountValues, true),
    ("quantile", AggregateOp::Quantile, true),
    ("limitk", AggregateOp::Limitk, true),
    ("limit_ratio", AggregateOp::LimitRatio, true),
];

pub(super) fn parse(text: &str) -> Parsed<Ast> {
    let mut parser = Parser { cursor: Cursor { text, pos: 0 }, nodes: Vec::new() };
    let root = parser.expr(0)?;
    parser.cursor.skip_space();
    if !parser.cursor.rest().is_empty() {
        return Err(format!("unexpected {:?}", parser.cursor.rest()));
    }
    Ok(Ast { text: text.into(), nodes: parser.nodes, root })
}

impl Parser<'_> {
    pub(super) fn here(&mut self) -> u32 {
        self.cursor.skip_space();
        self.cursor.pos as u32
    }

    pub(super) fn node(&mut self, expr: Expr, start: u32, ty: ValueType) -> NodeId {
        self.nodes.push(Node { expr, span: Span { start, end: self.cursor.pos as u32 }, ty });
        NodeId(self.nodes.len() as u32 - 1)
    }

    fn ty(&self, id: NodeId) -> ValueType {
        self.nodes[id.0 as usize].ty
    }

    fn expr(&mut self, least: u8) -> Parsed<NodeId> {
        let start = self.here();
        let mut lhs = self.unary()?;
        loop {
            let Some((token, level, op)) = self.operator(least) else { return Ok(lhs) };
            self.cursor.pos += token.len();
            let return_bool = self.cursor.eat_word(&["bool"]).is_some();
            let set = matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless);
            let matching = self.matching(set)?;
            let rhs = self.expr(if level == 6 { 6 } else { level + 1 })?;
            let scalar = [lhs, rhs].iter().all(|id| self.ty(*id) == ValueType::Scalar);
            let ty = if scalar { ValueType::Scalar } else { ValueType::Vector };
            let matching = Some(Box::new(matching));
            lhs = self.node(Expr::Binary { op, lhs, rhs, return_bool, matching }, start, ty);
        }
    }

    fn operator(&mut self, least: u8) -> Option<(&'static str, u8, BinaryOp)> {
        self.cursor.skip_space();
        let word = self.cursor.peek_name(true).map(str::to_ascii_lowercase);
        let rest = self.cursor.rest();
        let found = OPERATORS.iter().find(|(token, level, _)| {
            *level > 0 && if let Some(word) = &word { word == token } else { rest.starts_with(token) }
        })?;
        (found.1 >= least).then_some(*found)
    }

    fn matching(&mut self, set: bool) -> Parsed<VectorMatching> {
        let mut matching = VectorMatching::default();
        if set {
            matching.group = Group::ManyToMany;
        }
        if let Some(word) = self.cursor.eat_word(&["on", "ignoring"]) {
            matching.on = word == "on";
            matching.labels = self.names()?;
        }
        if let Some(word) = self.cursor.eat_word(&["group_left", "group_right"]) {
            matching.group = if word == "group_left" { Group::ManyToOne } else { Group::OneToMany };
            if self.cursor.starts("(") {
                matching.include = self.names()?;
            }
        }
        loop {
            let at = self.cursor.pos;
            let Some(word) = self.cursor.eat_word(&["fill", "fill_left", "fill_right"]) else { break };
            if !self.cursor.eat("(") {
                self.cursor.pos = at;
                break;
            }
            let negative = self.cursor.eat("-");
            let value = self.cursor.number().ok_or("expected a number to fill with")?;
            let value = if negative { -value } else { value };
            self.cursor.need(")")?;
            if word != "fill_right" {
                matching.fill_left = Some(value);
            }
            if word != "fill_left" {
                matching.fill_right = Some(value);
            }
        }
        Ok(matching)
    }

    fn names(&mut self) -> Parsed<Vec<Box<str>>> {
        let mut names = Vec::new();
        self.cursor.need("(")?;
        while !self.cursor.eat(")") {
            names.push(self.label_name()?);
            self.cursor.eat(",");
        }
        Ok(names)
    }

    fn label_name(&mut self) -> Parsed<Box<str>> {
        if let Some(name) = self.cursor.string()? {
            return Ok(name.into());
        }
        let name =
            self.cursor.peek_name(false).ok_or_else(|| format!("no name at {:?}", self.cursor.rest()))?;
        self.cursor.pos += name.len();
        Ok(name.into())
    }

    fn unary(&mut self) -> Parsed<NodeId> {
        let start = self.here();
        for (token, negative) in [("-", true), ("+", false)] {
            if self.cursor.eat(token) {
                let expr = self.expr(6)?;
                let ty = self.ty(expr);
                return Ok(self.node(Expr::Unary { negative, expr }, start, ty));
            }
        }
        let primary = self.primary()?;
        self.modifiers(primary, start)
    }

    fn primary(&mut self) -> Parsed<NodeId> {
        let start = self.here();
        if self.cursor.eat("(") {
            let inner = self.expr(0)?;
            self.cursor.need(")")?;
            let ty = self.ty(inner);
            return Ok(self.node(Expr::Paren(inner), start, ty));
        }
        if let Some(text) = self.cursor.string()? {
            return Ok(self.node(Expr::String(text.into()), start, ValueType::String));
        }
        if let Some(value) = self.cursor.number() {
            return Ok(self.node(Expr::Number(value), start, ValueType::Scalar));
        }
        if self.cursor.starts("{") {
            return self.selector(None, start);
        }
        let name =
            self.cursor.peek_name(true).ok_or_else(|| format!("unexpected {:?}", self.cursor.rest()))?;
        self.cursor.pos += name.len();
        let lower = name.to_ascii_lowercase();
        if let Some((_, op, param)) = AGGREGATIONS.iter().find(|(word, ..)| *word == lower) {
            return self.aggregate(*op, *param, start);
        }
        if self.cursor.starts("(") { self.call(name, start) } else { self.selector(Some(name), start) }
    }

    fn aggregate(&mut self, op: AggregateOp, has_param: bool, start: u32) -> Parsed<NodeId> {
        let mut grouping = self.grouping()?;
        self.cursor.need("(")?;
        let mut param = None;
        if has_param {
            param = Some(self.expr(0)?);
            self.cursor.need(",")?;
        }
        let expr = self.expr(0)?;
        self.cursor.eat(",");
        self.cursor.need(")")?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let grouping = grouping.unwrap_or_default();
        Ok(self.node(Expr::Aggregate { op, param, expr, grouping }, start, ValueType::Vector))
    }

    fn grouping(&mut self) -> Parsed<Option<Grouping>> {
        let Some(word) = self.cursor.eat_word(&["by", "without"]) else { return Ok(None) };
        Ok(Some(Grouping { without: word == "without", labels: self.names()? }))
    }

    fn call(&mut self, name: &str, start: u32) -> Parsed<NodeId> {
        let mut args = Vec::new();
        self.cursor.need("(")?;
        while !self.cursor.eat(")") {
            args.push(self.expr(0)?);
            if !self.cursor.eat(",") {
                self.cursor.need(")")?;
                break;
            }
        }
        let ty = if SCALARS.contains(&name) { ValueType::Scalar } else { ValueType::Vector };
        // The tree wants a static table, which comes with the real parser.
        let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
        let func: &'static Function =
            Box::leak(Box::new(Function { name, args: &[], variadic: -1, returns: ty }));
        Ok(self.node(Expr::Call { func, args }, start, ty))
    }

    fn selector(&mut self, name: Option<&str>, start: u32) -> Parsed<NodeId> {
        let named =
            |value: &str| Matcher { name: "__name__".into(), op: MatchOp::Equal, value: value.into() };
        let mut matchers: Vec<Matcher> = name.map(named).into_iter().collect();
        if self.cursor.eat("{") {
            while !self.cursor.eat("}") {
                let quoted = self.cursor.starts("\"");
                let name = self.label_name()?;
                let ops = [
                    ("=~", MatchOp::Regex),
                    ("!~", MatchOp::NotRegex),
                    ("!=", MatchOp::NotEqual),
                    ("=", MatchOp::Equal),
                ];
                match ops.iter().find(|(token, _)| self.cursor.eat(token)) {
                    Some((_, op)) => {
                        let value = self.cursor.string()?.ok_or("expected a label value")?;
                        matchers.push(Matcher { name, op: *op, value: value.into() });
                    }
                    None if quoted => matchers.insert(0, named(&name)),
                    None => return Err(format!("no matcher at {:?}", self.cursor.rest())),
                }
                self.cursor.eat(",");
            }
        }
        let selector = Selector { matchers, at: None, offset: None, edges: Edges::Plain };
        Ok(self.node(Expr::Selector(selector), start, ValueType::Vector))
    }

    /// `[…]`, `@`, `offset`, `anchored`, `smoothed`
    fn modifiers(&mut self, mut id: NodeId, start: u32) -> Parsed<NodeId> {
        loop {
            if self.cursor.eat("[") {
                id = self.brackets(id, start)?;
            } else if self.cursor.eat("@") {
                let at = self.at()?;
                match self.modified(id) {
                    Expr::Selector(Selector { at: slot, .. }) | Expr::Subquery { at: slot, .. } => {
                        *slot = Some(at);
                    }
                    _ => return Err("nothing to modify with @".into()),
                }
            } else if self.cursor.eat_word(&["offset"]).is_some() {
                let offset = self.offset()?;
                match self.modified(id) {
                    Expr::Selector(Selector { offset: slot, .. }) | Expr::Subquery { offset: slot, .. } => {
                        *slot = Some(offset);
                    }
                    _ => return Err("nothing to modify with offset".into()),
                }
                // A computed offset stands behind the node that uses it: the node moves behind the offset.
                id = self.moved_last(id);
            } else if let Some(word) = self.cursor.eat_word(&["anchored", "smoothed"]) {
                let edges = if word == "anchored" { Edges::Anchored } else { Edges::Smoothed };
                match self.modified(id) {
                    Expr::Selector(selector) => selector.edges = edges,
                    _ => return Err(format!("nothing to modify with {word}")),
                }
            } else {
                return Ok(id);
            }
        }
    }

    /// The node that carries `@` and `offset` for a primary.
    fn modified(&mut self, id: NodeId) -> &mut Expr {
        let at = match &self.nodes[id.0 as usize].expr {
            Expr::Matrix { selector, .. } => *selector,
            _ => id,
        };
        &mut self.nodes[at.0 as usize].expr
    }

    /// Copies a primary to the end of the arena, so that operands still come before operators.
    fn moved_last(&mut self, id: NodeId) -> NodeId {
        let mut node = self.nodes[id.0 as usize].clone();
        if let Expr::Matrix { selector, .. } = &mut node.expr {
            self.nodes.push(self.nodes[selector.0 as usize].clone());
            *selector = NodeId(self.nodes.len() as u32 - 1);
        }
        self.nodes.push(node);
        NodeId(self.nodes.len() as u32 - 1)
    }

    fn brackets(&mut self, id: NodeId, start: u32) -> Parsed<NodeId> {
        let range = self.duration()?;
        if !self.cursor.eat(":") {
            self.cursor.need("]")?;
            return Ok(self.node(Expr::Matrix { selector: id, range }, start, ValueType::Matrix));
        }
        let step = if self.cursor.starts("]") { None } else { Some(self.duration()?) };
        self.cursor.need("]")?;
        let expr = Expr::Subquery { expr: id, range, step, at: None, offset: None };
        Ok(self.node(expr, start, ValueType::Matrix))
    }

    fn at(&mut self) -> Parsed<At> {
        if let Some(word) = self.cursor.eat_word(&["start", "end"]) {
            self.cursor.need("(")?;
            self.cursor.need(")")?;
            return Ok(if word == "start" { At::Start } else { At::End });
        }
        let negative = self.cursor.eat("-");
        self.cursor.eat("+");
        let seconds = self.cursor.number().ok_or("expected a timestamp")?;
        let ms = (seconds * 1e3).round() as i64;
        Ok(At::Timestamp(if negative { -ms } else { ms }))
    }
}
