//! Series in memory, behind the engine's `Storage`.

use std::collections::{BTreeMap, BTreeSet};

use weir::{
    base::TimeRange,
    node::{
        engine::Matchers,
        storage::{Selection, Storage, StorageError},
    },
    promql::ast::Matcher,
    series::{Label, Labels, Samples},
};

use super::{
    points::Item,
    script::{self, Command},
};

#[derive(Default)]
pub(super) struct Store {
    series: BTreeMap<Labels, Column>,
}

#[derive(Default)]
struct Column {
    /// Value and start by time.
    floats: BTreeMap<i64, (f64, i64)>,
    native: BTreeSet<i64>,
}

impl Store {
    /// The series that the loads of a script make.
    pub(super) fn from_script(text: &str) -> Result<Self, String> {
        let mut store = Self::default();
        for command in script::parse(text)? {
            store.apply(&command);
        }
        Ok(store)
    }

    /// Obeys a `clear` or a `load`.
    pub(super) fn apply(&mut self, command: &Command) {
        match command {
            Command::Clear => self.series.clear(),
            Command::Load { gap_ms, with_converted, series } => {
                for loaded in series {
                    self.load(&loaded.labels, *gap_ms, &loaded.items, &loaded.starts);
                    if *with_converted {
                        self.load_converted(&loaded.labels, *gap_ms, &loaded.items);
                    }
                }
            }
            Command::Eval(_) => {}
        }
    }

    /// Adds points that are `gap_ms` apart; `starts` are relative to their samples.
    fn load(&mut self, labels: &Labels, gap_ms: i64, items: &[Item], starts: &[Option<i64>]) {
        let column = self.series.entry(labels.clone()).or_default();
        for (i, item) in items.iter().enumerate() {
            let time = gap_ms * i as i64;
            let start = starts.get(i).copied().flatten().map_or(0, |offset| time + offset);
            match item {
                Item::Gap => {}
                Item::Float(value) => {
                    column.floats.insert(time, (*value, start));
                }
                Item::Native => {
                    column.native.insert(time);
                }
            }
        }
    }

    /// Marks the native histogram that a classic one would be converted to.
    fn load_converted(&mut self, labels: &Labels, gap_ms: i64, items: &[Item]) {
        let name = labels.metric_name();
        let suffixes = ["_bucket", "_count", "_sum"];
        let Some(base) = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)) else { return };
        let kept = labels.iter().filter(|l| &*l.name != "le" && &*l.name != "__name__").cloned();
        let base = Label { name: "__name__".into(), value: base.into() };
        let labels: Labels = kept.chain([base]).collect();
        let native: Vec<Item> =
            items.iter().map(|item| if *item == Item::Gap { Item::Gap } else { Item::Native }).collect();
        self.load(&labels, gap_ms, &native, &[]);
    }
}

impl Storage for Store {
    fn select<'a>(
        &'a self,
        matchers: &[Matcher],
        window: TimeRange,
    ) -> Result<Box<dyn Selection + 'a>, StorageError> {
        let matchers = Matchers::compile(matchers).map_err(StorageError::Matcher)?;
        let series = self.series.iter().filter(|(labels, _)| matchers.matches(labels)).collect();
        Ok(Box::new(Selected { series, window }))
    }
}

struct Selected<'a> {
    series: Vec<(&'a Labels, &'a Column)>,
    window: TimeRange,
}

impl Selection for Selected<'_> {
    fn series(&self) -> usize {
        self.series.len()
    }

    fn labels(&self, number: usize) -> Option<&Labels> {
        self.series.get(number).map(|(labels, _)| *labels)
    }

    fn read(&self, number: usize, into: &mut Samples) -> Result<Option<&Labels>, StorageError> {
        let (labels, column) = self.series[number];
        let window = self.window.start..=self.window.end;
        if column.native.range(window.clone()).next().is_some() {
            return Err(StorageError::NativeHistogram { series: labels.to_string() });
        }
        into.clear();
        for (time, (value, start)) in column.floats.range(window) {
            into.push(*time, *value);
            into.starts.push(*start);
        }
        Ok((!into.is_empty()).then_some(labels))
    }
}
