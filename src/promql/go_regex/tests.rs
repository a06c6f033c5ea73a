use super::*;

#[test]
fn patterns_match_as_in_go() {
    for (pattern, text, want) in [
        ("a|b", "b", true),
        ("a|b", "ab", false),
        ("a.c", "a\nc", true),
        ("(?-s)a.c", "a\nc", false),
        (r"\Qa.b\E+", "a.bbb", true),
        (r"\Qa.b\E", "axb", false),
        (r"\d+", "12", true),
        (r"\d+", "١", false),
        (r"\w", "é", false),
        (r"[^\d]", "é", true),
        (r"[\w.-]+", "a-b.c", true),
        ("[[a]+", "[a", true),
        ("[a&&b]+", "a&b", true),
        ("[]a]+", "]a", true),
        ("[a-]+", "a-", true),
        ("[[:alpha:]_]+", "a_b", true),
        ("{{x}}", "{{x}}", true),
        ("a{,2}", "a{,2}", true),
        ("a{2}", "aa", true),
        ("a]", "a]", true),
        (r"\x41\x{42}\103", "ABC", true),
        (r"10\.0\.0\.[0-9]{1,3}:9100", "10.0.0.77:9100", true),
        ("(?i)Foo", "fOO", true),
        ("^foo$", "foo", true),
        (r"\bfoo\b", "foo", true),
        (r"\pL+", "λx", true),
        ("(?P<name>a)(?<other>b)", "ab", true),
        ("(?:a|b)*?", "abba", true),
        ("a#b c", "a#b c", true),
        ("a-b~c", "a-b~c", true),
        ("^*", "", true),
        ("()", "", true),
    ] {
        let regex = compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        assert_eq!(regex.is_match(text), want, "{pattern} on {text:?}");
        assert_eq!(check(pattern), Ok(()), "{pattern}");
        assert_eq!(matches_empty(pattern), regex.is_match(""), "{pattern}");
    }
}

/// Go's parser takes everything behind a `\Q` without `\E` as quoted (`case 'Q'` in regexp/syntax/parse.go). Prometheus
/// 3 anchors the parsed pattern and runs it; 2.x put its `)$` behind the text, into the quotation, and reported a
/// missing `)`. A pattern that one of them runs is priced and forwarded: the database decides.
#[test]
fn an_unclosed_quotation_reaches_to_the_end() {
    for (pattern, text) in
        [(r"\Qa.b", "a.b"), (r"x\Q", "x"), (r"\Qa)(*[", "a)(*["), (r"\Qa\", "a\\"), (r"\Qé\d+$", r"é\d+$")]
    {
        let regex = compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
        assert!(regex.is_match(text), "{pattern} on {text:?}");
        assert!(!regex.is_match("axb") && !regex.is_match(&format!("{text})$")), "{pattern}");
        assert_eq!(check(pattern), Ok(()), "{pattern}");
    }
}

#[test]
fn what_go_refuses_is_refused() {
    for pattern in [
        "a++",
        "a**",
        "*",
        "a|*",
        "(",
        ")",
        "a)b(",
        "[a",
        "[b-a]",
        "a{1001}",
        "a{2,1}",
        "(a{100}){11}",
        "\\",
        r"\1",
        r"\y",
        r"\C",
        r"\Z",
        "(?=a)",
        "(?<!a)",
        "(?x)a",
        "(?P<>a)",
        r"\p{Nope}",
        "[[:nope:]]",
        "(?i-)",
        "a{1}{2}",
        ")|(",
    ] {
        let error = check(pattern).expect_err(pattern);
        assert!(matches!(error, Error::Malformed(_)), "{pattern}: {error}");
        assert!(compile(pattern).is_err());
    }
}

#[test]
fn large_ones_are_refused_before_they_are_compiled() {
    let deep = format!("{}a{}", "(".repeat(200), ")".repeat(200));
    for pattern in [
        "(((a{1,10}){1,10}){1,10}b){30}",
        r"\pL{1000}",
        "([a-z]{10}){100}([a-z]{10}){100}([a-z]{10}){100}([a-z]{10}){100}([a-z]{10}){100}[a-z]{10}",
        &deep,
    ] {
        assert!(check(pattern).is_err(), "{pattern}");
    }
    assert_eq!(check("((a{1,10}b){1,10}c){1,10}"), Ok(()));
    let alternatives = vec![r"10\.0\.0\.1:9100"; 1000].join("|");
    assert!(compile(&alternatives).is_ok());
}
