use proptest::prelude::*;

use super::*;

const VALID: &str = "GET /.well-known/acme-challenge/LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0 HTTP/1.1\r\n\
                     Host: b.example.com:25002\r\n\
                     User-Agent: LetsEncrypt-Pebble-VA (linux; amd64)\r\n\
                     Accept: */*\r\n\
                     Accept-Encoding: gzip\r\n\
                     Connection: close\r\n\
                     \r\n";

fn refused(bytes: impl AsRef<[u8]>) -> Option<Reason> {
    match parse(bytes.as_ref()) {
        Parsed::Refused(reason) => Some(reason),
        Parsed::Complete(_) | Parsed::NeedMore => None,
    }
}

fn with_field(field: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a.test\r\n{field}\r\n\r\n")
}

#[test]
fn what_validators_send_is_a_head() {
    let Parsed::Complete(head) = parse(VALID.as_bytes()) else {
        panic!("refused");
    };
    assert_eq!(head.method, "GET");
    assert!(head.target.starts_with("/.well-known/acme-challenge/"));
    assert_eq!(head.host, Host::Value("b.example.com:25002"));
    assert_eq!(head.length, VALID.len());
}

#[test]
fn every_truncation_needs_more() {
    for end in 0..VALID.len() {
        assert_eq!(parse(&VALID.as_bytes()[..end]), Parsed::NeedMore, "{end}");
    }
}

#[test]
fn http_1_0_one_blank_line_and_a_body_of_nothing_are_let_through() {
    for head in [
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
        "\r\nGET / HTTP/1.1\r\n\r\n".to_owned(),
        with_field("Content-Length: 0"),
        with_field("Expect: 100-continue"),
        with_field("Range: bytes=0-1"),
        with_field("Upgrade: websocket"),
        with_field("X-Empty:"),
        "GET / HTTP/1.1\r\n\r\nGET /second HTTP/1.1\r\n\r\n".to_owned(),
    ] {
        assert!(
            matches!(parse(head.as_bytes()), Parsed::Complete(_)),
            "{head}"
        );
    }
}

#[test]
fn what_is_no_http_1_is_told_from_its_first_line_at_the_latest() {
    for bytes in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"\x16",
        b"PRI * HTTP/2.0\r\n",
        b"GET /\r\n",
        b"GET /.well-known/acme-challenge/x\r\n",
    ] {
        assert_eq!(refused(bytes), Some(Reason::NotHttp1), "{bytes:?}");
    }
    for field in [
        "Upgrade: h2c",
        "upgrade: foo, H2C",
        "Upgrade:h2c\r\nUpgrade: x",
    ] {
        assert_eq!(
            refused(with_field(field)),
            Some(Reason::NotHttp1),
            "{field}"
        );
    }
}

#[test]
fn malformed_heads_are_refused() {
    for head in [
        "GET / HTTP/1.1\nHost: a.test\n\n",
        "GET / HTTP/1.1\r\nHost: a.test\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\r\n",
        "GET / HTTP/1.1\rHost: a.test\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "\nGET / HTTP/1.1\r\n\r\n",
        " GET / HTTP/1.1\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1 \r\n\r\n",
        "GET /a b HTTP/1.1\r\n\r\n",
        "GET\t/ HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.2\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / http/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.test\r\n\tfolded\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a.test\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\n: no name\r\n\r\n",
        "GET / HTTP/1.1\r\nA@b: c\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\tc\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\x7fc\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\u{e4}c\r\n\r\n",
        "GET /\x00 HTTP/1.1\r\n\r\n",
        "GET /\u{e4} HTTP/1.1\r\n\r\n",
        "GET\x0b/ HTTP/1.1\r\n\r\n",
        "(GET) / HTTP/1.1\r\n\r\n",
        "POST /\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 80\r\n",
        "\r\n\x16",
    ] {
        assert_eq!(refused(head), Some(Reason::MalformedHead), "{head:?}");
    }
}

#[test]
fn a_body_is_refused_where_none_may_be_and_left_to_the_gate_elsewhere() {
    for field in [
        "Content-Length: 1",
        "Content-Length: 00",
        "Content-Length: +0",
        "Content-Length: 0, 0",
        "Content-Length:",
        "Content-Length: 0\r\nContent-Length: 0",
        "Transfer-Encoding: chunked",
        "transfer-encoding: identity",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
    ] {
        assert_eq!(refused(with_field(field)), Some(Reason::Body), "{field}");
        let post = with_field(field).replace("GET", "POST");
        assert!(
            matches!(parse(post.as_bytes()), Parsed::Complete(_)),
            "{field}"
        );
    }
}

#[test]
fn hosts_are_counted() {
    for (fields, host) in [
        ("A: b", Host::Missing),
        ("Host: a.test", Host::Value("a.test")),
        ("hOST:   a.test  ", Host::Value("a.test")),
        ("Host:", Host::Value("")),
        ("Host: a.test\r\nhost: a.test", Host::Repeated),
        ("Host: a\r\nHost: b\r\nHost: c", Host::Repeated),
    ] {
        let head = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
        match parse(head.as_bytes()) {
            Parsed::Complete(head) => assert_eq!(head.host, host, "{fields}"),
            other => panic!("{fields}: {other:?}"),
        }
    }
}

#[test]
fn sizes_are_bounded_to_the_octet() {
    let request_line = |length: usize| {
        let target = "a".repeat(length - "GET / HTTP/1.1".len());
        format!("GET /{target} HTTP/1.1")
    };
    let head = |line: &str, fields: &str| format!("{line}\r\n{fields}\r\n");
    let most = head(&request_line(MAX_REQUEST_LINE_BYTES), "");
    assert!(matches!(parse(most.as_bytes()), Parsed::Complete(_)));
    let over = request_line(MAX_REQUEST_LINE_BYTES + 1);
    assert_eq!(refused(&over), Some(Reason::TargetTooLong));

    let lines = |count: usize| head("GET / HTTP/1.1", &"a: b\r\n".repeat(count));
    assert!(matches!(
        parse(lines(MAX_FIELD_LINES).as_bytes()),
        Parsed::Complete(_)
    ));
    assert_eq!(
        refused(lines(MAX_FIELD_LINES + 1)),
        Some(Reason::HeadTooLarge)
    );

    let fields = |bytes: usize| format!("a: {}\r\n", "b".repeat(bytes - 5));
    let most = head(
        &request_line(MAX_REQUEST_LINE_BYTES),
        &fields(MAX_FIELDS_BYTES),
    );
    assert!(matches!(parse(most.as_bytes()), Parsed::Complete(_)));
    assert_eq!(format!("\r\n{most}").len(), MAX_HEAD_BYTES);
    let over = head("GET / HTTP/1.1", &fields(MAX_FIELDS_BYTES + 1));
    assert_eq!(refused(over), Some(Reason::HeadTooLarge));
}

/// Lines and pieces from which interesting heads are built more often than from random bytes.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&'static [u8]> = vec![
        b"GET / HTTP/1.1",
        b"HEAD /a HTTP/1.0",
        b"POST / HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"GET /",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b" ",
        b"Host: a.test",
        b"Content-Length: 1",
        b"Transfer-Encoding: chunked",
        b"Upgrade: h2c",
        b"a: b",
        b"\x16",
        b"\x00",
    ];
    prop_oneof![
        8 => prop::sample::select(pieces).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..4),
        1 => (any::<u8>(), 1usize..9000).prop_map(|(byte, count)| vec![byte; count]),
    ]
}

proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_the_cuts(pieces in prop::collection::vec(piece(), 0..14)) {
        let bytes = pieces.concat();
        let whole = parse(&bytes);
        // Every cut of short inputs, a stride of cuts of long ones.
        let stride = 1 + bytes.len() / 400;
        for end in (0..bytes.len()).step_by(stride) {
            let cut = parse(&bytes[..end]);
            prop_assert!(cut == Parsed::NeedMore || cut == whole, "{end}: {cut:?}, then {whole:?}");
        }
        if bytes.len() >= MAX_HEAD_BYTES {
            prop_assert!(whole != Parsed::NeedMore);
        }
    }

    #[test]
    fn what_is_called_complete_is_clean(pieces in prop::collection::vec(piece(), 0..14)) {
        let bytes = pieces.concat();
        if let Parsed::Complete(head) = parse(&bytes) {
            let text = str::from_utf8(&bytes[..head.length]).unwrap();
            prop_assert!(text.ends_with("\r\n\r\n"));
            prop_assert!(!text.replace("\r\n", "").bytes().any(|byte| !(0x20..0x7f).contains(&byte)));
            prop_assert!(head.length <= MAX_HEAD_BYTES);
        }
    }
}
