//! Admission and the monitor of distress before a simulated Go process, on a stopped clock: whatever the process keeps,
//! others run on it, or estimates are off by, a query that fits the budget is not shut out.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;

use crate::support::simulation::{BASE, MIB, Process, Proxy, Setup, Tells};

const LASTS: Duration = Duration::from_secs(3);

fn proxy(budget: u64, process: &Arc<Mutex<Process>>) -> Proxy {
    Proxy::new(Setup { budget, queries: 20, unproven_percent: 10, wait: Duration::from_secs(60) }, process)
}

/// A burst of queries at the same time: how many were refused.
async fn burst(proxy: &Proxy, queries: u64, bytes: u64, from: u64) -> usize {
    let all = (0..queries).map(|number| proxy.query("a", (bytes, LASTS), from + number));
    join_all(all).await.iter().filter(|outcome| outcome.is_err()).count()
}

/// Eight queries in a row, each as large as fits, a few seconds apart: none waits for long.
async fn eight_in_a_row(proxy: &Proxy, budget: u64) {
    for number in 0..8 {
        let waited = proxy.query("a", (budget / 32 * 31, LASTS), 1_000 + number).await.unwrap();
        assert!(waited <= Duration::from_millis(100), "{budget}: {number} waited {waited:?}");
        tokio::time::sleep(Duration::from_secs(number % 4)).await;
    }
}

const BUDGETS: [u64; 4] = [4 * MIB, 64 * MIB, 128 * MIB, 512 * MIB];

fn before(budget: u64, change: impl FnOnce(&mut Process)) -> (Arc<Mutex<Process>>, Proxy) {
    let mut process = Process::new(BASE + 4 * budget);
    change(&mut process);
    let process = Arc::new(Mutex::new(process));
    let proxy = self::proxy(budget, &process);
    tokio::spawn(proxy.clone().watch(Tells { next_gc: true, idle: false, queries: true }));
    (process, proxy)
}

#[tokio::test(start_paused = true)]
async fn after_a_burst_whose_memory_stays_the_heaviest_runs_at_once() {
    for budget in BUDGETS {
        let (process, proxy) = before(budget, |_| {});
        let refused = burst(&proxy, 20, budget / 4, 0).await;
        assert!(refused <= 10, "{budget}: {refused} of 20 that fit were refused");
        // A process that stays near its limit, whatever brought it there.
        tokio::time::sleep(Duration::from_secs(2)).await;
        process.lock().unwrap().resident = BASE + 4 * budget / 100 * 97;
        tokio::time::sleep(Duration::from_secs(10)).await;
        eight_in_a_row(&proxy, budget).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_creeps_with_every_query_goes_on_to_be_asked() {
    for budget in BUDGETS {
        let (process, proxy) = before(budget, |process| process.creep = budget / 40);
        for round in 0..4 {
            assert_eq!(burst(&proxy, 10, budget / 8, round * 100).await, 0, "{budget}");
            eight_in_a_row(&proxy, budget).await;
        }
        assert!(process.lock().unwrap().kept > budget, "it crept");
    }
}

#[tokio::test(start_paused = true)]
async fn the_query_of_another_client_is_no_error_of_ours() {
    for budget in BUDGETS {
        for counts in [true, false] {
            let process = Arc::new(Mutex::new(Process::new(BASE + 40 * budget)));
            let proxy = self::proxy(budget, &process);
            tokio::spawn(proxy.clone().watch(Tells { next_gc: true, idle: false, queries: counts }));
            tokio::time::sleep(Duration::from_secs(5)).await;
            // It begins while ours runs, and goes on for minutes.
            let ours = tokio::spawn({
                let proxy = proxy.clone();
                async move { proxy.query("a", (budget / 16, LASTS), 1).await }
            });
            tokio::time::sleep(Duration::from_secs(1)).await;
            process.lock().unwrap().foreign = (15 * budget, 1);
            assert!(ours.await.unwrap().is_ok());
            for number in 0..60 {
                let waited = proxy.query("a", (budget / 20, LASTS), 10 + number).await.unwrap();
                assert!(waited <= Duration::from_millis(100), "{budget}, {counts}: {waited:?}");
            }
            process.lock().unwrap().foreign = (0, 0);
            eight_in_a_row(&proxy, budget).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_estimates_slows_down_and_shuts_nobody_out() {
    for budget in BUDGETS {
        for error in [1.4, 3.0] {
            let (_process, proxy) = before(budget, |process| process.error = error);
            assert_eq!(burst(&proxy, 14, budget / 3, 0).await, 0, "{budget}: an error of {error}");
            eight_in_a_row(&proxy, budget).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn proxies_before_one_database_do_not_take_each_others_queries_for_errors() {
    for budget in BUDGETS {
        for (counts, proxies) in [(true, 2), (false, 2), (true, 3), (false, 3)] {
            let process = Arc::new(Mutex::new(Process::new(2 * BASE + 16 * budget)));
            let proxies: Vec<_> = (0..proxies).map(|_| self::proxy(budget, &process)).collect();
            for proxy in &proxies {
                tokio::spawn(proxy.clone().watch(Tells { next_gc: true, idle: false, queries: counts }));
            }
            let bursts = proxies.iter().enumerate();
            let bursts = bursts.map(|(at, proxy)| burst(proxy, 12, budget / 4, at as u64 * 100));
            assert!(join_all(bursts).await.iter().all(|refused| *refused == 0), "{budget}, {counts}");
            for proxy in &proxies {
                assert!(proxy.share().0 > 0.5, "{budget}, {counts}: {:?}", proxy.share());
            }
            // One asks for much, the others for little, all at the same time: each by its own estimates.
            let large = burst(&proxies[0], 20, budget / 4, 10_000);
            let small = proxies.iter().skip(1).map(|proxy| async {
                for number in 0..10 {
                    let waited = proxy.query("a", (budget / 20, LASTS), 20_000 + number).await.unwrap();
                    assert!(waited <= Duration::from_secs(5), "{budget}, {counts}: {waited:?}");
                }
            });
            let (refused, _) = tokio::join!(large, join_all(small));
            assert_eq!(refused, 0, "{budget}, {counts}");
            join_all(proxies.iter().map(|proxy| eight_in_a_row(proxy, budget))).await;
        }
    }
}
