//! A metrics page in Prometheus' text format, looked at for a few names.

/// A metrics page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page<'a>(pub(super) &'a str);

/// One line of a page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample<'a> {
    /// The metric's name.
    pub(super) name: &'a str,
    /// The labels between the braces.
    labels: &'a str,
    /// The value; finite.
    pub(super) value: f64,
}

impl<'a> Page<'a> {
    /// Every series whose metric's name ends like this: some processes put a prefix of their own before it.
    pub(super) fn ending(self, suffix: &str) -> impl Iterator<Item = Sample<'a>> {
        self.holding(suffix).filter(move |sample| sample.name.ends_with(suffix))
    }

    /// Every series whose metric's name holds this.
    pub(super) fn holding(self, part: &str) -> impl Iterator<Item = Sample<'a>> {
        // Most lines are none of them, and this is the cheaper question.
        let lines = self.0.lines().filter(move |line| line.contains(part));
        lines.filter_map(sample).filter(move |sample| sample.name.contains(part))
    }

    /// Every series of a metric.
    pub(super) fn all(self, name: &str) -> impl Iterator<Item = Sample<'a>> {
        let lines = self.0.lines().filter(move |line| line.starts_with(name));
        lines.filter_map(sample).filter(move |sample| sample.name == name)
    }

    /// The sum over all series of a metric; `None` when it has none.
    pub(super) fn sum(self, name: &str) -> Option<f64> {
        self.all(name).map(|sample| sample.value).reduce(|sum, value| sum + value)
    }
}

impl<'a> Sample<'a> {
    /// The value of a label; an escaped one as it is written.
    pub(super) fn label(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.labels;
        loop {
            let (found, after) = rest.split_once("=\"")?;
            let end = closing_quote(after)?;
            if found.trim_matches([',', ' ']) == name {
                return after.get(..end);
            }
            rest = after.get(end + 1..)?;
        }
    }
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' ', '\t'])?;
    let (name, rest) = line.split_at(end);
    let (labels, value) = match rest.strip_prefix('{') {
        // A label's value may hold anything but ends before the last brace.
        Some(labelled) => labelled.rsplit_once('}')?,
        None => ("", rest),
    };
    let value = value.split_ascii_whitespace().next()?.parse::<f64>().ok()?;
    let is_sample = !name.is_empty() && !name.starts_with('#') && value.is_finite();
    is_sample.then_some(Sample { name, labels, value })
}

/// The quote that ends a label's value: the first that no backslash escapes.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return Some(at),
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}
