//! Admission over the runtime's stopped clock.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::*;
use crate::base::{
    Confidence, Estimate, QueryCost, TenantId, TenantPrefixes,
    distress::{Distress, Signal},
};

mod adversary;
mod bounds;
mod fairness;
mod lanes;
mod leased;
mod leased_tenants;
mod preflight;
mod quotas;
mod readers;
mod scale;
mod shut_out;
mod simulation;
mod slow;
mod window;

/// A policy with one backend and, for every tenant, the limits made by `change`.
fn policy(memory: u64, queries: u64, change: impl FnOnce(&mut TenantPolicy)) -> Policy {
    let mut tenant = TenantPolicy::default();
    change(&mut tenant);
    Policy { default: Arc::new(tenant), backends: vec![budget("main", memory, queries)], ..Policy::default() }
}

/// A budget that is open from the start, of a backend that notices at once that a client left.
fn budget(name: &str, memory: u64, queries: u64) -> BackendBudget {
    BackendBudget {
        name: name.into(),
        memory: Limit::enforce(memory),
        queries: Limit::enforce(queries),
        slow: SlowLane::default(),
        unproven_percent: 100,
        linger: Duration::ZERO,
    }
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// A query of this many bytes that would wait an hour.
fn ask(name: &str, memory: u64) -> AdmissionRequest {
    AdmissionRequest {
        payers: [tenant(name)].into(),
        actor: "actor".into(),
        class: None,
        backend: "main".into(),
        cost: QueryCost { memory: Estimate::new(memory, Confidence::UpperBound), ..QueryCost::NOTHING },
        deadline: Instant::now() + Duration::from_secs(3600),
        charged: Charged::Nothing,
        slow: false,
        tag: 0,
    }
}

fn of_class(class: &str, request: AdmissionRequest) -> AdmissionRequest {
    AdmissionRequest { class: Some(class.into()), ..request }
}

/// Lets queries of this size run until one has to wait.
fn fill(admission: &Arc<Admission>, request: &AdmissionRequest) -> Vec<Admitted> {
    std::iter::from_fn(|| admission.admit(request.clone()).now_or_never()?.ok()).collect()
}

fn answered(running: impl IntoIterator<Item = Admitted>) {
    for one in running {
        one.permit.settle(Actual { end: End::Answered, ..Actual::default() });
    }
}

/// An observation of the backend, with the bytes in flight now.
fn look(admission: &Arc<Admission>, distress: &Distress) {
    let in_flight = admission.take_peak("main").unwrap();
    admission.observe("main", distress, in_flight);
}

fn pressure(signal: Signal, of: f64) -> Distress {
    Distress { pressure: Some((signal, of)), ..Distress::NONE }
}
