//! CORS headers for pages of other hosts, as Prometheus sends them.

/// Headers of an answer to such a request, in lower case: scripts from anywhere may read it. Neither proxy nor node
/// keeps cookies, so that nothing is given away that a plain request would not get.
pub const TO_SCRIPTS: [(&str, &str); 4] = [
    ("access-control-allow-headers", "Accept, Authorization, Content-Type, Origin"),
    ("access-control-allow-methods", "GET, POST, OPTIONS"),
    ("access-control-allow-origin", "*"),
    (
        "access-control-expose-headers",
        "Date, Retry-After, Server-Timing, Weir-Cost, Weir-Error, Weir-Estimate, Weir-Limit",
    ),
];
