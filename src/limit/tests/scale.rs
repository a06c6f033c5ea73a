//! The fleet-sized benchmark in small, with the invariants checked: `cargo bench --bench scale` runs it whole.

use super::super::invariants;
use super::*;

#[path = "../../../benches/support/crowd.rs"]
mod crowd;

#[tokio::test(start_paused = true)]
async fn a_small_fleet_is_fair_and_within_its_budgets() {
    let plan =
        crowd::Plan { tenants: 400, backends: 4, per_second: 700, lasts: Duration::from_secs(15), seed: 1 };
    let (mut ticks, mut before) = (0, None);
    let mut outcome = crowd::run(plan, |admission, ending| {
        ticks += 1;
        // Every tick costs a walk over all accounts; each tenth sees the same.
        if ticks % 10 != 0 {
            return;
        }
        let state = admission.lock();
        let permits: Vec<_> = ending.iter().flatten().map(Permit::held).collect();
        let now = invariants::Before::of(&state);
        let broken = invariants::broken(
            &state,
            &permits,
            &before.take().unwrap_or_else(|| invariants::Before::of(&state)),
            0,
            Instant::now(),
        );
        assert!(broken.is_empty(), "tick {ticks}: {broken:#?}");
        before = Some(now);
    })
    .await;
    assert_eq!(ticks, 1500);
    assert!(outcome.refused.values().sum::<u64>() > 20, "the greedy are refused: {:?}", outcome.refused);
    assert!(outcome.waiting_most > 20 && outcome.waiting_most <= 4 * 100, "{}", outcome.waiting_most);
    assert!(outcome.modest_ran(&plan) > 0.999, "{}", outcome.modest_ran(&plan));
    assert!(outcome.jain_modest(&plan) > 0.999, "{}", outcome.jain_modest(&plan));
    assert!(outcome.jain_greedy(&plan) > 0.9, "{}", outcome.jain_greedy(&plan));
    assert!(crowd::quantile(&mut outcome.waits_ms, 0.99) < 100);
}
