//! The use of tenants' quotas, kept on disk between runs.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    base::{TenantId, files, share::TokenKind},
    limit::QuotaUse,
    proxy::Proxy,
};

/// Time between two writes: a crash forgets no more.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// The file in the data folder.
const FILE: &str = "quotas.json";

/// One quota of one tenant.
#[derive(Deserialize, Serialize)]
struct Row {
    tenant: String,
    quota: String,
    /// The length of its window in seconds, and the number of the window since 1970.
    seconds: u64,
    window: u64,
    used: u64,
}

/// The quotas of a proxy's tenants and their file.
#[derive(Clone, Debug)]
pub(super) struct Quotas {
    proxy: Arc<Proxy>,
    file: PathBuf,
}

impl Quotas {
    /// Takes over the counts of the file; a missing one counts as empty, and so does a damaged one, with a warning.
    pub(super) fn open(folder: &Path, proxy: &Arc<Proxy>) -> Self {
        let quotas = Self { proxy: Arc::clone(proxy), file: folder.join(FILE) };
        match fs::read(&quotas.file).and_then(|text| Ok(serde_json::from_slice::<Vec<Row>>(&text)?)) {
            Ok(rows) => {
                let used: Vec<_> = rows.into_iter().filter_map(Row::read).collect();
                quotas.proxy.admission.restore_quotas(&used);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "quotas start anew"),
        }
        quotas
    }

    /// Writes the file anew, whole or not at all. While no quota is used there is none.
    pub(super) fn save(&self) {
        let used = self.proxy.admission.quotas_used();
        if used.is_empty() {
            return;
        }
        let rows: Vec<_> = used.iter().map(|(tenant, used)| Row::of(tenant, used)).collect();
        let text = serde_json::to_vec(&rows).map_err(io::Error::other);
        if let Err(error) = text.and_then(|text| files::replace(&self.file, &text, false)) {
            tracing::warn!(%error, "what was used of quotas is not kept over a restart");
        }
    }

    /// Saves every minute, until the future is dropped.
    pub(super) async fn keep(self) {
        loop {
            tokio::time::sleep(SAVE_EVERY).await;
            let quotas = self.clone();
            // A failed join is a panic in a write: logged by the hook, and the next minute is another chance.
            let _ = tokio::task::spawn_blocking(move || quotas.save()).await;
        }
    }
}

impl Row {
    fn of(tenant: &TenantId, used: &QuotaUse) -> Self {
        let (window, length) = used.window;
        let (tenant, quota) = (tenant.to_string(), used.kind.as_str().to_owned());
        Self { tenant, quota, seconds: length.as_secs(), window, used: used.own }
    }

    fn read(self) -> Option<(TenantId, QuotaUse)> {
        let kind = TokenKind::ALL.into_iter().find(|kind| kind.as_str() == self.quota)?;
        let window = (self.window, Duration::from_secs(self.seconds));
        Some((TenantId::new(&self.tenant)?, QuotaUse { kind, window, own: self.used, all: self.used }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_written_and_a_strange_one_not_at_all() {
        let tenant = TenantId::new("a").unwrap();
        let window = (20_787, Duration::from_secs(86_400));
        let used = QuotaUse { kind: TokenKind::Samples, window, own: 7, all: 7 };
        let text = serde_json::to_string(&Row::of(&tenant, &used)).unwrap();
        let read = |text: &str| serde_json::from_str::<Row>(text).unwrap().read();
        assert_eq!(read(&text), Some((tenant, used)));
        assert_eq!(read(&text.replace("samples", "bytes")), None);
    }
}
