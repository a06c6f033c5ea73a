//! Starts the journal of queries, and the ranking that is made of it.

use std::path::Path;

use super::clock::now_ms;
use crate::{
    config::raw,
    journal::{self, FOLDER, Journal, Writer},
    proxy::Proxy,
    top::{self, Top},
};

/// Keeps the queries of a proxy in a data folder, until the writer is dropped. Where that cannot be, the log says so: a
/// proxy does without files, and the ranking of queries without a past.
pub(super) fn keep(settings: &raw::Journal, data: &Path, proxy: &Proxy) -> Option<Writer> {
    let top = Top::open(Some(data.join(top::FILE)), now_ms());
    let settings = journal::Settings {
        folder: settings.enabled.then(|| data.join(FOLDER)),
        size: settings.size.0.get(),
        text: settings.text.kept(),
    };
    let started = Journal::start(settings.clone(), top.clone()).or_else(|error| {
        let folder = data.display();
        tracing::warn!(%error, %folder, "no journal of queries is kept; `--data` names a folder that can be written to");
        Journal::start(journal::Settings { folder: None, ..settings }, top)
    });
    match started {
        Ok((journal, writer)) => {
            proxy.journal_to(journal);
            Some(writer)
        }
        Err(error) => {
            tracing::warn!(%error, "queries are not ranked");
            None
        }
    }
}
