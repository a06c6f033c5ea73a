//! One page of all results, from the JSON files that the other commands wrote.

use crate::{Options, Result};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// The first sections of the page; the rest follows by name.
const ORDER: [&str; 9] = [
    "overhead",
    "stream",
    "fairness",
    "node",
    "estimate-prometheus",
    "estimate-victoriametrics",
    "estimate-weir-node-bounded",
    "incident-prometheus-4gib",
    "incident-ablation",
];

const HEAD: &str = "\
# Measured

Made by `weir-bench report` from the files in [bench/results](../bench/results), each written by the command that stands
with it, run in `bench/` as `cargo run --release -- COMMAND --weir ../target/release/weir` after `cargo build --release`.
Everything on the loopback of one machine; the databases and peers are Debian's packages. Where a goal is missed, its
row says so, and a note below it why, as far as that is known. Incidents are single runs.
";

/// Prints the page.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut names: Vec<String> = fs::read_dir(&options.out)?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .collect();
    let place = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
    names.sort_by(|a, b| (place(a), a).cmp(&(place(b), b)));
    print!("{HEAD}");
    for name in names {
        print!("{}", section(&options.out, &name)?);
    }
    Ok(())
}

/// A result with its tables, its picture and the note beside it.
fn section(dir: &Path, name: &str) -> Result<String> {
    let json: Value = serde_json::from_slice(&fs::read(dir.join(format!("{name}.json")))?)?;
    let text = |key: &str| json[key].as_str().unwrap_or("?").to_owned();
    let list = |key: &str| -> Vec<String> {
        json[key].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let mut page = format!("\n## {}\n", title(name));
    page += &format!("`{}`\n\n{}; {}.\n", text("command"), text("machine"), list("versions").join(", "));
    for table in list("tables") {
        page += &format!("\n{}\n", table.trim_end());
    }
    if let Ok(note) = fs::read_to_string(dir.join(format!("{name}.md"))) {
        page += &format!("\n{}\n", note.trim_end());
    }
    if dir.join(format!("{name}.svg")).is_file() {
        page += &format!("\n![{name}](../bench/results/{name}.svg)\n");
    }
    Ok(page)
}

/// `incident-sums-4gib` becomes `Incident: sums 4gib`.
fn title(name: &str) -> String {
    let (kind, rest) = name.split_once('-').map_or((name, ""), |(kind, rest)| (kind, rest));
    let mut kind = kind.to_owned();
    if let Some(first) = kind.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    if rest.is_empty() { kind } else { format!("{kind}: {}", rest.replace('-', " ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_shows_what_the_file_says() {
        let dir = crate::process::Scratch::new().expect("a folder");
        let json = r#"{"command": "weir-bench x", "machine": "m", "versions": ["a 1"], "tables": ["| t |\n|--|\n"]}"#;
        dir.write("incident-one-two.json", json).expect("a file");
        dir.write("incident-one-two.md", "Why.").expect("a file");
        let page = section(dir.dir(), "incident-one-two").expect("a section");
        assert_eq!(page, "\n## Incident: one two\n`weir-bench x`\n\nm; a 1.\n\n| t |\n|--|\n\nWhy.\n");
    }
}
