//! ClientHellos of real clients, cut and split everywhere, and rustls as a second reader of them.
//! `tests/data/hello/README.md` says where the samples come from.

use std::collections::BTreeSet;
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

use acmegate::front::client_hello::{ClientHello, MAX_HELLO_BYTES, Parsed, parse};
use acmegate::gate::tls::{Hello, Offer, ServerName};
use proptest::prelude::*;
use rustls::server::Acceptor;

use crate::lab::hello;

const NAME: ServerName<'static> = ServerName::Value("www.example.com");

/// Every sample: its file, the octets of its records, and what it says.
const SAMPLES: &[(&str, usize, ServerName<'static>, Offer)] = &[
    ("curl", 517, NAME, Offer::Others),
    ("curl-by-address", 517, ServerName::Missing, Offer::Others),
    ("gnutls-cli", 406, NAME, Offer::Others),
    ("go-caddy-upstream", 281, NAME, Offer::Others),
    ("go-pebble-validation", 280, NAME, Offer::AcmeTls),
    ("haproxy-upstream", 517, NAME, Offer::Nothing),
    ("nginx-upstream", 212, NAME, Offer::Nothing),
    ("openssl-acme-tls", 338, NAME, Offer::AcmeTls),
    ("openssl-early-data", 437, NAME, Offer::AcmeTls),
    (
        "openssl-many-extensions",
        490,
        NAME,
        Offer::AcmeTlsAmongOthers,
    ),
    ("openssl-no-name", 188, ServerName::Missing, Offer::Nothing),
    ("openssl-tls12-only", 212, NAME, Offer::Nothing),
    ("openssl-tls13", 267, NAME, Offer::Others),
    ("openssl4-post-quantum", 1571, NAME, Offer::AcmeTls),
    ("python", 517, NAME, Offer::AcmeTlsAmongOthers),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/hello")
}

fn sample(name: &str) -> Vec<u8> {
    fs::read(folder().join(format!("{name}.bin"))).unwrap()
}

#[track_caller]
fn complete(bytes: &[u8]) -> ClientHello<'_> {
    match parse(bytes) {
        Parsed::Complete(hello) => hello,
        other => panic!("{other:?}"),
    }
}

/// Feeds `bytes` as they grow: more is needed at every cut before `length`, and what is said then
/// is said for good.
#[track_caller]
fn settles(bytes: &[u8], length: usize, expected: &Hello<'_>) {
    for end in 0..=bytes.len() {
        match parse(&bytes[..end]) {
            Parsed::NeedMore => assert!(end < length, "{end} of {length} octets"),
            Parsed::Complete(hello) => {
                assert!(end >= length, "{end} of {length} octets");
                assert_eq!((hello.length, hello.hello()), (length, *expected));
            }
            Parsed::Refused(reason) => panic!("{reason} after {end} octets"),
        }
    }
}

/// The message that well-formed records hold.
fn joined(mut bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [22, 3, _, high, low, rest @ ..] = bytes {
        let (fragment, behind) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        message.extend(fragment);
        bytes = behind;
    }
    message
}

#[test]
fn every_sample_is_in_the_table() {
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "bin"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let table = SAMPLES.iter().map(|sample| sample.0.to_owned()).collect();
    assert_eq!(files, table);
    let origins = fs::read_to_string(folder().join("README.md")).unwrap();
    for name in files {
        assert!(origins.contains(&format!("`{name}.bin`")), "{name}");
    }
}

#[test]
fn every_truncation_needs_more_and_then_one_answer_stays() {
    for (name, length, server_name, offer) in SAMPLES {
        let expected = Hello {
            server_name: *server_name,
            offer: *offer,
            has_early_data: *name == "openssl-early-data",
        };
        let mut bytes = sample(name);
        settles(&bytes, *length, &expected);
        bytes.extend(b"GET / HTTP/1.1\r\n\r\n");
        settles(&bytes, *length, &expected);
    }
}

#[test]
fn splitting_the_records_anywhere_changes_nothing() {
    for (name, length, ..) in SAMPLES {
        let bytes = sample(name);
        let hello = complete(&bytes);
        let message = joined(&bytes[..*length]);
        for cut in 1..message.len() {
            let split = hello::records(&message, &[cut]);
            let again = complete(&split);
            assert_eq!((again.hello(), again.length), (hello.hello(), split.len()));
        }
        for step in [1, 2, 7, 100] {
            let cuts: Vec<usize> = (step..message.len()).step_by(step).collect();
            let split = hello::records(&message, &cuts);
            settles(&split, split.len(), &hello.hello());
        }
    }
}

/// What validators with current Go libraries send: as Pebble's, with a hybrid key share beside. No
/// such client is packaged, so this one is built.
#[test]
fn a_post_quantum_validation_is_longer_than_a_segment_and_read_alike() {
    let validation = hello::ClientHello::new()
        .name("www.example.com")
        .alpn(&["acme-tls/1"])
        .post_quantum();
    let expected = Hello {
        server_name: NAME,
        offer: Offer::AcmeTls,
        has_early_data: false,
    };
    let bytes = validation.record();
    assert!(bytes.len() > 1460, "{} octets", bytes.len());
    settles(&bytes, bytes.len(), &expected);
    let message = validation.message();
    for cut in 1..message.len() {
        assert_eq!(
            complete(&hello::records(&message, &[cut])).hello(),
            expected
        );
    }
}

/// What this build's rustls sends, whatever its version.
#[test]
fn rustls_as_a_client_is_understood() {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = [
        (&[&rustls::version::TLS12][..], "1.2"),
        (&[&rustls::version::TLS13], "1.3"),
        (rustls::ALL_VERSIONS, "both"),
    ];
    for (versions, what) in versions {
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
        let name = "www.example.com".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        let expected = Hello {
            server_name: NAME,
            offer: Offer::AcmeTls,
            has_early_data: false,
        };
        settles(&bytes, bytes.len(), &expected);
        assert_eq!(complete(&bytes).hello(), expected, "TLS {what}");
    }
}

/// A server name, and what is offered by ALPN.
type Read = (Option<String>, Option<Vec<Vec<u8>>>);

/// What rustls reads of a hello as a server; `None` if it refuses it or wants more.
fn read_by_rustls(bytes: &[u8]) -> Option<Read> {
    let mut acceptor = Acceptor::default();
    let mut input = Cursor::new(bytes);
    loop {
        acceptor.read_tls(&mut input).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            let hello = accepted.client_hello();
            let alpn = hello
                .alpn()
                .map(|names| names.map(<[u8]>::to_vec).collect());
            return Some((hello.server_name().map(str::to_owned), alpn));
        }
        if input.position() == bytes.len() as u64 {
            return None;
        }
    }
}

/// Where both take the bytes for a ClientHello, both read the same in it.
#[track_caller]
fn agree(bytes: &[u8]) -> bool {
    let Parsed::Complete(ours) = parse(bytes) else {
        return false;
    };
    let ours = ours.hello();
    let Some((name, alpn)) = read_by_rustls(bytes) else {
        return false;
    };
    // What we call malformed, rustls may read in part: of a list with other types, the first name.
    let named = name.as_deref();
    match ours.server_name {
        ServerName::Value(own) if named.is_some_and(|name| own.eq_ignore_ascii_case(name)) => {}
        // What is no DNS name, is no name to rustls.
        ServerName::Value(_) | ServerName::Missing => assert_eq!(named, None),
        ServerName::Malformed => {}
    }
    let acme = b"acme-tls/1".to_vec();
    // rustls does not look at encrypted hellos.
    let is_encrypted = bytes.windows(2).any(|kind| kind == [0xfe, 0x0d]);
    let expected = match alpn {
        _ if is_encrypted => ours.offer,
        None => Offer::Nothing,
        Some(names) if names == [acme.clone()] => Offer::AcmeTls,
        Some(names) if names.contains(&acme) => Offer::AcmeTlsAmongOthers,
        Some(_) => Offer::Others,
    };
    assert_eq!(ours.offer, expected);
    true
}

#[test]
fn rustls_reads_the_same_in_every_sample() {
    for (name, ..) in SAMPLES {
        assert!(agree(&sample(name)), "{name}");
    }
}

proptest! {
    #[test]
    fn rustls_reads_the_same_in_changed_samples(
        which in 0..SAMPLES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = sample(SAMPLES[which].0);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        agree(&bytes);
        prop_assert!(bytes.len() < MAX_HELLO_BYTES);
    }
}
