//! Which ports a window opens: those that are named, by number or by challenge, or else those that
//! the sites' challenges come to. No port is opened that no challenge needs.

use super::refused::Refused;
use crate::config::Config;
use crate::control::protocol::{Exit, Open};
use crate::gate::challenge::ChallengeType;
use crate::gate::identifier::Identifier;
use crate::gate::site::site_for;

/// The ports of what is asked, for these identifiers; `None` is all.
///
/// # Errors
/// [`Exit::Config`]: a challenge is named whose port is none that may be opened.
pub(super) fn asked_ports(
    config: &Config,
    open: &Open,
    identifiers: Option<&[Identifier]>,
) -> Result<Vec<u16>, Refused> {
    let guarded = &config.firewall.ports;
    let mut challenges = open.challenges.iter().map(|name| name.to_type());
    if let Some(challenge) = challenges.find(|challenge| !guarded.contains(&challenge.port())) {
        let port = challenge.port();
        let mut more = guarded.clone();
        more.push(port);
        more.sort_unstable();
        return Err(Refused::new(
            Exit::Config,
            format!(
                "{challenge} comes to port {port}, which [firewall] ports does not hold: write ports = {more:?} there"
            ),
        ));
    }
    let named = open.named_ports();
    Ok(match (named.is_empty(), open.validates) {
        (true, None) => ports_of(guarded, &challenges_of(config, identifiers)),
        (true, Some(name)) => ports_of(guarded, &[name.to_type()]),
        (false, _) => named,
    })
}

/// The ports of these challenges, of those that may be opened. Where that is none of them, something
/// in front forwards to other ports, and any may be meant.
fn ports_of(guarded: &[u16], challenges: &[ChallengeType]) -> Vec<u16> {
    let is_theirs = |port: &u16| challenges.iter().any(|one| one.port() == *port);
    let theirs: Vec<u16> = guarded.iter().copied().filter(is_theirs).collect();
    match theirs.is_empty() {
        true => guarded.to_vec(),
        false => theirs,
    }
}

/// How the sites of these identifiers are validated, as far as they have one.
fn challenges_of(config: &Config, identifiers: Option<&[Identifier]>) -> Vec<ChallengeType> {
    let Some(identifiers) = identifiers else {
        let of_all = config.sites.iter().flat_map(|site| &site.challenges);
        return of_all.copied().collect();
    };
    let sites = config.gate_sites();
    let ids = identifiers
        .iter()
        .filter_map(|identifier| site_for(&sites, identifier));
    let own = ids.filter_map(|(id, _)| config.sites.get(id.0));
    let challenges: Vec<_> = own.flat_map(|site| &site.challenges).copied().collect();
    match challenges.is_empty() {
        true => vec![ChallengeType::Http01],
        false => challenges,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Site;
    use crate::control::protocol::ChallengeName;
    use crate::gate::identifier::Pattern;

    fn config(ports: &[u16]) -> Config {
        let mut config = Config::default();
        config.firewall.ports = ports.to_vec();
        let built_in = config.sites.remove(0);
        let site = |name: &str, challenges: &[ChallengeType]| {
            let mut site = Site {
                challenges: challenges.to_vec(),
                ..built_in.clone()
            };
            site.gate.is_default = false;
            site.gate.identifiers = vec![Pattern::parse(name).unwrap()];
            site
        };
        config.sites = vec![
            site("http.test", &[ChallengeType::Http01]),
            site("tls.test", &[ChallengeType::TlsAlpn01]),
        ];
        config
    }

    fn asked(guarded: &[u16], open: &Open, names: &[&str]) -> Result<Vec<u16>, String> {
        let names = names.iter().map(|name| Identifier::parse(name).unwrap());
        let names: Vec<_> = names.collect();
        let names = (!names.is_empty()).then_some(&names[..]);
        asked_ports(&config(guarded), open, names).map_err(|refused| refused.message)
    }

    #[test]
    fn what_is_named_is_opened_and_nothing_else() {
        let open = |ports: &[u16], challenges: &[ChallengeName]| Open {
            ports: ports.to_vec(),
            challenges: challenges.to_vec(),
            ..Open::default()
        };
        let (http, tls) = (ChallengeName::Http01, ChallengeName::TlsAlpn01);
        let both = [80, 443];
        assert_eq!(asked(&both, &open(&[], &[tls]), &[]), Ok(vec![443]));
        assert_eq!(
            asked(&both, &open(&[], &[http, tls]), &["tls.test"]),
            Ok(vec![80, 443])
        );
        assert_eq!(
            asked(&both, &open(&[443], &[tls]), &["http.test"]),
            Ok(vec![443])
        );
        // Whether a port that is named by its number may be opened is the book's to say.
        assert_eq!(asked(&both, &open(&[8080], &[]), &[]), Ok(vec![8080]));
        assert_eq!(
            asked(&[80], &open(&[80], &[tls]), &[]).unwrap_err(),
            "tls-alpn-01 comes to port 443, which [firewall] ports does not hold: write ports = [80, 443] there"
        );
    }

    #[test]
    fn what_is_not_named_is_what_the_sites_challenges_need() {
        let open = Open::default();
        for (guarded, names, expected) in [
            (&[80, 443][..], &[][..], &[80, 443][..]),
            (&[80, 443], &["http.test"], &[80]),
            (&[80, 443], &["tls.test"], &[443]),
            (&[80, 443], &["tls.test", "http.test"], &[80, 443]),
            (&[80, 443], &["nobody.test"], &[80]),
            (&[80], &["tls.test", "http.test"], &[80]),
            (&[80], &[], &[80]),
            (&[8080, 8443], &["tls.test"], &[8080, 8443]),
        ] {
            assert_eq!(asked(guarded, &open, names).unwrap(), expected, "{names:?}");
        }
        let for_http = Open {
            validates: Some(ChallengeName::Http01),
            ..Open::default()
        };
        assert_eq!(asked(&[80, 443], &for_http, &["tls.test"]).unwrap(), [80]);
        assert_eq!(asked(&[8080], &for_http, &["tls.test"]).unwrap(), [8080]);
        let mut plain = config(&[80, 443]);
        plain.sites.pop();
        assert_eq!(asked_ports(&plain, &open, None).unwrap(), [80]);
    }
}
