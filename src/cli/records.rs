//! Records of queries for the commands that look back.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use super::clock::now_ms;
use crate::{
    base::{duration, units},
    journal::{Reader, Record},
    replay::{
        Arrivals,
        import::{Format, Importer},
    },
};

/// A time span on the command line, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since(u64);

impl std::str::FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        duration::parse(text).map(Self).map_err(|error| error.to_string())
    }
}

impl Since {
    /// The last seven days.
    pub(super) const WEEK: Self = Self(7 * 86_400_000);

    /// The time as long ago, milliseconds since the epoch.
    pub(super) fn start(self) -> i64 {
        now_ms().saturating_sub_unsigned(self.0)
    }
}

/// Hands each record since a time to `take`, in the order of their arrival; returns the unreadable parts, in words.
pub(super) fn each(
    paths: &[PathBuf],
    format: Option<Format>,
    since: Option<i64>,
    mut take: impl FnMut(&Record),
) -> Result<Vec<String>, String> {
    let (mut notes, mut arrivals) = (Vec::new(), Arrivals::default());
    let mut hold = |record: Record| {
        if since.is_none_or(|since| record.at_ms >= since)
            && let Some(first) = arrivals.push(record)
        {
            take(&first);
        }
    };
    for path in paths {
        let note = match format {
            Some(format) => of_log(path, format, &mut hold),
            None => of_journal(path, &mut hold),
        };
        notes.extend(note.map_err(|error| format!("{}: {error}", path.display()))?);
    }
    while let Some(record) = arrivals.pop() {
        take(&record);
    }
    Ok(notes)
}

fn of_journal(path: &Path, take: &mut impl FnMut(Record)) -> Result<Option<String>, String> {
    let mut reader = Reader::open(path).map_err(|error| error.to_string())?;
    for record in &mut reader {
        take(record.map_err(|error| error.to_string())?);
    }
    let damage = reader.damage();
    Ok((!damage.is_none()).then(|| format!("{}: not read: {damage}", path.display())))
}

fn of_log(path: &Path, format: Format, take: &mut impl FnMut(Record)) -> Result<Option<String>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut importer = Importer::new(format, BufReader::with_capacity(256 << 10, file));
    for record in &mut importer {
        take(record.map_err(|error| error.to_string())?);
    }
    let skipped = importer.skipped();
    Ok((skipped > 0)
        .then(|| format!("{}: {} lines are about no query", path.display(), units::count(skipped))))
}
