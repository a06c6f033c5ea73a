//! Starts the journal of queries.

use std::path::Path;

use crate::{
    config::raw,
    journal::{self, FOLDER, Writer},
    proxy::Proxy,
};

/// Keeps the queries of a proxy in a data folder, until the writer is dropped. Where that cannot be, the log says so: a
/// proxy does without.
pub(super) fn keep(settings: &raw::Journal, data: &Path, proxy: &Proxy) -> Option<Writer> {
    let settings = settings.enabled.then(|| journal::Settings {
        folder: data.join(FOLDER),
        size: settings.size.0.get(),
        text: settings.text.kept(),
    })?;
    let folder = settings.folder.clone();
    match journal::Journal::start(settings) {
        Ok((journal, writer)) => {
            proxy.journal_to(journal);
            Some(writer)
        }
        Err(error) => {
            let folder = folder.display();
            tracing::warn!(%error, %folder, "no journal of queries is kept; `--data` names a folder that can be written to");
            None
        }
    }
}
