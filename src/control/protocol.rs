//! What a caller and the daemon say to each other: one JSON object a line, each way, once. Only
//! whoever arms a lease stays, says nothing more, and may be told more lines.
//!
//! Every message carries the version of this page. What is longer than [`MAX_REQUEST_BYTES`], has
//! an unknown key or comes too slowly is refused; nothing in a message is believed about who sends
//! it, that is the kernel's word alone.

use std::fmt;
use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::gate::challenge::ChallengeType;
use crate::gate::lease::LeaseName;

/// The version of this protocol. A message of another one is refused with a plain word.
pub const VERSION: u32 = 1;
/// The longest request, line end included: room for a hundred identifiers and to spare.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// The longest response: a status with many sites.
pub const MAX_RESPONSE_BYTES: u64 = 8 * 1024 * 1024;
/// What `exec` names the lease by that it armed for a command and all that the command starts.
pub const LEASE_VARIABLE: &str = "ACMEGATE_LEASE";
/// The socket that obeys, in the runtime directory.
pub const CONTROL_SOCKET: &str = "control.sock";
/// The last line of the metrics, a comment to every reader of their format: what ends without it was
/// cut off.
pub const END_OF_METRICS: &str = "# EOF\n";
/// The socket that tells and never listens, beside it.
pub const OBSERVE_SOCKET: &str = "observe.sock";
/// Where both stand by default. Not /tmp: certbot's unit has a private one.
pub const RUNTIME_DIR: &str = "/run/acmegate";

/// One request with its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// [`VERSION`].
    pub version: u32,
    /// What is asked.
    pub ask: Ask,
    /// The lease that `exec` armed for the caller, as the caller has it from its environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<String>,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Ask {
    /// Acquire or renew a lease.
    Open(Open),
    /// Arm a lease: nothing opens yet, and it ends with this connection. The answer to it is one
    /// line; one with another code than 0 follows if what was asked for the lease later failed, and
    /// one with code 0 if its time was over first.
    Arm(Open),
    /// Release a lease.
    Close {
        /// Its name.
        lease: String,
        /// What the ACME client says of its certificates, where it says anything.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        said: Option<SaidWord>,
    },
    /// Tell what windows let in. The records come as [`Response::report`].
    Report(ReportWord),
    /// Tell it as it happens: the caller stays, and each line has all windows of the moment.
    Watch,
    /// Push an answer: a key authorization, or what of it a client tells.
    AnswerAdd {
        /// Which challenge it answers.
        #[serde(default, skip_serializing_if = "ChallengeName::is_http_01")]
        challenge: ChallengeName,
        /// Which identifier it is for.
        identifier: String,
        /// Token, full stop, thumbprint.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key_authorization: Option<String>,
        /// Instead, for tls-alpn-01.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<DigestWord>,
        /// For how long, in milliseconds; the daemon's default if absent.
        milliseconds: Option<u64>,
    },
    /// Withdraw a pushed answer.
    AnswerRemove {
        /// Which challenge it answers.
        #[serde(default, skip_serializing_if = "ChallengeName::is_http_01")]
        challenge: ChallengeName,
        /// Which identifier it is for.
        identifier: String,
        /// Its token.
        token: String,
    },
    /// Put our part of the ruleset in place.
    FirewallApply,
    /// Take it away; every lease ends.
    FirewallRemove,
}

/// A lease, as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// Its name.
    pub lease: String,
    /// For how long, in milliseconds; `[window] max` if absent.
    pub milliseconds: Option<u64>,
    /// Which ports. If neither ports nor challenges are named, those of the sites' `challenges` that
    /// `[firewall] ports` has, else all of those.
    pub ports: Vec<u16>,
    /// The ports of which challenges, besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub challenges: Vec<ChallengeName>,
    /// Which challenge it is for where neither is named, whatever the sites' `challenges` say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validates: Option<ChallengeName>,
    /// Which families; both if absent.
    pub family: Option<FamilyName>,
    /// Only this address of the host; every one if absent.
    #[serde(default)]
    pub address: Option<IpAddr>,
    /// Only this interface; every one if absent.
    #[serde(default)]
    pub interface: Option<String>,
    /// Which identifiers are validated; all if absent.
    pub identifiers: Option<Vec<String>>,
    /// For which process.
    pub holder: Option<HolderWord>,
    /// Say what would be done, and do nothing.
    pub dry_run: bool,
    /// Open although windows for the same failed too often in the last hour.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Open {
    /// Every port that is named, by its number or by its challenge.
    pub fn named_ports(&self) -> Vec<u16> {
        let mut ports = self.ports.clone();
        for port in self.challenges.iter().map(|name| name.to_type().port()) {
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
        ports
    }
}

/// A challenge type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChallengeName {
    /// What callers mean that know of no other.
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// By a handshake.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

impl ChallengeName {
    /// What the gate calls it.
    pub fn to_type(self) -> ChallengeType {
        match self {
            Self::Http01 => ChallengeType::Http01,
            Self::TlsAlpn01 => ChallengeType::TlsAlpn01,
        }
    }

    fn is_http_01(&self) -> bool {
        *self == Self::Http01
    }
}

/// What an ACME client says at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaidWord {
    /// Identifiers of certificates that it renewed.
    pub renewed: Vec<String>,
    /// Identifiers of certificates that it could not renew.
    pub failed: Vec<String>,
}

/// Which windows are meant; without any word the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportWord {
    /// The one of this number.
    #[serde(default)]
    pub number: Option<u64>,
    /// The last one of this lease.
    #[serde(default)]
    pub lease: Option<String>,
    /// All that were opened in the last so many milliseconds, the first one first.
    #[serde(default)]
    pub since: Option<u64>,
}

/// A key authorization of which only this is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DigestWord {
    /// Its token.
    pub token: String,
    /// Its SHA-256 digest, in base64url without padding.
    pub sha256: String,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FamilyName {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// A process, by what no other process has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HolderWord {
    /// Its process id, as the caller sees it.
    pub pid: u32,
    /// Its start in clock ticks after boot.
    pub start_ticks: u64,
    /// Its command name.
    pub command: String,
    /// The caller's own process id, as it sees it: if the kernel says another one, caller and
    /// daemon live in different process namespaces, and `pid` means nothing here.
    pub caller_pid: u32,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// [`VERSION`].
    pub version: u32,
    /// 0, or the exit code that the caller should end with.
    pub code: u8,
    /// One line for a person.
    pub message: String,
    /// What else is to be said of it, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<String>,
    /// More lines for a person, if something is worth knowing.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The ports whose window is meant, where there is one.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// The ports on which the gate itself listens.
    #[serde(default)]
    pub gate_ports: Vec<u16>,
    /// The kernel's generation of the ruleset that was surveyed for a window, as it was when it was read:
    /// the same number again means that nobody but acmegate has changed anything since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub surveyed: Option<u32>,
    /// The records that were asked for, in the schema of docs/report.md: opaque to this protocol.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub report: Vec<Opaque>,
    /// Whether the command that the lease was armed for is being ended because of this refusal.
    #[serde(default)]
    pub ends_client: bool,
    /// The lease that this answer is about and that nobody had heard of before. Not sent.
    #[serde(skip)]
    pub acquired: Option<Box<Acquired>>,
}

/// A lease, and which opening of it an answer is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acquired {
    /// Its name.
    pub lease: LeaseName,
    /// The opening's number, which no other has while the daemon lives.
    pub opening: u64,
}

/// sysexits(3), as far as they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It is done.
    Ok = 0,
    /// The command line is wrong.
    Usage = 64,
    /// The input is wrong.
    Data = 65,
    /// The daemon does not run, or what is needed is not there.
    Unavailable = 69,
    /// We are at fault.
    Software = 70,
    /// The system refused.
    Os = 71,
    /// Later it may work.
    TempFail = 75,
    /// The caller may not.
    NoPerm = 77,
    /// The configuration, ours or the firewall's, must change first.
    Config = 78,
}

impl Exit {
    /// What a daemon's code means; one that this page does not have is the daemon's fault.
    pub fn from_code(code: u8) -> Self {
        let all = [
            Self::Ok,
            Self::Usage,
            Self::Data,
            Self::Unavailable,
            Self::Os,
            Self::TempFail,
            Self::NoPerm,
            Self::Config,
        ];
        let known = all.into_iter().find(|exit| *exit as u8 == code);
        known.unwrap_or(Self::Software)
    }
}

/// JSON that is carried as it was written. A tree of it in memory takes ten times as much, and the daemon
/// carries reports of some megabytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Opaque(Box<RawValue>);

impl Opaque {
    /// Writes it.
    ///
    /// # Errors
    /// What JSON has no word for.
    pub fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        to_raw_value(value).map(Self)
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is JSON, but not of this kind.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.get())
    }

    /// How long it is, in octets.
    pub fn bytes(&self) -> usize {
        self.0.get().len()
    }
}

impl PartialEq for Opaque {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for Opaque {}

impl Response {
    /// A success.
    pub fn done(message: impl Into<String>) -> Self {
        Self::refused(Exit::Ok, message)
    }

    /// An end with `exit`, and why.
    pub fn refused(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            version: VERSION,
            code: exit as u8,
            message: message.into(),
            more: Vec::new(),
            warnings: Vec::new(),
            ports: Vec::new(),
            gate_ports: Vec::new(),
            surveyed: None,
            report: Vec::new(),
            ends_client: false,
            acquired: None,
        }
    }
}

/// Why bytes are no request.
#[derive(Debug)]
pub enum RequestError {
    /// Not one JSON object of this page.
    Malformed(serde_json::Error),
    /// Of another version.
    Version(u32),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "the request cannot be read: {error}"),
            Self::Version(version) => write!(
                f,
                "the caller speaks version {version} and the daemon {VERSION}: restart acmegate after an upgrade"
            ),
        }
    }
}

/// Reads one request.
///
/// # Errors
/// [`RequestError`]; the caller's fault.
pub fn parse_request(line: &[u8]) -> Result<Envelope, RequestError> {
    #[derive(Deserialize)]
    struct OnlyVersion {
        version: u32,
    }
    // The version first: what another version adds must not look like a mistake.
    let only: OnlyVersion = serde_json::from_slice(line).map_err(RequestError::Malformed)?;
    if only.version != VERSION {
        return Err(RequestError::Version(only.version));
    }
    serde_json::from_slice(line).map_err(RequestError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_carried_as_it_was_written() {
        let written = r#"{"b":1.50, "a" : [ ]}"#;
        let answer = format!(r#"{{"version":1,"code":0,"message":"","report":[{written}]}}"#);
        let response: Response = serde_json::from_str(&answer).unwrap();
        assert_eq!(response.report[0].bytes(), written.len());
        let again = serde_json::to_string(&response).unwrap();
        assert!(again.contains(written), "{again}");
    }

    #[test]
    fn a_request_reads_back() {
        let open = Open {
            lease: "certbot-812".to_owned(),
            milliseconds: Some(120_000),
            ports: vec![80],
            challenges: vec![ChallengeName::TlsAlpn01],
            validates: Some(ChallengeName::Http01),
            family: Some(FamilyName::Ipv6),
            address: None,
            interface: Some("eth0".to_owned()),
            identifiers: Some(vec!["example.com".to_owned()]),
            holder: Some(HolderWord {
                pid: 812,
                start_ticks: 7,
                command: "certbot".to_owned(),
                caller_pid: 813,
            }),
            dry_run: false,
            force: true,
        };
        for (ask, under) in [
            (Ask::Open(open.clone()), None),
            (Ask::Arm(open), Some("exec-811".to_owned())),
            (
                Ask::AnswerAdd {
                    challenge: ChallengeName::TlsAlpn01,
                    identifier: "example.com".to_owned(),
                    key_authorization: None,
                    digest: Some(DigestWord {
                        token: "token".to_owned(),
                        sha256: "digest".to_owned(),
                    }),
                    milliseconds: None,
                },
                None,
            ),
        ] {
            let envelope = Envelope {
                version: VERSION,
                ask,
                under,
            };
            let line = serde_json::to_vec(&envelope).unwrap();
            assert_eq!(parse_request(&line).unwrap(), envelope);
        }
    }

    #[test]
    fn what_an_older_caller_pushes_answers_http_01_and_reads_the_same() {
        let add = r#"{"version":1,"ask":{"answer-add":{"identifier":"a.test","key_authorization":"a.b","milliseconds":null}}}"#;
        let remove = r#"{"version":1,"ask":{"answer-remove":{"identifier":"a.test","token":"a"}}}"#;
        for line in [add, remove] {
            let envelope = parse_request(line.as_bytes()).unwrap();
            let (Ask::AnswerAdd { challenge, .. } | Ask::AnswerRemove { challenge, .. }) =
                &envelope.ask
            else {
                panic!("{envelope:?}")
            };
            assert_eq!(*challenge, ChallengeName::Http01);
            // An older daemon understands a newer caller that asks no more than it could.
            assert_eq!(serde_json::to_string(&envelope).unwrap(), line);
        }
    }

    #[test]
    fn who_does_not_insist_says_nothing_that_an_older_daemon_would_refuse() {
        let open = serde_json::to_string(&Open::default()).unwrap();
        assert!(!open.contains("force"), "{open}");
        assert!(!serde_json::from_str::<Open>(&open).unwrap().force);
    }

    #[test]
    fn another_version_is_told_apart_from_a_mistake() {
        let later = br#"{"version":2,"ask":{"fly":{}},"more":1}"#;
        assert!(matches!(
            parse_request(later),
            Err(RequestError::Version(2))
        ));
        for wrong in [
            &b"{}"[..],
            b"",
            b"[]",
            br#"{"version":1,"ask":{"fly":{}}}"#,
            br#"{"version":1,"ask":"firewall-apply","x":1}"#,
        ] {
            assert!(matches!(
                parse_request(wrong),
                Err(RequestError::Malformed(_))
            ));
        }
    }
}
