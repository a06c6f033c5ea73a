//! Warnings for readers about samples that were lost with a damaged block or chunk.

use super::{Db, lost_ranges::time};
use crate::{base::TimeRange, node::block::joined};

impl Db {
    /// The warnings of an answer about these windows: the times whose samples may be missing by damage. Asked after
    /// reading, since reading finds the damage.
    pub fn warnings(&self, windows: impl IntoIterator<Item = TimeRange>) -> Vec<String> {
        let mut lost = self.sealed.lost_ranges.ranges();
        for block in self.blocks() {
            // Found damaged a moment ago, and not set aside yet.
            lost.extend(block.is_damaged().then(|| Some(block.meta().range())));
            lost.extend(block.lost_ranges().into_iter().map(Some));
        }
        if lost.is_empty() {
            return Vec::new();
        }
        let mut cut = Vec::new();
        for window in windows {
            let start = window.start.max(self.oldest());
            for range in lost.iter().flatten() {
                let (start, end) = (range.start.max(start), range.end.min(window.end));
                if start <= end {
                    cut.push(TimeRange { start, end });
                }
            }
        }
        let mut texts: Vec<String> = joined(cut).into_iter().map(text).collect();
        if lost.contains(&None) {
            texts.push(
                "samples may be missing: a damaged block, whose times are not known, is set aside".into(),
            );
        }
        texts
    }
}

fn text(range: TimeRange) -> String {
    let (start, end) = (time(range.start), time(range.end));
    format!("samples from {start} to {end} may be missing: a block that held them is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_told() {
        let said = text(TimeRange { start: 1_700_000_000_000, end: 1_700_000_000_500 });
        assert!(
            said.starts_with("samples from 2023-11-14T22:13:20Z to 2023-11-14T22:13:20.5Z may"),
            "{said}"
        );
    }
}
