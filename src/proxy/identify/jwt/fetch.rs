//! Keys from a URL: fetched in the background, and the old ones kept while that fails.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

use super::{JwtSource, KeySet, keys::BYTES_MAX};
use crate::{
    backend::{self, BaseUrl, Kind, get_once},
    telemetry::metrics::Metrics,
};

/// Shortest time between two fetches, for any tokens.
const PAUSE: Duration = Duration::from_secs(10);

/// Where keys are fetched.
#[derive(Debug)]
pub struct KeyUrl {
    text: String,
    settings: backend::Settings,
    target: String,
    refresh: Duration,
    nudged: Notify,
}

impl KeyUrl {
    /// The keys at a URL, fetched anew after each `refresh`.
    ///
    /// # Errors
    /// It is no URL, or not one of HTTP.
    pub fn new(url: &str, tls: Option<backend::Tls>, refresh: Duration) -> Result<Self, String> {
        let uri: http::Uri = url.parse().map_err(|_| "is no URL".to_owned())?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err("needs `https://` and a host in front".to_owned());
        };
        let base = BaseUrl::parse(&format!("{scheme}://{authority}"))?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let settings =
            backend::Settings { tls, ..backend::Settings::new("jwks", Kind::Prometheus, vec![base]) };
        Ok(Self { text: url.to_owned(), settings, target, refresh, nudged: Notify::new() })
    }

    /// A token names a key that is not here: the keys are fetched soon.
    pub(super) fn nudge(&self) {
        self.nudged.notify_one();
    }
}

impl JwtSource {
    /// Takes the keys of the source of an earlier configuration with the same URL, until its own are here.
    pub(in crate::proxy) fn take_over(&self, before: &Self) {
        let url = |source: &Self| source.url.as_ref().map(|url| url.text.clone());
        if url(self).is_some() && url(self) == url(before) {
            self.keys.store(before.keys.load_full());
        }
    }

    /// Fetches the keys now and again, for ever; one of a file has nothing to do.
    pub(in crate::proxy) async fn keep_keys(self: Arc<Self>, metrics: Arc<Metrics>) {
        let Some(url) = &self.url else { return };
        let mut failing = false;
        loop {
            let began = Instant::now();
            let fetched = get_once(url.settings.clone(), &url.target, BYTES_MAX).await;
            let keys = fetched.map_err(|error| error.to_string());
            match keys.and_then(|bytes| KeySet::read(&bytes)) {
                Ok(keys) => {
                    metrics.keys_fetched(true);
                    self.keys.store(Arc::new(keys));
                    failing = false;
                }
                Err(error) => {
                    metrics.keys_fetched(false);
                    // Once for each time that it begins to fail.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(
                            url = url.text,
                            error,
                            "the keys of JWTs cannot be fetched; the old ones stay"
                        );
                    }
                }
            }
            sleep(PAUSE).await;
            // Nobody waits for keys that are missing longer than for those that are old.
            let wait = if failing { PAUSE } else { url.refresh.max(PAUSE) };
            let _ = timeout_at(began + wait, url.nudged.notified()).await;
        }
    }
}
