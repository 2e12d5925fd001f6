//! `[report]`: what is known of a window afterwards.

use super::Report;
use super::file::{self, Section};

/// Checks `[report]`.
pub(super) fn report(section: &Section<file::Report>) -> Report {
    let default = Report::default();
    let evidence = section.keys.evidence.as_ref();
    Report {
        evidence: evidence.map_or(default.evidence, |evidence| *evidence.get_ref()),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Unchecked};
    use crate::daemon::parts::AnyAccount;

    fn parse(text: &str) -> Result<Config, String> {
        let parsed = Config::parse(text, "test", &AnyAccount, &Unchecked);
        parsed.map_err(|error| error.to_string())
    }

    #[test]
    fn evidence_is_kept_unless_that_is_turned_off() {
        assert!(parse("").unwrap().report.evidence);
        assert!(parse("[report]\n").unwrap().report.evidence);
        assert!(!parse("[report]\nevidence = false").unwrap().report.evidence);
    }

    #[test]
    fn what_is_neither_true_nor_false_is_refused_where_it_stands() {
        let refused = parse("[report]\nevidence = \"no\"").unwrap_err();
        assert!(refused.contains("test:2:12"), "{refused}");
    }
}
