use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;

fn pair(source: &str, destination: &str) -> Ends {
    Ends {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

/// A header of version 2 with this in it.
fn v2_with(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    let mut header = V2_SIGNATURE.to_vec();
    header.extend([command, family, length[0], length[1]]);
    header.extend_from_slice(rest);
    header
}

/// Whole at its end and at no cut before, whatever follows.
fn assert_complete(header: &[u8], ends: Option<Ends>) {
    let length = header.len();
    for end in 0..length {
        assert_eq!(parse(&header[..end]), Parsed::NeedMore, "{header:?} {end}");
    }
    for behind in [
        &b""[..],
        b"GET / HTTP/1.1\r\n",
        b"\r\n",
        b"\x16\x03",
        b"PROXY ",
    ] {
        let bytes = [header, behind].concat();
        assert_eq!(parse(&bytes), Parsed::Complete(Header { ends, length }));
    }
}

#[test]
fn lines_of_version_1_are_read_exactly() {
    for (line, ends) in [
        (
            "PROXY TCP4 192.0.2.1 203.0.113.7 56324 80\r\n",
            Some(pair("192.0.2.1:56324", "203.0.113.7:80")),
        ),
        (
            "PROXY TCP4 255.255.255.255 0.0.0.0 0 65535\r\n",
            Some(pair("255.255.255.255:0", "0.0.0.0:65535")),
        ),
        (
            "PROXY TCP6 2001:db8::1 2001:DB8:0:0:0:0:0:7 1 80\r\n",
            Some(pair("[2001:db8::1]:1", "[2001:db8::7]:80")),
        ),
        (
            "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::7 1 80\r\n",
            Some(pair("192.0.2.1:1", "[2001:db8::7]:80")),
        ),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN what ever  it is\r\n", None),
    ] {
        assert_complete(line.as_bytes(), ends);
    }
    let longest = format!(
        "PROXY UNKNOWN {0} {0} 65535 65535\r\n",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    );
    assert_eq!(longest.len(), MAX_V1_BYTES);
    assert_complete(longest.as_bytes(), None);
}

#[test]
fn what_is_no_line_of_version_1_is_malformed() {
    for line in [
        "GET / HTTP/1.1\r\n",
        "PROXy ",
        "proxy TCP4 192.0.2.1 203.0.113.7 1 80\r\n",
        "PROXY  TCP4 192.0.2.1 203.0.113.7 1 80\r\n",
        "PROXY\tTCP4 192.0.2.1 203.0.113.7 1 80\r\n",
        "PROXY tcp4 192.0.2.1 203.0.113.7 1 80\r\n",
        "PROXY UDP4 192.0.2.1 203.0.113.7 1 80\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.7 1\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.7 1 80 \r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.7 1 80 9\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.7 1  80\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.7 1 80\n",
        "PROXY TCP4 192.0.2.1 203.0.113.7 1 80\r\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.7 01 80\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.7 +1 80\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.7 1 65536\r\n",
        "PROXY TCP4 192.0.2.1 203.0.113.7 1 \r\n",
        "PROXY TCP4 192.0.2.01 203.0.113.7 1 80\r\n",
        "PROXY TCP4 192.0.2 203.0.113.7 1 80\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::7 1 80\r\n",
        "PROXY TCP6 192.0.2.1 203.0.113.7 1 80\r\n",
        "PROXY TCP6 fe80::1%eth0 2001:db8::7 1 80\r\n",
        "PROXY TCP6 [2001:db8::1] 2001:db8::7 1 80\r\n",
        "PROXY UNKNOWN \u{e4}\r\n",
        "PROXY UNKNOWN \0\r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Parsed::Malformed, "{line:?}");
    }
    let endless = "PROXY UNKNOWN ".to_owned() + &"x".repeat(MAX_V1_BYTES);
    for (end, parsed) in [
        (MAX_V1_BYTES - 1, Parsed::NeedMore),
        (MAX_V1_BYTES, Parsed::Malformed),
    ] {
        assert_eq!(parse(&endless.as_bytes()[..end]), parsed);
    }
    // An end that begins in the last octet is one too late.
    let late = endless[..MAX_V1_BYTES - 1].to_owned() + "\r";
    assert_eq!(parse(late.as_bytes()), Parsed::Malformed);
}

#[test]
fn headers_of_version_2_are_read_and_their_extensions_skipped() {
    let v4 = [192, 0, 2, 1, 203, 0, 113, 7, 0, 9, 0, 80];
    let ends = Some(pair("192.0.2.1:9", "203.0.113.7:80"));
    let extensions = b"\x04\x00\x03abc\xe0\xff";
    assert_complete(&v2_with(V2_PROXY, 0x11, &v4), ends);
    assert_complete(
        &v2_with(V2_PROXY, 0x11, &[&v4[..], extensions].concat()),
        ends,
    );
    let mut v6 = Vec::new();
    v6.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    v6.extend("::ffff:203.0.113.7".parse::<Ipv6Addr>().unwrap().octets());
    v6.extend([0, 9, 0, 80]);
    assert_complete(
        &v2_with(V2_PROXY, 0x21, &v6),
        Some(pair("[2001:db8::1]:9", "203.0.113.7:80")),
    );
}

#[test]
fn a_sender_that_speaks_for_itself_or_cannot_say_leaves_the_ends_as_they_are() {
    for header in [
        v2_with(V2_LOCAL, 0x00, b""),
        v2_with(V2_LOCAL, 0x00, b"\x03\x00\x04crc0"),
        // The family of LOCAL says nothing, so its length cannot be wrong.
        v2_with(V2_LOCAL, 0x11, b"short"),
        v2_with(V2_LOCAL, 0xff, b""),
        v2_with(V2_PROXY, 0x00, b""),
        v2_with(V2_PROXY, 0x00, b"anything"),
        v2_with(V2_PROXY, 0x31, &[b'/'; UNIX_BYTES]),
    ] {
        assert_complete(&header, None);
    }
}

#[test]
fn what_is_no_header_of_version_2_is_malformed_as_soon_as_it_shows() {
    for at in 0..V2_SIGNATURE.len() {
        let mut signature = V2_SIGNATURE;
        signature[at] ^= 0x20;
        assert_eq!(parse(&signature[..=at]), Parsed::Malformed, "{at}");
    }
    for (command, family) in [
        (0x22, 0x11),
        (0x11, 0x11),
        (0x31, 0x11),
        (0x2f, 0x11),
        (V2_PROXY, 0x01),
        (V2_PROXY, 0x10),
        (V2_PROXY, 0x12),
        (V2_PROXY, 0x22),
        (V2_PROXY, 0x32),
        (V2_PROXY, 0x41),
    ] {
        let header = v2_with(command, family, &[0; UNIX_BYTES]);
        assert_eq!(
            parse(&header[..14]),
            Parsed::Malformed,
            "{command:x} {family:x}"
        );
    }
    for (family, least) in [(0x11, V4_BYTES), (0x21, V6_BYTES), (0x31, UNIX_BYTES)] {
        let short = v2_with(V2_PROXY, family, &vec![0; least - 1]);
        assert_eq!(parse(&short[..V2_FIXED_BYTES]), Parsed::Malformed);
    }
    let most = MAX_V2_BYTES - V2_FIXED_BYTES;
    let longest = v2_with(V2_PROXY, 0x11, &vec![0; most]);
    assert!(matches!(parse(&longest), Parsed::Complete(header) if header.length == MAX_V2_BYTES));
    let longer = v2_with(V2_LOCAL, 0x00, &vec![0; most + 1]);
    assert_eq!(parse(&longer[..V2_FIXED_BYTES]), Parsed::Malformed);
}

#[test]
fn what_haproxy_sends_is_read_at_every_cut() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/proxy");
    let real = Some(pair("203.0.113.77:40000", "198.51.100.80:80"));
    let real_v6 = Some(pair("[2001:db8::77]:40000", "[2001:db8::80]:80"));
    for (name, ends) in [
        ("haproxy-2.6-v1-ipv4", real),
        ("haproxy-2.6-v1-ipv6", real_v6),
        ("haproxy-2.6-v1-check", None),
        ("haproxy-2.6-v2-ipv4", real),
        ("haproxy-2.6-v2-ipv6", real_v6),
        ("haproxy-2.6-v2-check", None),
        ("haproxy-2.6-v2-options", real),
        ("haproxy-2.6-v2-ssl-cn", real),
    ] {
        let bytes = fs::read(folder.join(format!("{name}.bin"))).unwrap();
        match name.ends_with("check") {
            // A check of version 1 says nothing, or its own ends.
            true => assert!(matches!(parse(&bytes), Parsed::Complete(_)), "{name}"),
            false => assert_complete(&bytes, ends),
        }
    }
}

#[test]
fn mixed_families_are_written_as_ipv6() {
    let mixed = pair("192.0.2.1:9", "[2001:db8::7]:80");
    assert_eq!(
        write(ProxyVersion::V1, &mixed),
        b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::7 9 80\r\n"
    );
    assert_eq!(write(ProxyVersion::V2, &mixed)[12..16], [0x21, 0x21, 0, 36]);
    let is_mapped = pair("[::ffff:192.0.2.1]:9", "203.0.113.7:80");
    assert_eq!(
        write(ProxyVersion::V1, &is_mapped),
        b"PROXY TCP4 192.0.2.1 203.0.113.7 9 80\r\n"
    );
}

fn end() -> impl Strategy<Value = SocketAddr> {
    let address = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
        any::<[u8; 4]>().prop_map(|v4| Ipv4Addr::from(v4).to_ipv6_mapped().into()),
    ];
    (address, any::<u16>()).prop_map(SocketAddr::from)
}

proptest! {
    #[test]
    fn what_is_written_is_read(source in end(), destination in end()) {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let header = write(version, &Ends { source, destination });
            let read = ends((source.ip(), source.port()), (destination.ip(), destination.port()));
            assert_complete(&header, Some(read));
            prop_assert!(header.len() <= MAX_V1_BYTES);
        }
    }

    #[test]
    fn the_answer_does_not_depend_on_the_cuts(
        beginning in prop::sample::select(vec![
            b"PROXY TCP4 192.0.2.1 203.0.113.7 1 80\r\n".to_vec(),
            b"PROXY UNKNOWN".to_vec(),
            v2_with(V2_PROXY, 0x11, &[7; 20]),
            v2_with(V2_LOCAL, 0x00, b""),
            Vec::new(),
        ]),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        behind in prop::collection::vec(any::<u8>(), 0..150),
    ) {
        let mut bytes = beginning;
        bytes.extend(behind);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let whole = parse(&bytes);
        for end in 0..bytes.len() {
            let cut = parse(&bytes[..end]);
            prop_assert!(cut == Parsed::NeedMore || cut == whole, "{}: {:?}, then {:?}", end, cut, whole);
        }
    }
}
