use super::*;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_traceparent_is_read_as_the_standard_says() {
    let context = Context::within(Some(PARENT));
    assert_eq!(context.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
    assert_eq!((context.parent, context.sampled), (Some(0x00f0_67aa_0ba9_02b7), true));
    assert_ne!(context.span, 0);
    let sent = context.header();
    assert!(sent.starts_with(&PARENT[..36]) && sent.ends_with("-01") && sent != PARENT, "{sent}");
    assert_eq!(Context::within(Some(&sent)).parent, Some(context.span));
    let unsampled = Context::within(Some(&PARENT.replace("-01", "-00")));
    assert!(!unsampled.sampled && unsampled.header().ends_with("-00"));
    let later = PARENT.replace("00-4b", "cc-4b") + "-more";
    assert!(Context::within(Some(&later)).parent.is_some());

    let zero_parent = PARENT.replace("00f067aa0ba902b7", "0000000000000000");
    let more = format!("{PARENT}-more");
    let (upper, banned) = (PARENT.to_uppercase(), PARENT.replace("00-4b", "ff-4b"));
    for bad in ["", "00-1-2-01", &PARENT[..54], &more, &upper, &zero_parent, &banned, "00-é-2-01"] {
        let context = Context::within(Some(bad));
        assert!(context.parent.is_none() && context.sampled && context.trace != 0, "{bad}");
    }
}

#[test]
fn only_plain_base_urls_are_taken() {
    assert_eq!(endpoint("http://c:4318").unwrap(), "http://c:4318/v1/traces");
    assert_eq!(endpoint("http://c:4318/otlp/").unwrap(), "http://c:4318/otlp/v1/traces");
    for bad in ["c:4318", "https://c", "/v1/traces", "http://c?x=1", "http://", "ht tp"] {
        assert!(endpoint(bad).is_err(), "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_finds_no_place_is_dropped_and_counted() {
    let metrics = Arc::new(Metrics::new(1).unwrap());
    let (sender, _exporter) =
        Exporter::new("http://127.0.0.1:1/v1/traces".parse().unwrap(), Arc::clone(&metrics));
    let context = Context::within(None);
    let span = Span { context, name: "query", start_ns: 1, end_ns: 2, attributes: vec![], error: None };
    for _ in 0..QUEUE + 7 {
        sender.send(span.clone());
    }
    let text = metrics.encode().unwrap();
    assert!(text.contains("weir_trace_spans_total{result=\"dropped\"} 7"), "{text}");
}
