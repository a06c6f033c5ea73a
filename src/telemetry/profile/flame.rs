//! A flame graph: callers below, callees above, as wide as their share.

use std::{collections::BTreeMap, fmt::Write as _};

use super::stacks::{Profile, Symbols};

/// All in pixels.
const WIDTH: f64 = 1200.0;
const ROW: usize = 17;
const MARGIN: f64 = 8.0;
const HEAD: usize = 44;
/// About how wide a letter is.
const LETTER: f64 = 6.6;
/// Narrower frames are not drawn.
const NARROWEST: f64 = 0.3;
/// Functions on top of each other, inlined ones included; deeper ones are left out.
const ROWS_MAX: usize = 200;

/// The samples in a function and in its callees.
#[derive(Default)]
struct Node {
    value: i64,
    callees: BTreeMap<String, Node>,
}

/// The picture of the last kind of value in a profile.
pub(super) fn draw(profile: &Profile, symbols: &Symbols) -> String {
    let mut root = Node::default();
    for stack in &profile.stacks {
        let value = stack.values.last().copied().unwrap_or(0);
        root.value += value;
        let outermost_first = symbols.outside(profile, stack).iter().rev();
        let names = outermost_first.flat_map(|a| symbols.at(*a).iter().rev().map(|f| f.name.as_str()));
        let mut node = &mut root;
        for name in names.take(ROWS_MAX) {
            if !node.callees.contains_key(name) {
                node.callees.insert(name.to_owned(), Node::default());
            }
            let Some(callee) = node.callees.get_mut(name) else { break };
            callee.value += value;
            node = callee;
        }
    }
    let rows = depth(&root);
    let height = HEAD + rows * ROW + 12;
    let (kind, unit) = profile.kinds.last().copied().unwrap_or_default();
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="11">
<rect width="100%" height="100%" fill="#fffdf5"/>
<text x="{MARGIN}" y="18" font-size="14">Weir: {kind}, {}</text>
<text x="{MARGIN}" y="34" fill="#666">callers below, callees above; point at a box for its name and share</text>
"##,
        measure(root.value, unit),
    );
    let scale = (WIDTH - 2.0 * MARGIN) / root.value.max(1) as f64;
    let mut picture = Picture { svg: &mut svg, total: root.value.max(1), unit, rows, scale };
    picture.boxes("all", &root, MARGIN, 0);
    svg.push_str("</svg>\n");
    svg
}

fn depth(node: &Node) -> usize {
    1 + node.callees.values().map(depth).max().unwrap_or(0)
}

struct Picture<'a> {
    svg: &'a mut String,
    total: i64,
    unit: &'a str,
    rows: usize,
    /// Pixels per value.
    scale: f64,
}

impl Picture<'_> {
    fn boxes(&mut self, name: &str, node: &Node, x: f64, row: usize) {
        let width = node.value as f64 * self.scale;
        if width < NARROWEST {
            return;
        }
        let y = HEAD + (self.rows - 1 - row) * ROW;
        let share = 100.0 * node.value as f64 / self.total as f64;
        let title = format!("{name}: {}, {share:.1} %", measure(node.value, self.unit));
        // Writing to a string does not fail.
        let _ = write!(
            self.svg,
            r#"<g><title>{}</title><rect x="{x:.1}" y="{y}" width="{width:.1}" height="{}" rx="1" fill="{}"/>"#,
            escape(&title),
            ROW - 1,
            color(name),
        );
        let letters = ((width - 4.0) / LETTER) as usize;
        if letters >= 3 {
            let _ = write!(
                self.svg,
                r#"<text x="{:.1}" y="{}">{}</text>"#,
                x + 2.0,
                y + ROW - 5,
                escape(&shortened(name, letters)),
            );
        }
        self.svg.push_str("</g>\n");
        let mut left = x;
        for (name, callee) in &node.callees {
            self.boxes(name, callee, left, row + 1);
            left += callee.value as f64 * self.scale;
        }
    }
}

/// The end of a path says more than its beginning.
fn shortened(name: &str, letters: usize) -> String {
    let count = name.chars().count();
    if count <= letters {
        return name.to_owned();
    }
    let tail: String = name.chars().skip(count - (letters - 1)).collect();
    format!("…{tail}")
}

/// Warm for the code of this project, cool for everything else; the same name always has the same color.
fn color(name: &str) -> String {
    let hash = name.bytes().fold(7u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let hue = if name.contains("weir::") { 10 + hash % 35 } else { 190 + hash % 40 };
    format!("hsl({hue},{}%,{}%)", 60 + hash / 64 % 20, 66 + hash / 4096 % 12)
}

fn measure(value: i64, unit: &str) -> String {
    match unit {
        "nanoseconds" => format!("{:.2} s", value as f64 / 1e9),
        "bytes" => crate::base::units::bytes(value.max(0) as u64),
        _ => format!("{value} {unit}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
