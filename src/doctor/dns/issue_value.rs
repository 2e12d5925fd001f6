//! The value of a CAA `issue` property, and of a dns-persist-01 record: an issuer, and parameters
//! (RFC 8659 §4.2; draft-ietf-acme-dns-persist §4). Bytes in, value out.

/// `issuer; tag=value; …`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IssueValue {
    /// The CA's domain name in lower case; empty for none, which is nobody.
    pub issuer: String,
    /// Tags in lower case, and values, in order.
    pub parameters: Vec<(String, String)>,
}

impl IssueValue {
    /// `None` where the text is not of this form: for CAA that is nobody's permission (RFC 8659 §4.2).
    pub fn parse(octets: &[u8]) -> Option<Self> {
        let text = str::from_utf8(octets).ok()?;
        let mut parts = text.split(';').map(trim);
        let issuer = parts.next().unwrap_or_default();
        if !issuer.is_empty() && !issuer.split('.').all(is_label) {
            return None;
        }
        let parts: Vec<&str> = parts.collect();
        // One semicolon may stand at the end.
        let parameters = match parts.split_last() {
            Some((&"", before)) => before,
            _ => &parts,
        };
        let parameters: Option<Vec<(String, String)>> =
            parameters.iter().map(|part| parameter(part)).collect();
        Some(Self {
            issuer: issuer.to_ascii_lowercase(),
            parameters: parameters?,
        })
    }

    /// The values of a parameter; more than one is a contradiction.
    pub fn all<'a>(&'a self, tag: &'a str) -> impl Iterator<Item = &'a str> {
        let own = self.parameters.iter().filter(move |(own, _)| own == tag);
        own.map(|(_, value)| value.as_str())
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn parameter(text: &str) -> Option<(String, String)> {
    let (tag, value) = text.split_once('=')?;
    let (tag, value) = (trim(tag), trim(value));
    // %x21-3A / %x3C-7E; the semicolon cannot be here any more.
    let is_value = value.bytes().all(|byte| byte.is_ascii_graphic());
    (is_label(tag) && is_value).then(|| (tag.to_ascii_lowercase(), value.to_owned()))
}

fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !text.is_empty() && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_rfc_shows_is_read() {
        let value = IssueValue::parse(
            b" CA1.example.net ; accounturi=https://a.example/acct/1 ;validationmethods = dns-01,http-01;",
        )
        .unwrap();
        assert_eq!(value.issuer, "ca1.example.net");
        let uris: Vec<&str> = value.all("accounturi").collect();
        assert_eq!(uris, ["https://a.example/acct/1"]);
        let methods: Vec<&str> = value.all("validationmethods").collect();
        assert_eq!(methods, ["dns-01,http-01"]);
        for nobody in ["", ";", " ; ", "; policy=ev"] {
            assert_eq!(IssueValue::parse(nobody.as_bytes()).unwrap().issuer, "");
        }
    }

    #[test]
    fn what_is_malformed_is_nobodys() {
        for text in [
            "%%%%%",
            "ca..example",
            "-ca.example",
            "ca.example; account",
            "ca.example; =x",
            "ca.example; a=b;;",
            "ca.example; a=b c",
            "ca example",
            "ca.example; a=\u{e9}",
        ] {
            assert_eq!(IssueValue::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(IssueValue::parse(b"ca.example\xff"), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_refused_or_read(octets in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(value) = IssueValue::parse(&octets) {
                prop_assert!(value.issuer.is_ascii());
                prop_assert!(value.parameters.iter().all(|(tag, _)| is_label(tag)));
            }
        }
    }
}
