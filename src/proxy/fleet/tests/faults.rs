//! Proxies with a real store that is killed, paused, emptied, restored, slow, full, somebody else's or not allowed. What they
//! have in flight is summed all the time.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::fleet::tests::model::Model;

/// Queries of one proxy until it is stopped; counts those that ended.
async fn work(admission: Weak<Admission>, seed: u64, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) {
    let mut rng = Rng::with_seed(seed);
    while !stop.load(Relaxed) {
        let Some(admission) = admission.upgrade() else { return };
        let is_light = rng.bool();
        let bytes = if is_light { rng.u64(1..=2 * MIB) } else { rng.u64(10 * MIB..FIXED) };
        let admitted = admit(&admission, bytes).await.unwrap();
        assert!(!is_light || admitted.waited < Duration::from_secs(2), "{:?}", admitted.waited);
        sleep(Duration::from_millis(rng.u64(5..80))).await;
        drop(admitted);
        done.fetch_add(1, Relaxed);
    }
}

/// Three proxies with eight clients each.
struct Crowd {
    members: Vec<Member>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    /// The most bytes that all had in flight at once.
    most: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Crowd {
    fn start(url: &str) -> Self {
        Self::of((0..3).map(|_| Member::by(url, 64, TenantPolicy::default())).collect())
    }

    fn of(members: Vec<Member>) -> Self {
        let mut crowd = Self {
            members,
            stop: Arc::default(),
            done: Arc::default(),
            most: Arc::default(),
            tasks: JoinSet::new(),
        };
        let watched: Vec<_> = crowd.members.iter().map(|member| Arc::downgrade(&member.admission)).collect();
        for admission in &watched {
            for seed in 0..8 {
                let (stop, done) = (Arc::clone(&crowd.stop), Arc::clone(&crowd.done));
                crowd.tasks.spawn(work(Weak::clone(admission), seed, stop, done));
            }
        }
        let (stop, most) = (Arc::clone(&crowd.stop), Arc::clone(&crowd.most));
        crowd.tasks.spawn(async move {
            while !stop.load(Relaxed) {
                let live = watched.iter().filter_map(Weak::upgrade);
                let held: u64 = live.map(|admission| admission.snapshot().backends[0].memory).sum();
                most.fetch_max(held, Relaxed);
                sleep(Duration::from_millis(2)).await;
            }
        });
        crowd
    }

    async fn until_ready(&self) {
        for member in &self.members {
            member.until_ready().await;
        }
    }

    async fn goes_on(&self, what: &str, time: Duration) {
        let before = self.done.load(Relaxed);
        sleep(time).await;
        assert!(self.done.load(Relaxed) > before + 10, "{what}: nothing runs");
        let most = self.most.load(Relaxed);
        assert!(most <= BUDGET, "{what}: {most} bytes at once");
    }

    fn has_leased(&self) -> bool {
        self.most.load(Relaxed) > BUDGET / 32 + 3 * FIXED
    }

    async fn end(mut self) {
        self.stop.store(true, Relaxed);
        while let Some(outcome) = self.tasks.join_next().await {
            outcome.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_of_the_store_or_a_proxy_lets_them_pass_the_budget_or_stops_them() {
    let test = "no_fault_of_the_store_or_a_proxy_lets_them_pass_the_budget_or_stops_them";
    let Some(mut server) = Server::start(test) else { return };
    let mut crowd = Crowd::start(&server.url());
    crowd.until_ready().await;
    crowd.goes_on("shared", Duration::from_secs(2)).await;
    assert!(crowd.has_leased());
    server.run("SAVE");
    std::fs::copy(server.dump_file(), server.dump_file().with_extension("old")).unwrap();
    server.signal("STOP");
    crowd.goes_on("paused", Duration::from_secs(2)).await;
    server.signal("CONT");
    crowd.goes_on("resumed", Duration::from_secs(2)).await;
    server.run("FLUSHALL");
    crowd.goes_on("emptied", Duration::from_secs(2)).await;
    server.kill();
    crowd.goes_on("killed", Duration::from_secs(2)).await;
    std::fs::copy(server.dump_file().with_extension("old"), server.dump_file()).unwrap();
    server.start_again();
    crowd.goes_on("restored from an old dump", Duration::from_secs(2)).await;
    crowd.members.pop();
    crowd.goes_on("without one proxy", Duration::from_secs(2)).await;
    crowd.end().await;
}

#[tokio::test(start_paused = true)]
async fn proxies_of_another_configuration_keep_within_the_budget_and_are_a_finding() {
    for (queries, replicas) in [(64, REPLICAS), (128, REPLICAS), (64, 2)] {
        let model = Arc::new(Model::new(Duration::from_millis(2)));
        let member = |(id, queries, replicas): (u64, u64, u64)| {
            let store = Store::modelled(&model, format!("{id:x}"));
            Member::at(store, queries, TenantPolicy::default(), (replicas, 100))
        };
        let crowd = Crowd::of([(1, 64, REPLICAS), (2, queries, replicas)].map(member).into());
        sleep(Duration::from_secs(10)).await;
        crowd.goes_on("another configuration", Duration::from_secs(5)).await;
        let differs = u64::from((queries, replicas) != (64, REPLICAS));
        for member in &crowd.members {
            let status = member.fleet.status().unwrap();
            assert_eq!(status.differing.get("main").copied().unwrap_or(0), differs, "{queries} {replicas}");
        }
        crowd.end().await;
    }
}

/// Something that is done to a store again and again, and the commands that undo it.
struct Trouble {
    commands: &'static [&'static str],
    undo: &'static [&'static str],
    /// A part of the finding.
    says: &'static str,
}

const TROUBLES: [Trouble; 8] = [
    Trouble { commands: &["SET weir:test:backend:main x"], undo: &[], says: "leases" },
    Trouble { commands: &["SET weir:test:proxies x"], undo: &[], says: "leases" },
    // Amounts that are none: beside such a lease any other would fit.
    Trouble {
        commands: &["HSET weir:test:backend:main ghost nan_nan_1_1_1_1_1_1_1_9e15_1_1_1"],
        undo: &[],
        says: "leases",
    },
    Trouble {
        commands: &["HSET weir:test:backend:main ghost inf_inf_1_1_1_1_1_1_1_inf_inf_1_1"],
        undo: &[],
        says: "leases",
    },
    Trouble { commands: &["CONFIG SET maxmemory 1"], undo: &["CONFIG SET maxmemory 0"], says: "maxmemory" },
    Trouble { commands: &["REPLICAOF 127.0.0.1 1"], undo: &["REPLICAOF NO ONE"], says: "read only replica" },
    Trouble {
        commands: &["CONFIG SET requirepass secret", "CLIENT KILL TYPE normal"],
        undo: &["CONFIG SET requirepass _"],
        says: "uthentication",
    },
    Trouble {
        commands: &["ACL SETUSER default -hset"],
        undo: &["ACL SETUSER default +hset"],
        says: "run this command",
    },
];

/// Spaces within an argument are written as `_`.
fn run(connection: &mut redis::Connection, commands: &[&str]) {
    for command in commands {
        let mut words = command.split(' ').map(|word| word.trim_matches('_').replace('_', " "));
        let mut command = redis::cmd(&words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        command.exec(connection).unwrap();
    }
}

async fn suffers(Trouble { commands, undo, says }: Trouble, server: Server) {
    let crowd = Crowd::start(&server.url());
    crowd.until_ready().await;
    crowd.goes_on("shared", Duration::from_millis(500)).await;
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut findings = Vec::new();
    let spoils = async {
        for _ in 0..20 {
            run(&mut connection, commands);
            sleep(Duration::from_millis(100)).await;
            let status = crowd.members[0].fleet.status().unwrap();
            findings.extend(status.error.into_iter().chain(status.unreadable.map(str::to_owned)));
        }
    };
    tokio::join!(crowd.goes_on(says, Duration::from_secs(2)), spoils);
    assert!(findings.iter().any(|finding| finding.contains(says)), "{commands:?}: {findings:?}");
    run(&mut connection, undo);
    let healed = async {
        while !crowd.members.iter().any(|member| member.fleet.status().is_some_and(|status| status.connected))
        {
            sleep(Duration::from_millis(20)).await;
        }
        crowd.until_ready().await;
    };
    timeout(Duration::from_secs(15), healed).await.unwrap_or_else(|_| panic!("{commands:?}: for ever"));
    crowd.goes_on("healed", Duration::from_millis(500)).await;
    assert!(crowd.has_leased());
    crowd.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_in_trouble_lets_nobody_pass_the_budget_stops_nobody_and_is_a_finding() {
    let test = "a_store_in_trouble_lets_nobody_pass_the_budget_stops_nobody_and_is_a_finding";
    let mut all = JoinSet::new();
    for trouble in TROUBLES {
        let Some(server) = Server::start(test) else { return };
        all.spawn(suffers(trouble, server));
    }
    while let Some(outcome) = all.join_next().await {
        outcome.unwrap();
    }
}

/// Passes bytes on to a server, each way after half of this time; gives its URL.
async fn relay(server: &Server, round_trip: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    let upstream = server.url().trim_start_matches("redis://").trim_end_matches('/').to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            // A round trip of the handshake.
            sleep(round_trip).await;
            let Ok(upstream) = TcpStream::connect(&upstream).await else { return };
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), upstream.into_split());
            for (mut from, mut to) in [(from_client, to_server), (from_server, to_client)] {
                tokio::spawn(async move {
                    let mut bytes = vec![0; 1 << 16];
                    while let Ok(read @ 1..) = from.read(&mut bytes).await {
                        sleep(round_trip / 2).await;
                        if to.write_all(&bytes[..read]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_within_the_time_limit_is_used_and_a_slower_one_is_left_alone() {
    let test = "a_store_within_the_time_limit_is_used_and_a_slower_one_is_left_alone";
    let Some(server) = Server::start(test) else { return };
    let [near, far] = [200, 300].map(Duration::from_millis);
    let (near, far) = (Crowd::start(&relay(&server, near).await), Crowd::start(&relay(&server, far).await));
    timeout(Duration::from_secs(20), near.until_ready()).await.expect("it answers in time");
    near.goes_on("200 ms", Duration::from_secs(3)).await;
    assert!(near.has_leased(), "{}", near.most.load(Relaxed));
    far.goes_on("300 ms", Duration::from_secs(1)).await;
    let status = far.members[0].fleet.status().unwrap();
    assert!(!far.has_leased() && status.error.is_some_and(|error| error.contains("250 ms")));
    near.end().await;
    far.end().await;
}
