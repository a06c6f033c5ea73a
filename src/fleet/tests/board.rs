//! `board.lua` in a real server.

use std::time::Duration;

use super::{
    super::{
        BoardAnswer, BoardAsk, Cursor, PAGE_BYTES, PAGE_ENTRIES, Post, Round, Store, Topic, VALUE_BYTES_MAX,
        page,
    },
    server::Server,
};

const LIMIT: Duration = Duration::from_secs(5);

/// A proxy that reads and writes one topic.
struct Proxy {
    store: Store,
    topic: Topic,
    cursor: Cursor,
}

impl Proxy {
    fn of(server: &Server, topic: Topic) -> Self {
        let store = Store::new(&server.url(), "test", "test".to_owned()).unwrap();
        Self { store, topic, cursor: Cursor::default() }
    }

    async fn exchange(&mut self, posts: Vec<Post>) -> BoardAnswer {
        let ask = BoardAsk { topic: self.topic, cursor: self.cursor, posts };
        let mut answers =
            self.store.round(&Round { boards: vec![ask], ..Round::default() }, LIMIT).await.unwrap();
        let answer = answers.boards.remove(0);
        self.cursor = answer.cursor;
        answer
    }

    async fn news(&mut self) -> Vec<(String, u64, String)> {
        let entries = self.exchange(Vec::new()).await.entries.into_iter();
        entries.map(|entry| (entry.name, entry.version, String::from_utf8(entry.value).unwrap())).collect()
    }
}

fn post(name: &str, version: u64, value: &str) -> Post {
    Post { name: name.to_owned(), version, life_ms: 60_000, value: value.into() }
}

#[tokio::test]
async fn the_last_change_of_a_name_is_read_once_by_everybody() {
    let Some(server) = Server::start("the_last_change_of_a_name_is_read_once_by_everybody") else { return };
    let [mut a, mut b] = [0; 2].map(|_| Proxy::of(&server, Topic::Rules));
    let counted = a.exchange(vec![post("x", 0, "1"), post("y", 0, "2 \n 3"), post("x", 0, "4")]).await;
    let [first, y, x] = counted.versions[..] else { panic!("{counted:?}") };
    assert!(first < y && y < x && counted.entries.len() == 2);
    assert_eq!(
        b.news().await,
        [("y".to_owned(), y, "2 \n 3".to_owned()), ("x".to_owned(), x, "4".to_owned())]
    );
    assert!(b.news().await.is_empty() && a.news().await.is_empty());
    // An older one, the same, one of another age, and a later one.
    let offered =
        vec![post("x", first, "1"), post("x", x, "4"), post("x", x << 1, "5"), post("x", x + 7, "6")];
    assert_eq!(b.exchange(offered).await.versions, [0, 0, 0, x + 7]);
    assert_eq!(a.news().await, [("x".to_owned(), x + 7, "6".to_owned())]);
    assert!(a.exchange(vec![post("z", 0, "")]).await.versions[0] > x + 7, "counted after all");
    // An older one that would live longer: the name is kept for it.
    let longer = Post { life_ms: 600_000, ..post("y", first, "0") };
    assert_eq!(a.exchange(vec![longer]).await.versions, [0]);
    let read = b.exchange(Vec::new()).await.entries;
    let left: Vec<_> = read.iter().filter(|entry| entry.name == "y").map(|entry| entry.left_ms).collect();
    assert!(left[0] > 590_000 && read.iter().all(|entry| entry.value != b"0"), "{read:?}");
}

#[tokio::test]
async fn a_store_that_lost_its_memory_is_seen_and_counts_on() {
    let Some(mut server) = Server::start("a_store_that_lost_its_memory_is_seen_and_counts_on") else {
        return;
    };
    let [mut a, mut b] = [0; 2].map(|_| Proxy::of(&server, Topic::Rules));
    let version = a.exchange(vec![post("x", 0, "1")]).await.versions[0];
    b.news().await;
    let before = a.cursor.incarnation;
    server.run("SAVE");
    server.run("FLUSHALL");
    assert_eq!(a.exchange(vec![post("x", version, "1")]).await.versions, [version]);
    assert_ne!(a.cursor.incarnation, before);
    assert_eq!(b.news().await.len(), 1, "all is read again");
    let later = b.exchange(vec![post("x", 0, "2")]).await.versions[0];
    assert!(later > version);
    let emptied = a.cursor.incarnation;
    server.kill();
    server.start_again();
    let offered = post("x", later, "2");
    let mut b = Proxy { cursor: b.cursor, ..Proxy::of(&server, Topic::Rules) };
    assert_eq!(b.exchange(vec![offered]).await.versions, [later], "the dump is older");
    assert_ne!(b.cursor.incarnation, emptied);
    let mut a = Proxy { cursor: a.cursor, ..Proxy::of(&server, Topic::Rules) };
    assert_eq!(a.news().await, [("x".to_owned(), later, "2".to_owned())]);
}

#[tokio::test]
async fn topics_are_bounded_and_read_in_pages() {
    let Some(server) = Server::start("topics_are_bounded_and_read_in_pages") else { return };
    let (mut a, mut b) = (Proxy::of(&server, Topic::Kills), Proxy::of(&server, Topic::Kills));
    let large = "v".repeat(PAGE_BYTES / 4);
    for n in 0..5 {
        a.exchange(vec![post(&format!("large{n}"), 0, &large)]).await;
    }
    let first = b.exchange(Vec::new()).await;
    assert!(first.has_more && first.entries.len() == 3, "{}", first.entries.len());
    assert_eq!(b.news().await.len(), 2);
    let many = Topic::Kills.entries_max() + 50;
    for n in 0..many {
        a.exchange(vec![post(&n.to_string(), 0, "")]).await;
    }
    let (mut read, mut pages) = (Vec::new(), 0);
    let mut late = Proxy::of(&server, Topic::Kills);
    loop {
        let answer = late.exchange(Vec::new()).await;
        read.extend(answer.entries.into_iter().map(|entry| entry.name));
        pages += 1;
        if !answer.has_more {
            break;
        }
    }
    let kept: Vec<_> = (many - Topic::Kills.entries_max()..many).map(|n| n.to_string()).collect();
    assert_eq!((read, pages), (kept, 1));
    a.exchange(vec![Post { life_ms: 1, ..post("brief", 0, "") }]).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut later = Proxy::of(&server, Topic::Kills);
    assert!(later.news().await.iter().all(|(name, ..)| name != "brief"));
}

#[tokio::test]
async fn nonsense_at_the_store_is_left_out_and_ends_nothing() {
    let Some(server) = Server::start("nonsense_at_the_store_is_left_out_and_ends_nothing") else { return };
    let mut a = Proxy::of(&server, Topic::Rules);
    a.exchange(vec![post("x", 0, "1")]).await;
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let (key, order) = ("weir:test:board:rules", "weir:test:board:rules:order");
    let long = "9".repeat(40);
    let set = |connection: &mut redis::Connection, name: &[u8], value: &str, seq: i64| {
        redis::cmd("HSET").arg(key).arg(name).arg(value).exec(connection).unwrap();
        redis::cmd("ZADD").arg(order).arg(seq).arg(name).exec(connection).unwrap();
    };
    set(&mut connection, b"words", "no numbers", 10);
    set(&mut connection, b"large", &format!("1 {long} 9000000000000 v"), 11);
    set(&mut connection, b"\xff\xfe", "12 5 9000000000000 v", 12);
    set(&mut connection, b"zero", "13 0 9000000000000 v", 13);
    set(&mut connection, b"huge", &format!("14 5 9000000000000 {}", "v".repeat(VALUE_BYTES_MAX + 1)), 14);
    redis::cmd("ZADD").arg(order).arg(15).arg("no entry").exec(&mut connection).unwrap();
    let mut b = Proxy::of(&server, Topic::Rules);
    let mut answer = b.exchange(Vec::new()).await;
    assert_eq!((answer.entries.len(), answer.unreadable), (1, 2), "{answer:?}");
    answer = b.exchange(Vec::new()).await;
    assert_eq!((answer.entries.len(), answer.unreadable, answer.has_more), (0, 1, false));
    for command in
        ["HSET weir:test:board:rules ~ x", "SET weir:test:board:rules x", "SET weir:test:board:rules:order x"]
    {
        if command.starts_with("SET") {
            redis::cmd("DEL").arg(key).arg(order).exec(&mut connection).unwrap();
        }
        let mut words = command.split(' ');
        let mut broken = redis::cmd(words.next().unwrap());
        broken.arg(words.collect::<Vec<_>>());
        broken.exec(&mut connection).unwrap();
        assert!(b.exchange(vec![post("x", 0, "1")]).await.versions[0] > 0, "{command}");
        assert_eq!(Proxy::of(&server, Topic::Rules).news().await.len(), 1, "{command}");
    }
}

#[test]
fn a_page_has_what_fits() {
    let of = |bytes: usize| post("x", 0, &"v".repeat(bytes));
    for (sizes, fitting, left, too_large) in [
        (vec![], 0, 0, 0),
        (vec![VALUE_BYTES_MAX; 3], 1, 2, 0),
        (vec![VALUE_BYTES_MAX + 1, 5], 1, 0, 1),
        (vec![PAGE_BYTES / 2 - 1, PAGE_BYTES / 2 - 1, 1], 2, 1, 0),
        (vec![1; PAGE_ENTRIES + 4], PAGE_ENTRIES, 4, 0),
    ] {
        let mut posts: Vec<_> = sizes.iter().map(|bytes| of(*bytes)).collect();
        let (page, large) = page(&mut posts);
        assert_eq!((page.len(), posts.len(), large), (fitting, left, too_large), "{sizes:?}");
    }
}
