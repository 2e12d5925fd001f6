//! Prefixes as they may stand on the allow-list.

use std::net::IpAddr;

use ipnet::IpNet;

/// Reads a prefix, or an address as the prefix of it alone.
///
/// # Errors
/// What is wrong, and what to write instead. Bits behind the prefix length are an error: `10.1.2.3/8`
/// may be meant as one address or as sixteen million.
pub(super) fn parse(text: &str) -> Result<IpNet, (String, String)> {
    let prefix = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        (Ok(prefix), _) => prefix,
        (_, Ok(address)) => IpNet::from(address),
        _ => {
            return Err((
                format!("`{text}` is not a prefix"),
                "write one such as \"192.0.2.0/24\", \"2001:db8::/32\" or \"192.0.2.7\"".to_owned(),
            ));
        }
    };
    if let IpNet::V6(v6) = prefix
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && v6.prefix_len() >= 96
    {
        let meant = IpNet::new(IpAddr::V4(v4), v6.prefix_len() - 96).unwrap_or(prefix);
        return Err((
            format!("`{text}` is an IPv4 prefix written as IPv6"),
            format!("write \"{}\"", meant.trunc()),
        ));
    }
    if prefix.trunc() != prefix {
        return Err((
            format!("`{text}` has bits set behind its prefix length"),
            format!(
                "write \"{}\" for the network, \"{}\" for the address",
                prefix.trunc(),
                prefix.addr()
            ),
        ));
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_prefix_of_its_own() {
        for (text, prefix) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(parse(text), Ok(prefix.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn the_right_network_is_named() {
        for (text, fix) in [
            (
                "10.1.2.3/8",
                "write \"10.0.0.0/8\" for the network, \"10.1.2.3\" for the address",
            ),
            (
                "2001:db8::1/32",
                "write \"2001:db8::/32\" for the network, \"2001:db8::1\" for the address",
            ),
            ("::ffff:192.0.2.7", "write \"192.0.2.7/32\""),
            ("::ffff:192.0.2.7/120", "write \"192.0.2.0/24\""),
        ] {
            assert_eq!(parse(text).unwrap_err().1, fix, "{text}");
        }
        for text in [
            "",
            "10.0.0.0/33",
            "10/8",
            "10.0.0.0/255.0.0.0",
            "example.com",
            "fe80::1%2",
        ] {
            assert!(
                parse(text).unwrap_err().0.contains("is not a prefix"),
                "{text}"
            );
        }
    }
}
