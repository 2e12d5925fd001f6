//! Captured flights of real clients and servers, at every cut, and what an attacker makes of them.

use super::*;

/// A conversation: who spoke (`false`: the peer), and what. Recorded between the two programs of
/// its name, until the connection ended.
type Flights = Vec<(bool, Vec<u8>)>;

macro_rules! captured {
    ($name:literal) => {
        read_flights(include_bytes!(concat!(
            "../../../fuzz/seeds/handshake/",
            $name,
            ".bin"
        )))
    };
}

/// Reads what the fuzz target reads: one octet, zero for the peer; the length in two; the bytes.
fn read_flights(mut bytes: &[u8]) -> Flights {
    let mut flights = Vec::new();
    while let [who, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (flight, behind) = rest.split_at(length);
        flights.push((*who != 0, flight.to_vec()));
        bytes = behind;
    }
    flights
}

/// Handshakes after which the client closed without a request.
fn handshakes() -> Vec<(&'static str, Flights)> {
    vec![
        ("openssl, TLS 1.3", captured!("openssl-tls13")),
        ("openssl, AES-128", captured!("openssl-tls13-aes128")),
        ("openssl, CCM-8", captured!("openssl-tls13-ccm8")),
        ("openssl, retry", captured!("openssl-tls13-retry")),
        ("openssl, TLS 1.2", captured!("openssl-tls12")),
        ("openssl, RSA and CBC", captured!("openssl-tls12-cbc-rsa")),
        ("openssl, SHA-384 CBC", captured!("openssl-tls12-cbc384")),
        ("Python, TLS 1.3", captured!("python-tls13")),
        ("Python, TLS 1.2", captured!("python-tls12")),
        ("GnuTLS, TLS 1.3", captured!("gnutls-tls13")),
        ("GnuTLS, TLS 1.2", captured!("gnutls-tls12")),
        ("a Go server", captured!("go-server")),
    ]
}

/// Handshakes after which the client asked for something.
fn requests() -> Vec<(&'static str, Flights)> {
    vec![
        ("TLS 1.3", captured!("attack-http-tls13")),
        ("TLS 1.2", captured!("attack-http-tls12")),
        ("a Go client", captured!("go-tls13-http")),
    ]
}

/// What came out on both sides, and how it ended.
#[derive(Debug, PartialEq)]
struct Outcome {
    to_server: Vec<u8>,
    to_peer: Vec<u8>,
    refused: Option<Misstep>,
    is_complete: bool,
}

fn run(flights: &Flights, step: usize) -> Outcome {
    let mut handshake = Handshake::new();
    let (mut to_server, mut to_peer, mut refused) = (Vec::new(), Vec::new(), None);
    for (is_server, bytes) in flights {
        for part in bytes.chunks(step) {
            let heard = match is_server {
                false => handshake.hear_peer(part, &mut to_server),
                true => handshake.hear_server(part, &mut to_peer),
            };
            refused = refused.or(heard.err());
            if refused.is_some() {
                break;
            }
        }
        if refused.is_some() {
            break;
        }
    }
    Outcome {
        to_server,
        to_peer,
        refused,
        is_complete: handshake.is_complete(),
    }
}

fn said(flights: &Flights, by_server: bool) -> Vec<u8> {
    let of = flights
        .iter()
        .filter(|(is_server, _)| *is_server == by_server);
    of.flat_map(|(_, bytes)| bytes.clone()).collect()
}

/// Types and payload lengths.
fn records(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut records = Vec::new();
    while let Some((kind, Some(length))) = header(bytes) {
        records.push((kind, length));
        bytes = &bytes[RECORD_HEADER_BYTES + length..];
    }
    assert!(bytes.is_empty(), "half a record was passed on");
    records
}

fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3, high, low], payload].concat()
}

#[test]
fn real_handshakes_are_complete_however_they_are_cut() {
    for (name, flights) in handshakes() {
        let whole = run(&flights, usize::MAX);
        assert_eq!(whole.refused, None, "{name}");
        assert!(whole.is_complete, "{name}");
        assert_eq!(whole.to_server, said(&flights, false), "{name}: all passed");
        for step in [1, 2, 3, 5, 7, 64, 500] {
            assert_eq!(run(&flights, step), whole, "{name} by {step}");
        }
    }
}

#[test]
fn the_responders_flight_reaches_the_peer_whole_and_nothing_behind_it() {
    for (name, flights) in handshakes() {
        let (_, answer) = flights.iter().find(|(is_server, _)| *is_server).unwrap();
        let outcome = run(&flights, usize::MAX);
        assert!(outcome.to_peer.starts_with(answer), "{name}");
        let is_tls13 = records(&outcome.to_peer)
            .iter()
            .any(|(kind, _)| *kind == 23);
        if is_tls13 && !name.contains("retry") {
            // Session tickets, the answer to close_notify, and whatever a web server would say.
            assert_eq!(&outcome.to_peer, answer, "{name}");
        }
    }
}

#[test]
fn a_handshake_is_complete_with_its_last_message_and_not_before() {
    for (name, flights) in handshakes() {
        let mut handshake = Handshake::new();
        let mut passed = Vec::new();
        let mut last_kind = 0;
        for (is_server, bytes) in &flights {
            for octet in bytes {
                let was_complete = handshake.is_complete();
                let before = passed.len();
                match is_server {
                    false => handshake.hear_peer(&[*octet], &mut passed).unwrap(),
                    true => handshake.hear_server(&[*octet], &mut passed).unwrap(),
                }
                if handshake.is_complete() && !was_complete {
                    last_kind = passed[before];
                }
            }
        }
        let finished = if name.contains("1.2") || name.contains("CBC") {
            22
        } else {
            23
        };
        assert_eq!(last_kind, finished, "{name}");
    }
}

#[test]
fn a_request_after_the_handshake_never_passes() {
    for (name, flights) in requests() {
        for step in [1, 100, usize::MAX] {
            let outcome = run(&flights, step);
            let refused = outcome.refused.unwrap();
            assert_eq!(refused.reason, Reason::NotHandshake, "{name}");
            assert!(outcome.is_complete, "{name}: the handshake itself is fine");
            let encrypted = records(&outcome.to_server)
                .iter()
                .filter(|(kind, _)| *kind == APPLICATION_DATA)
                .count();
            assert_eq!(encrypted, usize::from(!name.contains("1.2")), "{name}");
        }
    }
}

#[test]
fn a_web_servers_answer_would_not_pass_either() {
    // As if the request had found its way: what the server says to it.
    for (name, flights) in requests() {
        let mut handshake = Handshake::new();
        let (mut to_server, mut to_peer) = (Vec::new(), Vec::new());
        for (is_server, bytes) in &flights {
            match is_server {
                false => drop(handshake.hear_peer(bytes, &mut to_server)),
                true => handshake.hear_server(bytes, &mut to_peer).unwrap(),
            }
        }
        let answer = records(&said(&flights, true))
            .into_iter()
            .max_by_key(|(_, length)| *length);
        assert!(answer.unwrap().1 > 4000, "{name}: there was an answer");
        assert!(to_peer.len() < 1500, "{name}: {} octets", to_peer.len());
    }
}

#[test]
fn a_renegotiation_is_refused() {
    let flights = captured!("attack-renegotiation");
    let outcome = run(&flights, usize::MAX);
    assert_eq!(outcome.refused.unwrap().detail, "a second handshake");
    assert!(outcome.is_complete);
}

#[test]
fn a_responder_that_says_no_is_heard() {
    let flights = captured!("openssl-no-alpn");
    let mut handshake = Handshake::new();
    let mut passed = Vec::new();
    handshake.hear_peer(&flights[0].1, &mut passed).unwrap();
    passed.clear();
    handshake.hear_server(&flights[1].1, &mut passed).unwrap();
    assert_eq!(passed, flights[1].1);
    // no_application_protocol (RFC 7301 §3.2)
    assert_eq!(handshake.alerted(), Some(Alerted::Server(Some(120))));
    assert!(!handshake.is_complete());
}

/// The first flights, up to the server's answer.
fn answered(mut flights: Flights) -> Handshake {
    flights.truncate(2);
    let mut handshake = Handshake::new();
    let mut passed = Vec::new();
    handshake.hear_peer(&flights[0].1, &mut passed).unwrap();
    handshake.hear_server(&flights[1].1, &mut passed).unwrap();
    handshake
}

fn refused(handshake: &mut Handshake, bytes: &[u8]) -> &'static str {
    let mut pass = Vec::new();
    let refusal = handshake.hear_peer(bytes, &mut pass).unwrap_err();
    assert_eq!(refusal.reason, Reason::NotHandshake);
    assert!(pass.is_empty(), "{}", refusal.detail);
    refusal.detail
}

#[test]
fn data_in_place_of_a_finished_or_behind_it_is_refused_by_its_size() {
    // AES-256: the Finished has 69 octets. 35 are "GET / HTTP/1.0" and two empty lines.
    for length in [1, 18, 20, 35, 53, 68, 70, 1000] {
        let mut handshake = answered(captured!("openssl-tls13"));
        refused(&mut handshake, &record(23, &vec![0; length]));
    }
    let mut handshake = answered(captured!("openssl-tls13"));
    let mut pass = Vec::new();
    handshake
        .hear_peer(&record(23, &[0; 69]), &mut pass)
        .unwrap();
    // A second one, as a request padded to that size would be.
    refused(&mut handshake, &record(23, &[0; 69]));
}

#[test]
fn a_request_in_records_of_two_octets_does_not_pass() {
    let mut handshake = answered(captured!("openssl-tls13"));
    let mut pass = Vec::new();
    handshake
        .hear_peer(&record(23, &[0; 69]), &mut pass)
        .unwrap();
    // One may be an alert.
    handshake
        .hear_peer(&record(23, &[0; 19]), &mut pass)
        .unwrap();
    refused(&mut handshake, &record(23, &[0; 19]));
}

#[test]
fn an_alert_in_place_of_a_finished_ends_the_peers_part() {
    let mut handshake = answered(captured!("openssl-tls13"));
    let mut pass = Vec::new();
    handshake
        .hear_peer(&record(23, &[0; 19]), &mut pass)
        .unwrap();
    assert_eq!(handshake.alerted(), Some(Alerted::Peer(None)));
    assert_eq!(
        refused(&mut handshake, &record(23, &[0; 69])),
        "a record after the peer's alert"
    );
    assert!(!handshake.is_complete());
}

#[test]
fn early_data_is_refused() {
    let hello = &captured!("openssl-tls13")[0].1;
    for early in [
        record(20, &[1]),
        record(23, &[0; 100]),
        record(23, &[0; 69]),
    ] {
        let mut pass = Vec::new();
        let mut handshake = Handshake::new();
        handshake.hear_peer(hello, &mut pass).unwrap();
        refused(&mut handshake, &early);
    }
}

#[test]
fn a_change_cipher_spec_carries_nothing_and_has_its_place() {
    for payload in [&b"GET / HTTP/1.0\r\n\r\n"[..], &[2], &[1, 1]] {
        for flights in [captured!("openssl-tls13"), captured!("openssl-tls12")] {
            let mut handshake = answered(flights);
            assert_eq!(
                refused(&mut handshake, &record(20, payload)),
                "a ChangeCipherSpec that is none"
            );
        }
    }
    let mut pass = Vec::new();
    let mut handshake = answered(captured!("openssl-tls12"));
    handshake.hear_peer(&record(20, &[1]), &mut pass).unwrap();
    assert_eq!(
        refused(&mut handshake, &record(20, &[1])),
        "a second ChangeCipherSpec"
    );
    let mut handshake = answered(captured!("openssl-tls13"));
    let finished = [record(20, &[1]), record(23, &[0; 69])].concat();
    handshake.hear_peer(&finished, &mut pass).unwrap();
    assert_eq!(
        refused(&mut handshake, &record(20, &[1])),
        "a record after the peer's Finished"
    );
}

#[test]
fn application_data_never_passes_in_tls12() {
    for (position, name) in ["the answer", "the handshake"].into_iter().enumerate() {
        let flights = captured!("openssl-tls12");
        let mut handshake = Handshake::new();
        let mut passed = Vec::new();
        for (is_server, bytes) in &flights[..2 + 2 * position] {
            match is_server {
                false => handshake.hear_peer(bytes, &mut passed).unwrap(),
                true => handshake.hear_server(bytes, &mut passed).unwrap(),
            }
        }
        assert_eq!(handshake.is_complete(), position == 1);
        passed.clear();
        let data = record(23, &[0; 40]);
        let heard = handshake.hear_server(&data, &mut passed);
        assert_eq!(heard.is_ok(), position == 1, "after {name}");
        assert!(passed.is_empty(), "after {name}");
        refused(&mut handshake, &data);
    }
}

#[test]
fn what_is_no_record_is_refused_at_its_header() {
    let hello = &captured!("openssl-tls13")[0].1;
    for (bytes, name) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "HTTP"),
        (&[22, 2, 0, 0, 9], "SSL 2"),
        (&[22, 3, 3, 0, 0], "an empty record"),
        (&[22, 3, 3, 0x41, 0x01], "2^14 + 257"),
    ] {
        assert_eq!(
            refused(&mut Handshake::new(), bytes),
            "not a TLS record",
            "{name}"
        );
        let mut handshake = Handshake::new();
        handshake.hear_peer(hello, &mut Vec::new()).unwrap();
        assert_eq!(refused(&mut handshake, bytes), "not a TLS record", "{name}");
    }
    // A large one is not waited for where no room is left for it.
    let mut handshake = answered(captured!("openssl-tls12"));
    assert_eq!(
        refused(&mut handshake, &[22, 3, 3, 0x10, 0]),
        "more than the messages of a handshake"
    );
}

#[test]
fn a_hello_is_one_message_and_nothing_else() {
    let hello = &captured!("openssl-tls13")[0].1[RECORD_HEADER_BYTES..];
    let mut handshake = Handshake::new();
    // In records of one octet each.
    let split: Vec<u8> = hello
        .iter()
        .flat_map(|octet| record(22, &[*octet]))
        .collect();
    let mut pass = Vec::new();
    handshake.hear_peer(&split, &mut pass).unwrap();
    assert_eq!(pass, split);
    assert!(handshake.hello.is_whole);
    let with_more = [hello, &[0]].concat();
    for (bytes, detail) in [
        (record(22, &with_more), "more than a ClientHello"),
        (record(22, &[2, 0, 0, 1, 0]), "no ClientHello"),
        (record(23, hello), "no ClientHello"),
        (record(22, &[1, 0, 0x40, 0]), "more than a ClientHello"),
    ] {
        assert_eq!(refused(&mut Handshake::new(), &bytes), detail);
    }
}

#[test]
fn records_without_number_are_stopped_by_their_sum() {
    let mut handshake = answered(captured!("openssl-tls13"));
    let (mut passed, flood) = (Vec::new(), record(20, &[1]).repeat(10_000));
    let refusal = handshake.hear_peer(&flood, &mut passed).unwrap_err();
    assert_eq!(refusal.detail, "more than the messages of a handshake");
    assert!(passed.len() <= MAX_PEER_BYTES && passed.len() > MAX_PEER_BYTES - 6);

    let mut handshake = answered(captured!("openssl-tls13"));
    let (mut passed, flood) = (Vec::new(), record(23, &[0; 1000]).repeat(100));
    let refusal = handshake.hear_server(&flood, &mut passed).unwrap_err();
    assert_eq!(refusal.reason, Reason::HandshakeFailed);
    assert!(passed.len() <= MAX_SERVER_BYTES);
}

#[test]
fn a_second_hello_passes_where_the_server_wants_one() {
    let flights = captured!("openssl-tls13-retry");
    let mut handshake = answered(flights.clone());
    let mut pass = Vec::new();
    handshake.hear_peer(&flights[2].1, &mut pass).unwrap();
    assert_eq!(pass, flights[2].1);
    // And nowhere else.
    let mut handshake = answered(captured!("openssl-tls13"));
    assert_eq!(
        refused(&mut handshake, &captured!("openssl-tls13")[0].1),
        "a handshake in clear after the server's answer"
    );
}

/// What passes at once would overtake the part of the hello that waits for the rest.
#[test]
fn nothing_comes_between_the_parts_of_a_second_hello() {
    let flights = captured!("openssl-tls13-retry");
    let second = &flights[2].1;
    let begin = second.windows(2).position(|at| at == [22, 3]).unwrap();
    let (changed, hello) = second.split_at(begin);
    let (one, other) = hello[RECORD_HEADER_BYTES..].split_at(100);
    let (one, other) = (record(22, one), record(22, other));
    // In parts, and with the ChangeCipherSpec in front or behind, it passes as it came.
    for parts in [[changed, &one, &other], [&one, &other, changed]] {
        let (mut handshake, mut pass) = (answered(flights.clone()), Vec::new());
        handshake.hear_peer(&parts.concat(), &mut pass).unwrap();
        assert_eq!(pass, parts.concat());
    }
    for between in [changed, &record(21, &[1, 0])] {
        let mut handshake = answered(flights.clone());
        let said = [&one, between, &other].concat();
        assert_eq!(
            refused(&mut handshake, &said),
            "a record amid the second ClientHello"
        );
    }
}

/// A server that answers the second hello must not be told another name or protocol by it.
#[test]
fn a_second_hello_says_what_the_first_one_said() {
    let flights = captured!("openssl-tls13-retry");
    // In front stands a ChangeCipherSpec.
    let begin = flights[2]
        .1
        .windows(2)
        .position(|at| at == [22, 3])
        .unwrap();
    let second = &flights[2].1[begin..];
    let place = |text: &[u8]| second.windows(text.len()).position(|at| at == text);
    for text in [b"acme-tls/1" as &[u8], b"example"] {
        let mut bytes = second.to_vec();
        bytes[place(text).unwrap()] = b'b';
        assert_eq!(
            refused(&mut answered(flights.clone()), &bytes),
            "a second ClientHello that is not as the first"
        );
    }
    // Nothing of it passes before it is whole, and then no third one.
    let mut handshake = answered(flights.clone());
    let mut pass = Vec::new();
    let (most, last) = second.split_at(second.len() - 1);
    handshake.hear_peer(most, &mut pass).unwrap();
    assert_eq!(pass, b"");
    handshake.hear_peer(last, &mut pass).unwrap();
    assert_eq!(pass, second);
    assert_eq!(refused(&mut handshake, second), "a third ClientHello");
}

#[test]
fn servers_that_are_no_responders_are_refused() {
    let hello = captured!("openssl-tls13")[0].1.clone();
    let mut old = captured!("openssl-tls12")[1].1.clone();
    old[RECORD_HEADER_BYTES + 5] = 1;
    for bytes in [
        b"SSH-2.0-OpenSSH\r\n".to_vec(),
        record(23, &[0; 50]),
        record(22, &[11, 0, 0, 0]),
        record(20, &[1]),
        old,
    ] {
        let mut handshake = Handshake::new();
        let mut pass = Vec::new();
        handshake.hear_peer(&hello, &mut pass).unwrap();
        pass.clear();
        let refusal = handshake.hear_server(&bytes, &mut pass).unwrap_err();
        assert_eq!(refusal.reason, Reason::HandshakeFailed);
        assert!(pass.is_empty(), "{}", refusal.detail);
    }
    let mut pass = Vec::new();
    let first = Handshake::new().hear_server(&record(21, &[2, 40]), &mut pass);
    assert_eq!(first.unwrap_err().detail, "the responder spoke first");
}

#[test]
fn an_alert_in_clear_after_the_finished_of_tls13_is_none() {
    let mut handshake = answered(captured!("openssl-tls13"));
    let mut pass = Vec::new();
    let finished = record(23, &[0; 69]);
    handshake.hear_peer(&finished, &mut pass).unwrap();
    assert_eq!(
        refused(&mut handshake, &record(21, &[1, 0])),
        "an alert that is none"
    );
}

#[test]
fn a_server_hello_of_tls13_stands_alone_and_keeps_the_suite_of_its_retry() {
    let flights = captured!("openssl-tls13");
    let answer = &flights[1].1;
    let (_, length) = header(answer).unwrap();
    let hello = &answer[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + length.unwrap()];
    let mut handshake = Handshake::new();
    let mut pass = Vec::new();
    handshake.hear_peer(&flights[0].1, &mut pass).unwrap();
    pass.clear();
    let more = record(22, &[hello, &[0]].concat());
    let refusal = handshake.hear_server(&more, &mut pass).unwrap_err();
    assert_eq!(
        refusal.detail,
        "the responder's ServerHello is not as TLS 1.3 has it"
    );
    assert!(pass.is_empty());

    let flights = captured!("openssl-tls13-retry");
    let mut handshake = answered(flights.clone());
    handshake.hear_peer(&flights[2].1, &mut pass).unwrap();
    pass.clear();
    let mut other = flights[3].1.clone();
    let begin = other.windows(2).position(|at| at == [22, 3]).unwrap();
    let session = usize::from(other[begin + RECORD_HEADER_BYTES + 4 + 2 + 32]);
    let suite = begin + RECORD_HEADER_BYTES + 4 + 2 + 32 + 1 + session;
    assert_eq!(other[suite], 0x13);
    other[suite + 1] ^= 3;
    let refusal = handshake.hear_server(&other, &mut pass).unwrap_err();
    assert_eq!(refusal.detail, "the responder changed its mind");
}

#[test]
fn a_client_certificate_is_not_led_on() {
    // GnuTLS's server asks for one unless told not to: no responder needs to.
    let outcome = run(&captured!("gnutls-server"), usize::MAX);
    assert_eq!(outcome.refused.unwrap().reason, Reason::NotHandshake);
}
