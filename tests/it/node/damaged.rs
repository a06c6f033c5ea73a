//! Answers of a node that has lost a part of a block say so.

use std::{fs, sync::Arc};

use axum::body::Body;
use http::Request;
use serde_json::Value;
use tower::ServiceExt as _;
use weir::node::{
    db::{Db, Options},
    http::{Node, Settings, router},
};

/// The node's clock, seconds; a multiple of a block's length.
const NOW: i64 = 1_700_000_040;

fn open(dir: &std::path::Path) -> Arc<Node> {
    let options =
        Options { block_ms: 60_000, out_of_order_ms: 0, clock: || NOW * 1_000, ..Options::default() };
    Node::new(Arc::new(Db::open(dir, options).unwrap().0), Settings::default()).unwrap()
}

async fn get(node: &Arc<Node>, target: &str) -> Value {
    let request = Request::get(format!("/api/v1/{target}")).body(Body::empty()).unwrap();
    let response = router(Arc::clone(node)).oneshot(request).await.unwrap();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn what_a_damaged_chunk_held_is_missed_aloud() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path());
    let lines: Vec<_> = (0..40).map(|i| format!("up {i} {}\n", (NOW - 600 + i * 15) * 1_000)).collect();
    let request = Request::post("/api/v1/import/prometheus").body(Body::from(lines.concat())).unwrap();
    assert_eq!(router(Arc::clone(&node)).oneshot(request).await.unwrap().status(), 204);
    node.db().maintain().unwrap();
    drop(node);

    let mut blocks: Vec<_> =
        fs::read_dir(dir.path().join("blocks")).unwrap().map(|e| e.unwrap().path()).collect();
    blocks.sort_by_key(|path| fs::read_to_string(path.join("meta.json")).unwrap());
    let chunks = blocks[0].join("chunks");
    let mut bytes = fs::read(&chunks).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&chunks, bytes).unwrap();

    let node = open(dir.path());
    let all = format!("query=up&start={}&end={NOW}&step=15", NOW - 600);
    let lately = format!("query=up&start={}&end={NOW}&step=15&lookback_delta=15s", NOW - 30);
    for round in ["as found", "after upkeep", "after a restart"] {
        let node = if round == "after a restart" { open_again(&node, dir.path()) } else { Arc::clone(&node) };
        for target in [format!("query_range?{all}"), format!("query_range_cost?{all}"), "labels".into()] {
            let answer = get(&node, &target).await;
            let said = answer["warnings"][0].as_str().unwrap_or_default();
            assert!(said.contains("may be missing") && said.contains("2023-11-14T22:"), "{round}: {answer}");
        }
        let answer = get(&node, &format!("query_range?{lately}")).await;
        assert_eq!(answer["warnings"], Value::Null, "{round}: {answer}");
        assert_eq!(answer["data"]["result"][0]["values"].as_array().unwrap().len(), 2, "{round}: {answer}");
        node.db().maintain().unwrap();
        assert!(node.metrics_text().unwrap().contains("weir_node_chunks_damaged 1\n"), "{round}");
    }
}

/// A second look at the folder, from a copy: the first node still has the lock.
fn open_again(node: &Arc<Node>, dir: &std::path::Path) -> Arc<Node> {
    node.db().maintain().unwrap();
    let copy = dir.join("copy/blocks");
    for block in fs::read_dir(dir.join("blocks")).unwrap().map(|e| e.unwrap().path()) {
        let target = copy.join(block.file_name().unwrap());
        fs::create_dir_all(&target).unwrap();
        for file in fs::read_dir(block).unwrap().map(|e| e.unwrap().path()) {
            fs::copy(&file, target.join(file.file_name().unwrap())).unwrap();
        }
    }
    fs::create_dir_all(dir.join("copy/wal")).unwrap();
    for file in fs::read_dir(dir.join("wal")).unwrap().map(|e| e.unwrap().path()) {
        fs::copy(&file, dir.join("copy/wal").join(file.file_name().unwrap())).unwrap();
    }
    open(&dir.join("copy"))
}
