//! What vantage points saw, as data: for the verdict, for people, and as JSON.

use std::net::IpAddr;

use serde::Serialize;

use crate::doctor::path::Fate;
use crate::observe::record::Region;

/// Over which family something was fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv6: CAs try it first.
    Ipv6,
    /// IPv4.
    Ipv4,
    /// Whichever the vantage point chose.
    Any,
}

impl Family {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
            Self::Any => "any family",
        }
    }
}

/// What came of fetching a token once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Something answered.
    Answered {
        /// The HTTP status.
        status: u16,
        /// Whether the octets are those of the key authorization.
        matches: bool,
    },
    /// A connection came about, and no whole answer. In the words of the program that asked.
    Broken(String),
    /// No connection came about. In the words of the program that asked.
    Silent(String),
}

impl Outcome {
    /// Whether a CA's perspective would be content.
    pub fn is_good(&self) -> bool {
        matches!(
            self,
            Self::Answered {
                status: 200,
                matches: true
            }
        )
    }
}

/// Fetching a token over one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fetch {
    /// Over which family.
    pub family: Family,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took as seen from here, in milliseconds.
    #[serde(rename = "took_milliseconds")]
    pub took: Option<u64>,
}

/// What a name server answered a vantage point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NameServer {
    /// Its name, as the vantage point's resolver has it.
    pub name: String,
    /// The address that was asked.
    pub address: String,
    /// `udp` or `tcp`.
    pub transport: &'static str,
    /// The answer's status (`NOERROR`, `REFUSED` …), `connected` where only that could be tried; `null` where
    /// nothing came back.
    pub answer: Option<String>,
}

/// What CAA says (RFC 8659).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Caa {
    /// The CA may issue.
    Permits,
    /// It may not, or the lookup failed, which is the same; and why.
    Forbids(String),
}

/// What the gate answered to this host itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Here {
    /// For which name.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// A name as one vantage point sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct View {
    /// Which name.
    pub name: String,
    /// What the vantage point resolves it to.
    pub resolves_to: Vec<IpAddr>,
    /// What came of fetching its token, IPv6 first.
    pub fetches: Vec<Fetch>,
    /// From which addresses the token was asked for, as the gate saw them.
    pub came_from: Vec<IpAddr>,
    /// What a lookup of CAA from there comes to, where that was asked.
    pub caa: Option<Caa>,
    /// What the zone's servers answered.
    pub name_servers: Vec<NameServer>,
}

impl View {
    /// Whether a validation from there succeeds: IPv6 first, and IPv4 only where no connection came about
    /// over IPv6, as Let's Encrypt does it.
    pub fn is_good(&self) -> bool {
        let mut fetches = self.fetches.iter();
        let first = fetches.next();
        match first.map(|fetch| &fetch.outcome) {
            None => false,
            Some(Outcome::Silent(_)) => fetches.next().is_some_and(|next| next.outcome.is_good()),
            Some(outcome) => outcome.is_good(),
        }
    }

    /// Over which families no connection came about although the name has such an address.
    pub fn silent(&self) -> Vec<Family> {
        let silent = |fetch: &&Fetch| matches!(fetch.outcome, Outcome::Silent(_));
        let silent = self.fetches.iter().filter(silent);
        silent.map(|fetch| fetch.family).collect()
    }
}

/// What somebody's packet met on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Path {
    /// Whose packet.
    pub source: IpAddr,
    /// For which address of this host.
    pub destination: IpAddr,
    /// Its way.
    pub fate: Fate,
}

/// One vantage point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Vantage {
    /// As it was given: `ssh:DEST`, or `mpic:URL` with the code of the perspective.
    pub from: String,
    /// Its addresses, as far as they are known.
    pub addresses: Vec<IpAddr>,
    /// The regions of these, where databases tell.
    pub regions: Vec<Region>,
    /// Why what it sees proves nothing, such as that the allow-list has its address; `null` if it proves
    /// something.
    pub proves_nothing: Option<String>,
    /// Why it could not be asked; `null` if it was.
    pub not_asked: Option<String>,
    /// Which programs it has; for people.
    pub tools: Option<String>,
    /// Every name, as it sees it.
    pub views: Vec<View>,
    /// What its packets met in the rules of this host.
    pub paths: Vec<Path>,
}

impl Vantage {
    /// Whether it counts for the quorum.
    pub fn counts(&self) -> bool {
        self.not_asked.is_none() && self.proves_nothing.is_none()
    }
}

/// A service with perspectives of its own, as far as it can be told only of all of them together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Service {
    /// As it was given: `mpic:URL`.
    pub from: String,
    /// From which addresses its tokens were asked for, as the gate saw them.
    pub came_from: Vec<IpAddr>,
    /// What their packets met in the rules of this host.
    pub paths: Vec<Path>,
    /// For which names the service itself says that the validation fails.
    pub refused: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(outcomes: &[Outcome]) -> View {
        let families = [Family::Ipv6, Family::Ipv4];
        let fetches = outcomes
            .iter()
            .zip(families)
            .map(|(outcome, family)| Fetch {
                family,
                outcome: outcome.clone(),
                took: None,
            });
        View {
            fetches: fetches.collect(),
            ..View::default()
        }
    }

    #[test]
    fn ipv4_is_tried_only_where_ipv6_is_silent() {
        let good = Outcome::Answered {
            status: 200,
            matches: true,
        };
        let other = Outcome::Answered {
            status: 200,
            matches: false,
        };
        let missing = Outcome::Answered {
            status: 404,
            matches: false,
        };
        let silent = Outcome::Silent("timeout".to_owned());
        let broken = Outcome::Broken("reset".to_owned());
        for (outcomes, is_good) in [
            (vec![], false),
            (vec![good.clone()], true),
            (vec![silent.clone()], false),
            (vec![silent.clone(), good.clone()], true),
            (vec![missing.clone(), good.clone()], false),
            (vec![other, good.clone()], false),
            (vec![broken, good.clone()], false),
            (vec![good, silent], true),
        ] {
            assert_eq!(view(&outcomes).is_good(), is_good, "{outcomes:?}");
        }
    }
}
