//! Who is asked, as it is written on the command line.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::ssh;
use super::web::Url;
use crate::gate::allow_list::AllowList;

/// A vantage point, or a service that has several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A host by ssh: whatever ssh(1) takes for a destination.
    Ssh(String),
    /// A service that speaks the Open MPIC API.
    Mpic(Url),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("ssh", destination)) if ssh::is_destination(destination) => {
                Ok(Self::Ssh(destination.to_owned()))
            }
            Some(("ssh", _)) => Err(
                "this is no destination of ssh: a host, user@host or ssh://user@host:port, or a Host of ssh_config(5)"
                    .to_owned(),
            ),
            Some(("mpic", url)) => Url::parse(url).map(Self::Mpic),
            _ => Err("write ssh:DESTINATION or mpic:URL".to_owned()),
        }
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ssh(destination) => write!(f, "ssh:{destination}"),
            Self::Mpic(url) => write!(f, "mpic:{url}"),
        }
    }
}

/// Why what comes from this address says nothing about the world, if so.
pub fn proves_nothing(address: IpAddr, allow: &AllowList) -> Option<String> {
    let address = address.to_canonical();
    if AllowList::new(AllowList::local()).contains(address) {
        return Some(format!("{address} is of a private network, where no CA is"));
    }
    allow.contains(address).then(|| {
        format!("{address} is on the allow-list, and gets in with the window shut as well")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_is_one_of_two_kinds() {
        let read = |text: &str| From::from_str(text).map(|from| from.to_string());
        for good in [
            "ssh:me@host",
            "ssh:ssh://me@host:2222",
            "mpic:https://mpic.example.com/v2",
            "mpic:http://127.0.0.1:8000",
        ] {
            assert_eq!(read(good).as_deref(), Ok(good));
        }
        for bad in [
            "host",
            "ssh:",
            "ssh:-oProxyCommand=id",
            "ssh:a b",
            "mpic:http://mpic.example.com",
            "mpic:",
            "ftp:x",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn whoever_gets_in_anyway_proves_nothing() {
        let allow = AllowList::new(["198.51.100.0/24".parse().unwrap()]);
        let why = |address: &str| proves_nothing(address.parse().unwrap(), &allow);
        assert!(why("198.51.100.7").unwrap().contains("allow-list"));
        assert!(why("10.1.2.3").unwrap().contains("private"));
        assert!(why("fd00::1").unwrap().contains("private"));
        assert!(why("::1").is_some());
        assert_eq!(why("203.0.113.7"), None);
        assert_eq!(why("2001:db8::7"), None);
    }
}
