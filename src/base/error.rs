//! The closed list of ways a request can fail: status, Prometheus `errorType`, metric label and blame in one place.
//!
//! Grafana renders the JSON of 2xx, 400, 422 and 503 only; that decides most statuses here.

/// The party at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The client: asking again will not help.
    Client,
    /// Weir's own limits: asking later or for less may help.
    Limit,
    /// The backend.
    Upstream,
    /// Weir itself.
    Internal,
}

/// The header of every error that Weir makes, and of none that comes from a database: the id of its entry in
/// `docs/errors.md`.
pub const WEIR_ERROR: &str = "weir-error";

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $status:literal, $error_type:literal, $label:literal, $blame:ident;)*) => {
        /// A way for a request to fail.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ErrorKind { $($(#[$doc])* $name,)* }

        impl ErrorKind {
            /// Every kind, for metrics and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// HTTP status.
            pub const fn status(self) -> u16 { match self { $(Self::$name => $status,)* } }

            /// Prometheus' `errorType`.
            pub const fn error_type(self) -> &'static str { match self { $(Self::$name => $error_type,)* } }

            /// Metric and log label.
            pub const fn label(self) -> &'static str { match self { $(Self::$name => $label,)* } }

            /// The party at fault.
            pub const fn blame(self) -> Blame { match self { $(Self::$name => Blame::$blame,)* } }
        }
    };
}

kinds! {
    /// The query or a parameter is malformed.
    BadData => 400, "bad_data", "bad_data", Client;
    /// No acceptable credentials.
    Unauthorized => 401, "unauthorized", "unauthorized", Client;
    /// Known, but not allowed.
    Forbidden => 403, "forbidden", "forbidden", Client;
    /// No such endpoint.
    NotFound => 404, "not_found", "not_found", Client;
    /// The endpoint does not take this method.
    MethodNotAllowed => 405, "bad_data", "method_not_allowed", Client;
    /// The request body did not arrive in time.
    BodyLate => 408, "timeout", "body_late", Client;
    /// The request body is larger than Weir reads.
    BodyTooLarge => 413, "bad_data", "body_too_large", Client;
    /// The request body is of a kind that the endpoint does not take.
    UnsupportedMediaType => 415, "bad_data", "unsupported_media_type", Client;
    /// A per-query limit, or a budget that the query can never fit.
    LimitExceeded => 422, "execution", "limit_exceeded", Limit;
    /// A rate limit: later, yes.
    RateLimited => 429, "too_many_requests", "rate_limited", Limit;
    /// The queue is full.
    QueueFull => 503, "unavailable", "queue_full", Limit;
    /// The wait for budget timed out.
    QueueTimeout => 503, "timeout", "queue_timeout", Limit;
    /// The backend is sick and Weir sheds load.
    BackendSick => 503, "unavailable", "backend_sick", Upstream;
    /// The keys of an issuer of tokens could not be fetched yet: nobody can say whose the token is.
    IdentityUnavailable => 503, "unavailable", "identity_unavailable", Upstream;
    /// Weir is shutting down.
    ShuttingDown => 503, "unavailable", "shutting_down", Internal;
    /// The backend could not be reached or broke the protocol.
    UpstreamDead => 502, "unavailable", "upstream_dead", Upstream;
    /// The backend did not answer in time.
    UpstreamTimeout => 504, "timeout", "upstream_timeout", Upstream;
    /// A defect in Weir.
    Internal => 500, "internal", "internal", Internal;
}
