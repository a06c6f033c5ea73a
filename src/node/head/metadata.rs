//! Metadata of metrics: type, help and unit, by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Metrics that are described; more are not taken.
const METRICS_MAX: usize = 50_000;
/// Bytes of a help text that are kept.
const HELP_BYTES: usize = 1_024;
/// Bytes of a unit that are kept.
const UNIT_BYTES: usize = 64;
/// The types of OpenMetrics; any other is `unknown`, and so is the text format's `untyped`.
const TYPES: [&str; 8] =
    ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];

/// Something that is said of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataField<'a> {
    /// Its type.
    Type(&'a str),
    /// Its help text.
    Help(&'a str),
    /// Its unit.
    Unit(&'a str),
}

/// All that is said of a metric.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Description {
    /// One of OpenMetrics' types.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its help text, cut.
    pub help: String,
    /// Its unit, or nothing.
    pub unit: String,
}

/// Descriptions by metric. The last word counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    by_metric: BTreeMap<String, Description>,
    changed: bool,
}

impl Metadata {
    /// Descriptions that were kept.
    pub fn of(by_metric: BTreeMap<String, Description>) -> Self {
        Self { by_metric, changed: false }
    }

    /// Takes the metadata of metrics; those of unknown metrics are left out when there are too many.
    pub fn take(&mut self, said: &[(&str, MetadataField<'_>)]) {
        for (metric, field) in said {
            if !self.by_metric.contains_key(*metric) {
                if metric.is_empty() || metric.len() > HELP_BYTES || self.by_metric.len() >= METRICS_MAX {
                    continue;
                }
                let kind = "unknown".to_owned();
                self.by_metric.insert((*metric).to_owned(), Description { kind, ..Description::default() });
            }
            let Some(held) = self.by_metric.get_mut(*metric) else { continue };
            let (place, text) = match field {
                MetadataField::Type(text) => {
                    (&mut held.kind, TYPES.into_iter().find(|kind| kind == text).unwrap_or("unknown"))
                }
                MetadataField::Help(text) => (&mut held.help, beginning(text, HELP_BYTES)),
                MetadataField::Unit(text) => (&mut held.unit, beginning(text, UNIT_BYTES)),
            };
            if place != text {
                text.clone_into(place);
                self.changed = true;
            }
        }
    }

    /// All descriptions, by metric.
    pub fn by_metric(&self) -> &BTreeMap<String, Description> {
        &self.by_metric
    }

    /// Whether something was added since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Marks the additions as not kept yet.
    pub fn set_changed(&mut self) {
        self.changed = true;
    }
}

/// The first bytes of a text, whole characters.
fn beginning(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_all_of_it_is_bounded() {
        let mut metadata = Metadata::default();
        let long = "é".repeat(HELP_BYTES);
        metadata.take(&[
            ("a", MetadataField::Type("counter")),
            ("a", MetadataField::Type("gauge")),
            ("a", MetadataField::Help(&long)),
            ("b", MetadataField::Type("untyped")),
            ("", MetadataField::Type("gauge")),
        ]);
        assert_eq!(
            (metadata.by_metric()["a"].kind.as_str(), metadata.by_metric()["a"].help.len()),
            ("gauge", HELP_BYTES)
        );
        assert_eq!((metadata.by_metric().len(), metadata.by_metric()["b"].kind.as_str()), (2, "unknown"));
        assert!(metadata.take_changed() && !metadata.take_changed());
        metadata.take(&[("a", MetadataField::Type("gauge"))]);
        assert!(!metadata.take_changed(), "nothing new");
        let names: Vec<String> = (0..METRICS_MAX + 10).map(|i| format!("m{i}")).collect();
        let all: Vec<_> = names.iter().map(|name| (name.as_str(), MetadataField::Unit("s"))).collect();
        metadata.take(&all);
        assert_eq!(metadata.by_metric().len(), METRICS_MAX);
    }
}
