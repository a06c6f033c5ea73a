//! Tables in Markdown, results in JSON, and the machine and programs of a measurement.

use crate::{Options, Result};
use serde_json::{Value, json};
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A table in Markdown.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} |", self.head.join(" | "))?;
        writeln!(f, "|{}", "--|".repeat(self.head.len()))?;
        self.rows.iter().try_for_each(|row| writeln!(f, "| {} |", row.join(" | ")))
    }
}

/// A goal, the measurement, and whether that meets it.
#[derive(Debug)]
pub(crate) struct Bar {
    goal: String,
    measured: String,
    met: bool,
}

impl Bar {
    pub(crate) fn new(goal: impl Into<String>, measured: impl Into<String>, met: bool) -> Self {
        Self { goal: goal.into(), measured: measured.into(), met }
    }

    /// A number that is to be at most so large; NaN misses.
    pub(crate) fn at_most(goal: impl Into<String>, measured: f64, most: f64) -> Self {
        Self::new(goal, format!("{measured:.2}"), measured <= most)
    }

    /// A number that is to be at least so large; NaN misses.
    pub(crate) fn at_least(goal: impl Into<String>, measured: f64, least: f64) -> Self {
        Self::new(goal, format!("{measured:.2}"), measured >= least)
    }
}

/// `None` without goals.
fn bars_table(bars: &[Bar]) -> Option<Table> {
    let mut table = Table::new(&["goal", "measured", "met"]);
    for Bar { goal, measured, met } in bars {
        let met = if *met { "yes" } else { "**missed**" };
        table.row([goal.clone(), measured.clone(), met.to_owned()]);
    }
    (!bars.is_empty()).then_some(table)
}

/// The value below which a share of `values` lies, by nearest rank; NaN of nothing.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// `median (least-most)`.
pub(crate) fn spread(values: &[f64], decimals: usize) -> String {
    let [median, least, most] = [0.5, 0.0, 1.0].map(|share| quantile(values, share));
    format!("{median:.decimals$} ({least:.decimals$}-{most:.decimals$})")
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 20))
}

/// Prints a heading with machine and versions, then the tables, and writes `result` as JSON.
pub(crate) fn finish(
    name: &str,
    options: &Options,
    versions: &[&str],
    tables: &[&Table],
    bars: &[Bar],
    result: &Value,
) -> Result<()> {
    let machine = machine();
    let versions: Vec<String> = versions.iter().map(|program| version(program, options)).collect();
    println!("## {name}\n\n{machine}; {}.\n", versions.join(", "));
    let bars = bars_table(bars);
    let tables: Vec<&Table> = tables.iter().copied().chain(&bars).collect();
    for table in &tables {
        println!("{table}");
    }
    let tables: Vec<String> = tables.iter().map(ToString::to_string).collect();
    let document = json!({"benchmark": name, "machine": machine, "versions": versions, "command": command(),
        "tables": tables, "result": result});
    fs::write(path(options, &format!("{name}.json"))?, serde_json::to_vec_pretty(&document)?)?;
    Ok(())
}

/// The command line, without where its files are.
fn command() -> String {
    let mut words = std::env::args().skip(1);
    let mut line = "weir-bench".to_owned();
    while let Some(word) = words.next() {
        if ["--weir", "--out", "--data"].contains(&word.as_str()) {
            words.next();
        } else if ["--binary", "--before"].contains(&word.as_str()) {
            words.next();
            line = format!("{line} {word} FILE");
        } else {
            line = format!("{line} {word}");
        }
    }
    line
}

/// Where a result of that name goes.
pub(crate) fn path(options: &Options, file: &str) -> Result<PathBuf> {
    fs::create_dir_all(&options.out)?;
    Ok(options.out.join(file))
}

/// Date, processor, cores, kernel and load.
fn machine() -> String {
    let date = run(Command::new("date").args(["-u", "+%F %H:%M UTC"]));
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find(|l| l.starts_with("model name"))
        .and_then(|l| l.split_once(": "))
        .map_or("?", |p| p.1);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    format!("{date}, {model}, {cores} cores, Linux {}, load at the end {load}", kernel.trim())
}

/// Name and version of a program, from the first word of its output that looks like one.
fn version(program: &str, options: &Options) -> String {
    let (mut command, flag) = match program {
        "weir" => (Command::new(&options.weir), "--version"),
        "nginx" | "haproxy" | "wrk" => (crate::process::command(program), "-v"),
        "m3dbnode" => return "m3dbnode, as given".to_owned(),
        "thanos" | "cortex" if options.binary.is_some() => {
            (Command::new(options.binary.as_deref().unwrap_or(program.as_ref())), "--version")
        }
        other => (crate::process::command(other), "--version"),
    };
    let text = run(command.arg(flag));
    let word = text
        .split([' ', '/', '\n'])
        .map(|w| w.trim_start_matches('v'))
        .find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()));
    // Debian's vmauth does not know its own version; its package does.
    let package =
        || run(Command::new("dpkg-query").args(["-W", "-f", "${Version}", crate::process::package(program)]));
    format!("{program} {}", word.map_or_else(package, str::to_owned))
}

/// Both outputs of a command, empty if it cannot run.
fn run(command: &mut Command) -> String {
    command.output().map_or_else(
        |_| String::new(),
        |o| {
            let text = [o.stdout, o.stderr].concat();
            String::from_utf8_lossy(&text).trim().to_owned()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_take_the_nearest_rank() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| quantile(&values, share)), [1.0, 50.0, 99.0, 100.0]);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
