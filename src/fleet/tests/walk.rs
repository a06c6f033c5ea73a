//! A search through the states of a small machine, and walks of many steps that are chosen by a seed.

use std::{
    collections::{HashSet, VecDeque},
    fmt::Debug,
};

use fastrand::Rng;

/// A machine that takes one of several steps at a time.
pub(super) trait Machine: Clone + Debug {
    /// One step.
    type Step: Copy + Debug;

    /// The steps that can be next, each with its weight in a walk.
    fn steps(&self) -> Vec<(u32, Self::Step)>;

    /// Takes one.
    fn step(&mut self, step: Self::Step);
}

/// Looks at `most` states, those first that take the fewest steps: a number is bounded in each.
pub(super) fn search<M: Machine>(start: &M, most: usize, number: fn(&M) -> u64, bound: u64) {
    let (mut seen, mut queue) = (HashSet::new(), VecDeque::from([start.clone()]));
    while let Some(machine) = queue.pop_front() {
        assert!(number(&machine) <= bound, "{machine:#?}");
        for (_, step) in machine.steps() {
            let mut next = machine.clone();
            next.step(step);
            if seen.len() < most && seen.insert(format!("{next:?}")) {
                queue.push_back(next);
            }
        }
    }
    assert_eq!(seen.len(), most);
}

/// Takes steps by their weights; a failure shows them all. Gives the most that a number ever was, which is bounded.
pub(super) fn walk<M: Machine>(start: &M, seed: u64, steps: usize, number: fn(&M) -> u64, bound: u64) -> u64 {
    let mut rng = Rng::with_seed(seed);
    let (mut machine, mut taken, mut most) = (start.clone(), Vec::new(), 0);
    for _ in 0..steps {
        let steps = machine.steps();
        let mut left = rng.u32(0..steps.iter().map(|(weight, _)| weight).sum());
        let chosen = steps.iter().find(|(weight, _)| {
            let is_it = left < *weight;
            left = left.saturating_sub(*weight);
            is_it
        });
        let Some((_, step)) = chosen else { break };
        taken.push(*step);
        machine.step(*step);
        most = most.max(number(&machine));
        assert!(number(&machine) <= bound, "seed {seed}: {taken:?}\n{machine:#?}");
    }
    most
}
