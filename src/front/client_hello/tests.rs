use proptest::prelude::*;

#[path = "../../../tests/lab/hello.rs"]
mod build;

use self::build::{message, names, record, records, vector8, vector16};
use super::*;

const NAME: &str = "www.example.com";

fn validation() -> build::ClientHello {
    build::ClientHello::new().name(NAME).alpn(&["acme-tls/1"])
}

fn refused(bytes: impl AsRef<[u8]>) -> Option<Reason> {
    match parse(bytes.as_ref()) {
        Parsed::Refused(reason) => Some(reason),
        Parsed::Complete(_) | Parsed::NeedMore => None,
    }
}

/// What is read of a hello in one record.
#[track_caller]
fn read<T>(hello: &build::ClientHello, what: impl Fn(&Hello<'_>) -> T) -> T {
    let bytes = hello.record();
    match parse(&bytes) {
        Parsed::Complete(hello) => {
            assert_eq!(hello.length, bytes.len());
            what(&hello.hello())
        }
        other => panic!("{other:?}"),
    }
}

fn offer_of(hello: &build::ClientHello) -> Offer {
    read(hello, |hello| hello.offer)
}

#[test]
fn a_validation_is_read() {
    let expected = Hello {
        server_name: ServerName::Value(NAME),
        offer: Offer::AcmeTls,
        has_early_data: false,
    };
    for hello in [validation(), validation().post_quantum()] {
        read(&hello, |hello| assert_eq!(*hello, expected));
    }
}

#[test]
fn one_record_is_borrowed_and_many_are_joined() {
    let bytes = validation().record();
    let Parsed::Complete(hello) = parse(&bytes) else {
        panic!("refused");
    };
    assert!(matches!(
        hello.server_name,
        Name::Value(Cow::Borrowed(NAME))
    ));
    let message = validation().message();
    for cut in 1..message.len() {
        let bytes = records(&message, &[cut]);
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Parsed::NeedMore, "{cut}, {end}");
        }
        let Parsed::Complete(split) = parse(&bytes) else {
            panic!("refused at {cut}");
        };
        assert_eq!((split.hello(), split.length), (hello.hello(), bytes.len()));
    }
}

#[test]
fn what_is_behind_the_records_is_not_looked_at() {
    let whole = validation().record();
    for behind in [&b"\x14\x03\x03\x00\x01\x01"[..], b"GET / HTTP/1.1\r\n\r\n"] {
        let bytes = [&whole, behind].concat();
        assert_eq!(parse(&bytes), parse(&whole));
    }
}

#[test]
fn other_protocols_are_told_by_their_first_wrong_octet() {
    for bytes in [
        &b"G"[..],
        b"\x80\x2e\x01\x03\x01",
        b"\x00",
        b"\x15\x03\x01\x00\x02",
        b"\x17",
        b"\x16\x02",
        b"\x16\x16",
    ] {
        assert_eq!(refused(bytes), Some(Reason::NotTls), "{bytes:?}");
    }
    assert_eq!(parse(b""), Parsed::NeedMore);
    assert_eq!(parse(b"\x16"), Parsed::NeedMore);
}

#[test]
fn records_that_no_client_writes_are_malformed() {
    let message = validation().message();
    let two = records(&message, &[100]);
    let second = 5 + 100;
    let with = |at: usize, byte: u8| {
        let mut bytes = two.clone();
        bytes[at] = byte;
        bytes
    };
    for (bytes, why) in [
        (record(b""), "an empty record"),
        (records(&message, &[100, 100]), "an empty record within"),
        (b"\x16\x03\x01\x40\x01".to_vec(), "a record above 2^14"),
        (with(second, 23), "another type within"),
        (with(second + 1, 2), "another version within"),
        (record(&[2]), "a ServerHello"),
    ] {
        assert_eq!(refused(&bytes), Some(Reason::MalformedHello), "{why}");
    }
    // The second octet of a version says nothing, in whatever record.
    assert_eq!(refused(with(2, 9)), None);
    assert_eq!(refused(with(second + 2, 0)), None);
}

#[test]
fn nothing_may_follow_in_the_record_that_ends_the_hello() {
    let whole = validation().message();
    for behind in [&[0][..], &whole] {
        let both = [&whole, behind].concat();
        for cuts in [&[][..], &[1], &[whole.len() - 1]] {
            let bytes = records(&both, cuts);
            assert_eq!(refused(&bytes), Some(Reason::MalformedHello), "{cuts:?}");
        }
    }
}

#[test]
fn the_cap_counts_record_headers() {
    let filled = |rest: usize| {
        let mut hello = validation();
        let room = MAX_HELLO_BYTES - hello.record().len() - 4 + rest;
        hello = hello.with(21, vec![0; room]);
        hello
    };
    let fits = filled(0);
    assert_eq!(fits.record().len(), MAX_HELLO_BYTES);
    assert_eq!(offer_of(&fits), Offer::AcmeTls);
    let larger = filled(1);
    assert_eq!(refused(&larger.record()[..5]), Some(Reason::HelloTooLarge));
    let in_two = records(&fits.message(), &[4]);
    assert!(matches!(parse(&in_two[..9]), Parsed::NeedMore));
    assert_eq!(refused(&in_two[..14]), Some(Reason::HelloTooLarge));
    // Announced by the message itself, in however small records.
    let announced = records(&larger.message()[..4], &[1, 2, 3]);
    assert_eq!(refused(&announced), Some(Reason::HelloTooLarge));
}

#[test]
fn a_full_buffer_decides_also_when_every_octet_has_a_record() {
    let fits = MAX_HELLO_BYTES / 6;
    let hello = message(1, &vec![3; fits]);
    let cuts: Vec<usize> = (1..hello.len()).collect();
    let bytes = records(&hello, &cuts);
    assert_eq!(parse(&bytes[..6 * fits - 1]), Parsed::NeedMore);
    assert_eq!(refused(&bytes), Some(Reason::HelloTooLarge));
    assert_eq!(refused(&bytes[..6 * fits]), Some(Reason::HelloTooLarge));
}

#[test]
fn the_structure_is_read_strictly() {
    let base = validation;
    let changed = |change: fn(&mut build::ClientHello)| {
        let mut hello = base();
        change(&mut hello);
        hello
    };
    for (hello, why) in [
        (changed(|hello| hello.version = [2, 0]), "version"),
        (
            changed(|hello| hello.session_id = vec![0; 33]),
            "session id",
        ),
        (changed(|hello| hello.cipher_suites.clear()), "no suites"),
        (
            changed(|hello| hello.cipher_suites.truncate(3)),
            "half a suite",
        ),
        (changed(|hello| hello.compression_methods.clear()), "none"),
        (
            changed(|hello| hello.compression_methods = vec![1]),
            "no null",
        ),
        (
            changed(|hello| hello.rest = vec![0]),
            "behind the extensions",
        ),
        (base().name(NAME), "two server names"),
        (base().alpn(&["h2"]), "two ALPNs"),
        (
            base().with(43, []).with(7, []).with(7, []),
            "twice the same",
        ),
        (base().with(EARLY_DATA, [0]), "early data with data"),
    ] {
        assert_eq!(
            refused(hello.record()),
            Some(Reason::MalformedHello),
            "{why}"
        );
    }
    // Cut short within, with a message that says so.
    let body = &base().message()[4..];
    for end in 0..body.len() {
        let bytes = record(&message(1, &body[..end]));
        // Where the extensions would begin, there may be none.
        let expected = match end == body.len() - extensions_bytes(&base()) {
            true => None,
            false => Some(Reason::MalformedHello),
        };
        assert_eq!(refused(&bytes), expected, "{end}");
    }
}

fn extensions_bytes(hello: &build::ClientHello) -> usize {
    let bare = build::ClientHello {
        extensions: None,
        ..hello.clone()
    };
    hello.message().len() - bare.message().len()
}

#[test]
fn what_old_and_odd_clients_send_is_legal() {
    let nothing = Hello {
        server_name: ServerName::Missing,
        offer: Offer::Nothing,
        has_early_data: false,
    };
    let mut no_extensions = build::ClientHello::bare();
    read(&no_extensions, |hello| assert_eq!(*hello, nothing));
    no_extensions.extensions = Some(Vec::new());
    read(&no_extensions, |hello| assert_eq!(*hello, nothing));
    let mut short = build::ClientHello::bare();
    (short.version, short.session_id) = ([3, 0], Vec::new());
    short.compression_methods = vec![1, 0];
    read(&short, |hello| assert_eq!(*hello, nothing));
    // RFC 8701: values that mean nothing, and two extensions of them.
    let mut greased = validation().with(0x0a0a, []).with(0x1a1a, [0]);
    greased.cipher_suites.extend([0x2a, 0x2a]);
    assert_eq!(offer_of(&greased), Offer::AcmeTls);
}

#[test]
fn thousands_of_extensions_are_one_pass() {
    let mut hello = build::ClientHello::bare();
    for kind in 1000..5000 {
        hello = hello.with(kind, []);
    }
    assert_eq!(offer_of(&hello), Offer::Nothing);
    assert_eq!(
        refused(hello.with(1000, []).record()),
        Some(Reason::MalformedHello)
    );
}

#[test]
fn a_server_name_is_one_name_of_ascii() {
    let with = |data: Vec<u8>| build::ClientHello::new().with(SERVER_NAME, data);
    let one = |name: &[u8]| with(names(&[(0, name)]));
    let longest = "a".repeat(MAX_SERVER_NAME_BYTES);
    for name in [
        NAME,
        "WWW.Example.COM.",
        "1.2.0.192.in-addr.arpa",
        "_",
        &longest,
    ] {
        read(&one(name.as_bytes()), |hello| {
            assert_eq!(hello.server_name, ServerName::Value(name));
        });
    }
    let name = NAME.as_bytes();
    for (hello, why) in [
        (with(Vec::new()), "no list"),
        (with(vec![0, 0]), "an empty list"),
        (one(b""), "an empty name"),
        (one(b"www.example.com\0.example.net"), "a NUL"),
        (one(b"www example"), "a space"),
        (one("münchen.example".as_bytes()), "not ASCII"),
        (one(format!("{longest}a").as_bytes()), "too long"),
        (with(names(&[(1, name)])), "of another type"),
        (with(names(&[(0, name), (0, name)])), "two names"),
        (with(names(&[(0, name), (1, name)])), "and another type"),
        (
            with([names(&[(0, name)]), vec![0]].concat()),
            "behind the list",
        ),
        (with(vector16(&[0, 0, 9, b'a'])), "a name cut short"),
        (with(vec![0, 9, 0, 0, 1, b'a']), "a list cut short"),
    ] {
        read(&hello, |hello| {
            assert_eq!(hello.server_name, ServerName::Malformed, "{why}");
        });
    }
}

#[test]
fn an_offer_is_exactly_one_name_or_no_validation() {
    let of = |protocols: &[&str]| offer_of(&build::ClientHello::new().alpn(protocols));
    assert_eq!(offer_of(&build::ClientHello::new()), Offer::Nothing);
    assert_eq!(of(&["acme-tls/1"]), Offer::AcmeTls);
    for protocols in [
        &["acme-tls/1", "http/1.1"][..],
        &["h2", "acme-tls/1"],
        &["acme-tls/1", "acme-tls/1"],
        &["h2", "acme-tls/1", "http/1.1"],
    ] {
        assert_eq!(of(protocols), Offer::AcmeTlsAmongOthers, "{protocols:?}");
    }
    for protocols in [
        &["h2", "http/1.1"][..],
        &["ACME-TLS/1"],
        &["acme-tls/1 "],
        &["acme-tls/1\0"],
        &["acme-tls/"],
        &["acme-tls/10"],
    ] {
        assert_eq!(of(protocols), Offer::Others, "{protocols:?}");
    }
    let acme = vector8("acme-tls/1");
    for (data, why) in [
        (Vec::new(), "no list"),
        (vector16(&[]), "an empty list"),
        (vector16(&[0]), "an empty name"),
        (
            vector16(&[acme.clone(), vec![0]].concat()),
            "an empty second one",
        ),
        (
            vector16(&[&acme[..], &[3, b'h']].concat()),
            "a name cut short",
        ),
        ([vector16(&acme), vec![0]].concat(), "behind the list"),
        ([&[0, 12][..], &acme].concat(), "a list cut short"),
    ] {
        let hello = build::ClientHello::new().with(ALPN, data);
        assert_eq!(
            refused(hello.record()),
            Some(Reason::MalformedHello),
            "{why}"
        );
    }
}

#[test]
fn early_data_and_what_is_encrypted_are_seen() {
    let early = validation().with(EARLY_DATA, []);
    assert!(read(&early, |hello| hello.has_early_data));
    assert!(!read(&validation(), |hello| hello.has_early_data));
    let encrypted = |hello: build::ClientHello| offer_of(&hello.with(ENCRYPTED_CLIENT_HELLO, [0]));
    assert_eq!(encrypted(validation()), Offer::AcmeTlsAmongOthers);
    assert_eq!(encrypted(build::ClientHello::new()), Offer::Nothing);
    let others = build::ClientHello::new().alpn(&["h2"]);
    assert_eq!(encrypted(others), Offer::Others);
}

proptest! {
    #[test]
    fn records_cut_anywhere_say_the_same(cuts in prop::collection::btree_set(1_usize..250, 0..40)) {
        let message = validation().message();
        let cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut < message.len()).collect();
        let bytes = records(&message, &cuts);
        for end in 0..bytes.len() {
            prop_assert_eq!(parse(&bytes[..end]), Parsed::NeedMore);
        }
        let Parsed::Complete(hello) = parse(&bytes) else {
            panic!("refused");
        };
        let whole = validation().record();
        let Parsed::Complete(expected) = parse(&whole) else {
            panic!("refused");
        };
        prop_assert_eq!(hello.hello(), expected.hello());
        prop_assert_eq!(hello.length, bytes.len());
    }

    #[test]
    fn no_bytes_panic_and_a_verdict_stays(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        is_hello in any::<bool>(),
    ) {
        if is_hello {
            let length = bytes.len().min(MAX_HELLO_BYTES);
            bytes = record(&message(1, &bytes[..length]));
        }
        let whole = parse(&bytes);
        for end in 0..bytes.len() {
            match parse(&bytes[..end]) {
                Parsed::NeedMore => {}
                settled => prop_assert_eq!(&settled, &whole),
            }
        }
    }
}
