//! Admission over the runtime's stopped clock.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::*;
use crate::base::{Allowance, Confidence, Estimate, QueryCost, TenantId};

mod bounds;
mod door;
mod fairness;
mod pressure;
mod proof;
mod scale;
mod simulation;

/// A policy with one backend and, for every tenant, the limits made by `change`.
fn policy(memory: u64, queries: u64, change: impl FnOnce(&mut TenantPolicy)) -> Policy {
    let mut tenant = TenantPolicy::default();
    change(&mut tenant);
    let main = BackendBudget {
        name: "main".into(),
        memory: Limit::enforce(memory),
        queries: Limit::enforce(queries),
        unproven_percent: 100,
    };
    Policy { default: Arc::new(tenant), backends: vec![main], ..Policy::default() }
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// A query of so many bytes that would wait an hour.
fn ask(name: &str, memory: u64) -> Ask {
    Ask {
        tenant: tenant(name),
        actor: "actor".into(),
        class: ClassId::NONE,
        backend: BackendId(0),
        cost: QueryCost { memory: Estimate::new(memory, Confidence::UpperBound), ..QueryCost::NOTHING },
        deadline: Instant::now() + Duration::from_secs(3600),
        charged: crate::limit::Charged::Nothing,
    }
}
