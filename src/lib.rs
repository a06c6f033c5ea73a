//! Weir: a proxy that limits the cost of queries to Prometheus-compatible databases.
//!
//! # The life of a query
//!
//! ```text
//! respond ▶ identify ▶ rate ▶ parse ▶ rules ▶ estimate ▶ replan ▶ admit ▶ meter ▶ split ▶ forward ▶ database
//!                                                                           │
//!                                                                           └ settles the permit at the last byte
//! ```
//!
//! [`proxy`] is this stack of tower layers; `proxy/stack.rs` shows it from top to bottom, with the errors of each.
//! [`promql`] reads the query, [`cost`] prices it, [`limit`] says whether it may run now, [`backend`] runs it.
//!
//! # The limits before a service of your own
//!
//! [`limit`] knows no HTTP and no PromQL. Its layers stand before any [`tower::Service`]: here at most four reports and
//! 1 GiB at a time, shared fairly between teams. A request without room waits in the future of its call; dropping that
//! leaves the queue, and dropping a response gives back its share.
//!
//! ```
//! use std::{error::Error, sync::Arc, time::Duration};
//!
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use weir::{
//!     base::{Estimate, QueryCost, TenantId},
//!     limit::{
//!         Admissible, Admission, AdmissionRequest, AdmitLayer, Admitted, BackendBudget, Charged, HoldLayer, Limit,
//!         Permitted, Policy, Refusal, SlowLane,
//!     },
//! };
//!
//! /// A report, and the memory that making it takes.
//! struct Report {
//!     team: TenantId,
//!     bytes: u64,
//! }
//!
//! impl Admissible for Report {
//!     type Admitted = Permitted<Self>;
//!     type Refused = Refusal;
//!
//!     fn admission_request(&self) -> AdmissionRequest {
//!         AdmissionRequest {
//!             payers: [self.team.clone()].into(),
//!             actor: "quarterly".into(),
//!             class: None,
//!             backend: "reports".into(),
//!             cost: QueryCost { memory: Estimate::exact(self.bytes), ..QueryCost::NOTHING },
//!             deadline: tokio::time::Instant::now() + Duration::from_secs(30),
//!             charged: Charged::Nothing,
//!             slow: false,
//!             tag: 0,
//!         }
//!     }
//!
//!     fn admitted(self, admitted: Admitted) -> Permitted<Self> {
//!         Permitted::new(self, admitted.permit)
//!     }
//!
//!     fn refused(self, refusal: Refusal) -> Refusal {
//!         refusal
//!     }
//! }
//!
//! async fn make(report: Report) -> Result<String, Box<dyn Error + Send + Sync>> {
//!     Ok(format!("the report of {}", report.team))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
//! let admission = Admission::new(Policy {
//!     backends: vec![BackendBudget {
//!         name: "reports".into(),
//!         memory: Limit::enforce(1 << 30),
//!         queries: Limit::enforce(4),
//!         slow: SlowLane::default(),
//!         unproven_percent: 100,
//!         linger: Duration::ZERO,
//!     }],
//!     ..Policy::default()
//! });
//! let service = ServiceBuilder::new()
//!     .layer(AdmitLayer::new(Arc::clone(&admission)))
//!     // The permit goes with the response.
//!     .layer(HoldLayer)
//!     .service(service_fn(make));
//!
//! let team = TenantId::new("sales").ok_or("a name")?;
//! let small = Report { team: team.clone(), bytes: 300 << 20 };
//! let response = service.clone().oneshot(small).await?;
//! assert_eq!(response.get(), "the report of sales");
//! assert_eq!(admission.snapshot().backends[0].memory, 300 << 20);
//! drop(response);
//! assert_eq!(admission.snapshot().backends[0].memory, 0);
//!
//! let huge = Report { team, bytes: 2 << 30 };
//! let refused = service.oneshot(huge).await.expect_err("more than there is");
//! assert!(refused.to_string().contains("weir-budget-never"), "{refused}");
//! # Ok(())
//! # }
//! ```
//!
//! # Floors
//!
//! A module imports only from the floors below it; `tests/tidy.rs` holds the table and fails on an import that climbs.
//!
//! | floor | modules |
//! |---|---|
//! | 0 | [`base`], [`series`] |
//! | 1 | [`telemetry`], [`promql`], [`http`], [`expressions`] |
//! | 2 | [`cost`], [`limit`], [`fleet`], [`backend`], [`rules`], [`top`], [`journal`] |
//! | 3 | [`node`], [`proxy`], [`admin`] |
//! | 4 | [`config`] |
//! | 5 | [`replay`], [`cli`] |

// Code that tests and benchmarks share uses this crate by its name.
#[cfg(test)]
extern crate self as weir;

pub mod admin;
pub mod backend;
pub mod base;
pub mod cli;
pub mod config;
pub mod cost;
pub mod expressions;
pub mod fleet;
pub mod http;
pub mod journal;
pub mod limit;
pub mod node;
pub mod promql;
pub mod proxy;
pub mod replay;
pub mod rules;
pub mod series;
pub mod telemetry;
pub mod top;
