//! Sites: which identifiers stand together, who answers for them, and where visitors are sent.

use super::identifier::{Identifier, Pattern};
use super::token::Thumbprint;

/// A site's place in the configuration: the first `[[site]]` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SiteId(pub usize);

/// One `[[site]]`, as far as the gate needs it.
#[derive(Clone, Debug)]
pub struct Site {
    /// What the site covers. Empty for the default site.
    pub identifiers: Vec<Pattern>,
    /// Whether this site stands for every identifier that no other site has.
    pub is_default: bool,
    /// Where everything that is no challenge is sent.
    pub redirect: Redirect,
    /// The ACME accounts whose answers pass; empty lets every account pass.
    pub accounts: Vec<Thumbprint>,
}

/// Where a site sends visitors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// To the name that was asked. Never for the default site, which would make it an open redirect.
    Asked,
    /// To this identifier, whatever was asked.
    To(Identifier),
    /// Nowhere: 404.
    Off,
}

impl Site {
    /// How closely the site covers `identifier`: an exact entry beats a wildcard beats the default.
    fn closeness(&self, identifier: &Identifier) -> Option<u8> {
        let own = self.identifiers.iter().filter_map(|pattern| match pattern {
            Pattern::Exact(_) if pattern.covers(identifier) => Some(2),
            Pattern::Wildcard(_) if pattern.covers(identifier) => Some(1),
            _ => None,
        });
        own.max().or(self.is_default.then_some(0))
    }
}

/// The site that answers for `identifier`, if any does.
pub fn site_for<'sites>(
    sites: &'sites [Site],
    identifier: &Identifier,
) -> Option<(SiteId, &'sites Site)> {
    sites
        .iter()
        .enumerate()
        .filter_map(|(at, site)| Some((site.closeness(identifier)?, at, site)))
        .max_by_key(|(closeness, at, _)| (*closeness, usize::MAX - at))
        .map(|(_, at, site)| (SiteId(at), site))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(identifiers: &[&str], is_default: bool) -> Site {
        Site {
            identifiers: identifiers
                .iter()
                .map(|text| Pattern::parse(text).unwrap())
                .collect(),
            is_default,
            redirect: Redirect::Off,
            accounts: Vec::new(),
        }
    }

    #[test]
    fn an_exact_entry_beats_a_wildcard_beats_the_default() {
        let sites = [
            site(&[], true),
            site(&["*.example.com"], false),
            site(&["www.example.com", "203.0.113.7"], false),
        ];
        let chosen = |name| site_for(&sites, &Identifier::parse(name).unwrap()).map(|(id, _)| id.0);
        assert_eq!(chosen("www.example.com"), Some(2));
        assert_eq!(chosen("mail.example.com"), Some(1));
        assert_eq!(chosen("example.com"), Some(0));
        assert_eq!(chosen("203.0.113.7"), Some(2));
        assert_eq!(
            site_for(&sites[1..], &Identifier::parse("example.com").unwrap()).map(|(id, _)| id.0),
            None
        );
    }
}
