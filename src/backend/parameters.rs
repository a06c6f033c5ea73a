//! Parameters and headers by which a client makes a backend read more, evaluate otherwise, or see other data, by kind
//! of backend. Sources: `src/query/api/v1/handler/prometheus/handleroptions` of M3, `app/vmselect/prometheus` and
//! `searchutil` of VictoriaMetrics, `pkg/api/query/v1.go` of Thanos, `pkg/api/queryapi` of Cortex, `web/api/v1` of
//! Prometheus.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

use http::{HeaderMap, HeaderName};

use crate::base::{
    Kind::{self, Cortex, M3, Mimir, Prometheus, Thanos, VictoriaMetrics, Weir},
    TimeDialect,
    params::{ParamError, Params},
};

/// The treatment of a parameter or a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Forwarded: it makes no backend read more.
    Pass,
    /// Forwarded, and part of the estimate.
    Priced,
    /// Forwarded, sent with probes too, and part of the data scope: it selects data.
    Scope,
    /// Not forwarded.
    Strip,
    /// The request is refused unless the value is this one.
    Only(&'static str),
    /// The request is refused.
    Refuse,
}
use Treatment::{Only, Pass, Priced, Refuse, Scope, Strip};

/// Names, the kinds that read them, and their treatment there. The first row counts.
type Row = (&'static [&'static str], &'static [Kind], Treatment);

/// Parameters of the URL and of forms. One without a row is forwarded only to kinds that are known to read no others.
const PARAMETERS: &[Row] = &[
    (&["query", "start", "end", "step", "time", "timeout", "match[]", "limit", "stats"], &Kind::ALL, Pass),
    (
        &[
            "search",
            "search[]",
            "fuzz_threshold",
            "fuzz_alg",
            "case_sensitive",
            "sort_by",
            "sort_dir",
            "include_score",
            "include_metadata",
            "label",
            "batch_size",
        ],
        &Kind::ALL,
        Pass,
    ),
    (&["lookback_delta"], &[Prometheus, Thanos, Mimir, Cortex, Weir], Priced),
    (&["max_lookback"], &[VictoriaMetrics], Priced),
    (&["extra_label", "extra_filters", "extra_filters[]"], &[VictoriaMetrics], Scope),
    (
        &["round_digits", "deny_partial_response", "optimize_repeated_binary_op_subexprs"],
        &[VictoriaMetrics],
        Pass,
    ),
    (&["max_source_resolution"], &[Thanos], Priced),
    // Without deduplication every replica's series are read and returned; the listing obeys the same parameters.
    (&["dedup", "replicaLabels[]", "storeMatch[]"], &[Thanos], Scope),
    // Its own engine holds less than Prometheus', by which queries are priced.
    (&["partial_response", "engine", "analyze"], &[Thanos], Pass),
    // A serialised plan that runs instead of the query.
    (&["plan"], &[Cortex, Mimir, Thanos], Refuse),
    (&["lookback"], &[M3], Priced),
    // The other engine ignores `@` and has other rules for time.
    (&["engine"], &[M3], Only("prometheus")),
    (
        &[
            "docsLimit",
            "rangeLimit",
            "returnedSeriesLimit",
            "returnedDatapointsLimit",
            "returnedSeriesMetadataLimit",
            "requireExhaustive",
            "requireNoWait",
        ],
        &[M3],
        Pass,
    ),
];

/// Headers. One without a row is forwarded, unless its name begins with one of [`OWN_PREFIXES`].
const HEADERS: &[Row] = &[
    (
        &["authorization", "cookie", "x-scope-orgid", "thanos-tenant", "accountid", "projectid"],
        &Kind::ALL,
        Scope,
    ),
    // No result cache for this request: a full read each time.
    (&["cache-control", "pragma"], &Kind::ALL, Strip),
    // Answers are measured as JSON. Cortex 1.21 ends its process on a listing that is asked for as protobuf.
    (&["accept"], &Kind::ALL, Strip),
    (&["sharding-control"], &[Mimir, Cortex], Strip),
    (&["m3-engine"], &[M3], Only("prometheus")),
    (
        &[
            "m3-metrics-type",
            "m3-storage-policy",
            "m3-restrict-by-storage-policies",
            "m3-restrict-by-tags-json",
        ],
        &[M3],
        Scope,
    ),
    (
        &[
            "m3-limit-max-series",
            "m3-limit-max-docs",
            "m3-limit-max-range",
            "m3-limit-max-returned-series",
            "m3-limit-max-returned-datapoints",
            "m3-limit-max-returned-seriesmetadata",
            "m3-limit-max-metric-metadata-stats",
            "m3-limit-require-exhaustive",
            "m3-limit-require-no-wait",
            "m3-timeout",
            "m3-source",
            "timeout",
        ],
        &[M3],
        Pass,
    ),
];

/// How the names of a kind's own headers begin; those in no row of [`HEADERS`] are not forwarded.
const OWN_PREFIXES: &[(&str, &[Kind])] = &[
    ("m3-", &[M3]),
    ("x-cortex-", &[Cortex, Mimir]),
    ("x-mimir-", &[Cortex, Mimir]),
    ("x-promql-", &[Cortex, Mimir]),
    ("thanos-", &[Thanos]),
];

/// The treatment of a parameter.
pub fn of_parameter(kind: Kind, name: &str) -> Treatment {
    find(PARAMETERS, kind, name).unwrap_or(match kind {
        Prometheus | Weir => Pass,
        VictoriaMetrics | Thanos | Mimir | Cortex | M3 => Strip,
    })
}

/// The treatment of a header.
pub fn of_header(kind: Kind, name: &HeaderName) -> Treatment {
    let name = name.as_str();
    find(HEADERS, kind, name).unwrap_or_else(|| {
        let is_own = |(prefix, kinds): &&(&str, &[Kind])| kinds.contains(&kind) && name.starts_with(prefix);
        if OWN_PREFIXES.iter().any(|row| is_own(&row)) { Strip } else { Pass }
    })
}

/// Whether this kind is known to read the header.
pub fn knows_header(kind: Kind, name: &str) -> bool {
    find(HEADERS, kind, name).is_some()
}

fn find(rows: &[Row], kind: Kind, name: &str) -> Option<Treatment> {
    let row = rows.iter().find(|(names, kinds, _)| kinds.contains(&kind) && names.contains(&name));
    row.map(|(.., treatment)| *treatment)
}

/// A parameter or header that a backend would obey, and Weir does not price.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    name: String,
    only: Option<&'static str>,
    kind: Kind,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, only, kind } = self;
        let kind = kind.as_str();
        match only {
            Some(only) => write!(
                f,
                "`{name}` may only be `{only}` here: kind {kind} would run the query otherwise than it is priced"
            ),
            None => write!(
                f,
                "`{name}` is not allowed here: kind {kind} would run something else than the query that is priced"
            ),
        }
    }
}

impl std::error::Error for Refused {}

fn check(kind: Kind, treatment: Treatment, name: &str, value: &str) -> Result<(), Refused> {
    let refused = |only| Err(Refused { name: name.to_owned(), only, kind });
    match treatment {
        Refuse => refused(None),
        Only(only) if value != only && !value.is_empty() => refused(Some(only)),
        _ => Ok(()),
    }
}

/// The data scope of a request, beside its selectors: part of the key of their counts and history, and
/// all that a probe carries of a client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataScope {
    /// Headers.
    pub headers: HeaderMap,
    /// Decoded parameters.
    pub parameters: Vec<(String, String)>,
    key: String,
}

impl DataScope {
    /// Of headers on their way to the backend and the parameters of a request.
    ///
    /// # Errors
    /// A parameter of the scope is in the URL and in the form: which of them counts differs from kind to kind.
    pub fn new(kind: Kind, headers: &HeaderMap, url_query: &str, form: &str) -> Result<Self, ParamError> {
        let is_scope = |name: &HeaderName| of_header(kind, name) == Scope;
        let headers = headers.iter().filter(|(name, _)| is_scope(name));
        let headers: HeaderMap = headers.map(|(name, value)| (name.clone(), value.clone())).collect();
        let selects = |row: &Row| row.1.contains(&kind) && row.2 == Scope;
        if !PARAMETERS.iter().any(selects) {
            return Ok(Self::of(headers, Vec::new()));
        }
        let of = |text: &str| -> Vec<(String, String)> {
            let selecting = text.split('&').filter(|part| of_parameter(kind, &name_of(part)) == Scope);
            let pairs = selecting.flat_map(|part| form_urlencoded::parse(part.as_bytes()));
            pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
        };
        let (mut parameters, in_form) = (of(url_query), of(form));
        if !parameters.is_empty() && !in_form.is_empty() {
            return Err(ParamError::Malformed("parameters that select data are in the URL and in the form"));
        }
        parameters.extend(in_form);
        Ok(Self::of(headers, parameters))
    }

    /// Of parameters that select data.
    pub fn of(headers: HeaderMap, parameters: Vec<(String, String)>) -> Self {
        let mut key = String::new();
        let of_headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let of_parameters = parameters.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        for (name, value) in of_headers.chain(of_parameters) {
            // Writing to a string cannot fail.
            let _ = write!(key, "{name:?}=\"{}\";", value.escape_ascii());
        }
        Self { headers, parameters, key }
    }

    /// The scope as one text, for keys: neighbours cannot trade characters.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// A query string or a form without the parameters that are not forwarded; the rest as it came.
///
/// # Errors
/// A parameter that is refused.
pub fn filter_parameters(kind: Kind, text: &str) -> Result<Cow<'_, str>, Refused> {
    let parts = || text.split('&').filter(|part| !part.is_empty());
    let mut strips = false;
    for part in parts() {
        let name = name_of(part);
        let treatment = of_parameter(kind, &name);
        strips |= treatment == Strip;
        if matches!(treatment, Only(_) | Refuse) {
            let value = form_urlencoded::parse(part.as_bytes()).next().map(|(_, value)| value);
            check(kind, treatment, &name, &value.unwrap_or_default())?;
        }
    }
    if !strips {
        return Ok(Cow::Borrowed(text));
    }
    let kept: Vec<_> = parts().filter(|part| of_parameter(kind, &name_of(part)) != Strip).collect();
    Ok(Cow::Owned(kept.join("&")))
}

/// The decoded name of a parameter, of which this is the text.
fn name_of(part: &str) -> Cow<'_, str> {
    let name = part.split('=').next().unwrap_or_default();
    if name.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return form_urlencoded::parse(name.as_bytes()).next().map(|(name, _)| name).unwrap_or_default();
    }
    Cow::Borrowed(name)
}

/// Removes the headers that are not forwarded.
///
/// # Errors
/// A header that is refused.
pub fn filter_headers(kind: Kind, headers: &mut HeaderMap) -> Result<(), Refused> {
    let mut stripped: Vec<HeaderName> = Vec::new();
    for (name, value) in &*headers {
        let treatment = of_header(kind, name);
        check(kind, treatment, name.as_str(), value.to_str().unwrap_or("?"))?;
        if treatment == Strip {
            stripped.push(name.clone());
        }
    }
    for name in stripped {
        headers.remove(name);
    }
    Ok(())
}

/// How far back a selector without a range looks, milliseconds: at least Prometheus' default, or the value by the
/// request's parameters. `step_ms` is 0 where a request names none.
pub fn lookback_ms(
    kind: Kind,
    dialect: TimeDialect,
    params: &Params<'_>,
    default_ms: u64,
    step_ms: u64,
) -> Result<u64, ParamError> {
    let given = |name| {
        params.duration_in(name, dialect).map(|ms| ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0))
    };
    let asked = match kind {
        // A lower one is not believed: a query-frontend may leave it out.
        Prometheus | Mimir | Cortex | Weir => given("lookback_delta")?,
        Thanos => given("lookback_delta")?.max(resolution_ms(params, dialect, step_ms)?),
        // Rollups without a window look back by the step, instant queries too.
        VictoriaMetrics => given("max_lookback")?.max(step_ms),
        M3 if params.first("lookback") == Some("step") => step_ms,
        M3 => given("lookback")?,
    };
    Ok(asked.max(default_ms))
}

/// Thanos looks back by the resolution of the blocks that it may read: raw, 5 m or 1 h.
fn resolution_ms(params: &Params<'_>, dialect: TimeDialect, step_ms: u64) -> Result<u64, ParamError> {
    const HOUR_MS: u64 = 3_600_000;
    let most = match params.first("max_source_resolution") {
        Some("auto") => step_ms / 5,
        _ => params.duration_in("max_source_resolution", dialect)?.map_or(0, |ms| ms.max(0) as u64),
    };
    Ok(if most >= HOUR_MS { HOUR_MS } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT_MS: u64 = 300_000;

    /// Every row: the treatment of a parameter at each kind, in the order of `Kind::ALL`.
    #[test]
    fn every_parameter_has_its_treatment_by_kind() {
        // P pass, £ priced, S scope, - stripped, O only one value, R refused.
        for (name, want) in [
            ("query", "PPPPPPP"),
            ("timeout", "PPPPPPP"),
            ("match[]", "PPPPPPP"),
            ("limit", "PPPPPPP"),
            ("lookback_delta", "£-£££-£"),
            ("max_lookback", "P£----P"),
            ("extra_label", "PS----P"),
            ("extra_filters[]", "PS----P"),
            ("round_digits", "PP----P"),
            ("nocache", "P-----P"),
            ("latency_offset", "P-----P"),
            ("trace", "P-----P"),
            ("max_source_resolution", "P-£---P"),
            ("dedup", "P-S---P"),
            ("replicaLabels[]", "P-S---P"),
            ("storeMatch[]", "P-S---P"),
            ("partial_response", "P-P---P"),
            ("shard_info", "P-----P"),
            ("plan", "P-RRR-P"),
            ("engine", "P-P--OP"),
            ("lookback", "P----£P"),
            ("docsLimit", "P----PP"),
            ("readConsistencyLevel", "P-----P"),
            ("block-type", "P-----P"),
            ("anything", "P-----P"),
        ] {
            let got: String = Kind::ALL.map(|kind| letter(of_parameter(kind, name))).into_iter().collect();
            assert_eq!(got, want, "{name}");
        }
    }

    #[test]
    fn every_header_has_its_treatment_by_kind() {
        for (name, want) in [
            ("authorization", "SSSSSSS"),
            ("x-scope-orgid", "SSSSSSS"),
            ("accountid", "SSSSSSS"),
            ("cache-control", "-------"),
            ("user-agent", "PPPPPPP"),
            ("x-dashboard-uid", "PPPPPPP"),
            ("x-promql-enginetype", "PPP--PP"),
            ("x-cortex-blockstore-type", "PPP--PP"),
            ("x-mimir-force-prometheus-engine", "PPP--PP"),
            ("m3-limit-max-series", "PPPPPPP"),
            ("m3-limit-instance-multiple", "PPPPP-P"),
            ("m3-read-consistency-level", "PPPPP-P"),
            ("m3-related-queries", "PPPPP-P"),
            ("m3-restrict-by-tags-json", "PPPPPSP"),
            ("m3-storage-policy", "PPPPPSP"),
            ("m3-engine", "PPPPPOP"),
        ] {
            let of = |kind| letter(of_header(kind, &HeaderName::from_static(name)));
            assert_eq!(Kind::ALL.map(of).into_iter().collect::<String>(), want, "{name}");
        }
    }

    fn letter(treatment: Treatment) -> char {
        match treatment {
            Pass => 'P',
            Priced => '£',
            Scope => 'S',
            Strip => '-',
            Only(_) => 'O',
            Refuse => 'R',
        }
    }

    #[test]
    fn what_is_not_in_the_table_stays_here_and_the_rest_goes_on_as_it_came() {
        let filter = |kind, text| filter_parameters(kind, text).map(Cow::into_owned);
        let plain = "query=up%7B%7D&time=5&match%5B%5D=a";
        assert!(matches!(filter_parameters(Prometheus, plain), Ok(Cow::Borrowed(same)) if same == plain));
        assert_eq!(filter(VictoriaMetrics, "query=up&no%63ache=1&step=5"), Ok("query=up&step=5".to_owned()));
        assert_eq!(filter(M3, "engine=prometheus&query=up").unwrap(), "engine=prometheus&query=up");
        let refused = filter(M3, "query=up&engine=m3query").unwrap_err().to_string();
        assert!(refused.starts_with("`engine` may only be `prometheus` here: kind m3"), "{refused}");
        assert!(filter(Cortex, "query=up&pl%61n=x").is_err());
    }

    #[test]
    fn a_scope_is_what_selects_data_and_nothing_else() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer a"),
            ("user-agent", "Grafana"),
            ("m3-limit-max-returned-seriesmetadata", "1"),
            ("m3-storage-policy", "1m:14d"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let scope = DataScope::new(M3, &headers, "query=up&lookback=5m", "").unwrap();
        let mut names: Vec<_> = scope.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!((names, scope.parameters.len()), (vec!["authorization", "m3-storage-policy"], 0));
        let dedup = |url: &str, form: &str| DataScope::new(Thanos, &HeaderMap::new(), url, form);
        assert_eq!(dedup("", "dedup=false").unwrap(), dedup("dedup=f%61lse", "").unwrap());
        assert_ne!(dedup("dedup=true", "").unwrap().key(), dedup("dedup=false", "").unwrap().key());
        assert!(dedup("dedup=true", "dedup=false").is_err());
        filter_headers(M3, &mut headers).unwrap();
        assert!(headers.contains_key("m3-limit-max-returned-seriesmetadata"));
        headers.insert("m3-engine", "m3query".parse().unwrap());
        assert!(filter_headers(M3, &mut headers).is_err());
    }

    #[test]
    fn what_widens_a_lookback_is_heard_by_those_that_it_is_meant_for() {
        let hour = 3_600_000;
        for (kind, text, step, want) in [
            (Prometheus, "lookback_delta=1h", 0, hour),
            (Prometheus, "lookback_delta=1m", 0, DEFAULT_MS),
            (Prometheus, "", hour, DEFAULT_MS),
            (M3, "lookback_delta=6h", 0, DEFAULT_MS),
            (M3, "lookback=6h", 0, 6 * hour),
            (M3, "lookback=step", hour, hour),
            (VictoriaMetrics, "step=30d", 720 * hour, 720 * hour),
            (VictoriaMetrics, "max_lookback=2h", 15_000, 2 * hour),
            (Thanos, "max_source_resolution=1h", 0, hour),
            (Thanos, "max_source_resolution=auto", 5 * hour, hour),
            (Thanos, "max_source_resolution=5m", 0, DEFAULT_MS),
            (Cortex, "lookback_delta=2h", 0, 2 * hour),
        ] {
            let params = Params::parse(text, "").unwrap();
            assert_eq!(
                lookback_ms(kind, TimeDialect::Prometheus, &params, DEFAULT_MS, step),
                Ok(want),
                "{kind:?} {text}"
            );
        }
        let broken = Params::parse("lookback=soon", "").unwrap();
        assert!(lookback_ms(M3, TimeDialect::M3, &broken, DEFAULT_MS, 0).is_err());
    }
}
