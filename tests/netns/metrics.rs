//! What metrics say of windows that real peers come to, and of a table that somebody takes away.

use crate::lab::{Daemon, inside, nft, wait_for};
use crate::records::{ANSWER, NAME, SOON, TOKEN, host_asked_from, question};

/// The value of a series, written as it stands in the text.
#[track_caller]
fn value(daemon: &Daemon, series: &str) -> f64 {
    let text = daemon.cli(&["metrics"]).success().stdout;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("no {series}:\n{text}"));
    value.parse().expect("a number")
}

#[track_caller]
fn becomes(daemon: &Daemon, series: &str, expected: f64) {
    wait_for(SOON, series, || {
        (value(daemon, series) == expected).then_some(())
    });
}

#[test]
fn windows_networks_and_answers_are_counted() {
    const THREE: [&str; 3] = ["198.51.100.7", "203.0.113.7", "3fff:1::7"];
    inside(|| {
        let host = host_asked_from(&THREE);
        let daemon = Daemon::start("[[site]]\ndefault = true\n");
        let open = "acmegate_window_open{family=\"ipv6\",port=\"80\"}";
        assert_eq!(value(&daemon, open), 0.0);
        assert_eq!(value(&daemon, "acmegate_firewall_installed"), 1.0);
        daemon.cli(&["open", "--lease", "a"]).success();
        assert_eq!(value(&daemon, open), 1.0);
        daemon.cli(&["answer", "add", NAME, ANSWER]).success();
        for from in &THREE {
            assert_eq!(host.outside(move || question(from, TOKEN).ask()), Some(200));
        }
        daemon.cli(&["close", "--lease", "a"]).success();
        assert_eq!(value(&daemon, open), 0.0);
        let ended = "acmegate_windows_ended_total{ended_by=\"close\",outcome=\"answered\"}";
        becomes(&daemon, ended, 1.0);
        for (series, expected) in [
            ("acmegate_windows_opened_total{why=\"asked\"}", 1.0),
            ("acmegate_networks_answered_total", 3.0),
            ("acmegate_networks_dropped_total", 0.0),
            ("acmegate_window_networks_sum", 3.0),
            (
                "acmegate_answer_duration_seconds_count{challenge=\"http-01\"}",
                3.0,
            ),
        ] {
            assert_eq!(value(&daemon, series), expected, "{series}");
        }
        // One more is cut by its deadline, with nobody there.
        daemon
            .cli(&["open", "--lease", "b", "--for", "1s"])
            .success();
        let cut = "acmegate_windows_ended_total{ended_by=\"deadline\",outcome=\"quiet\"}";
        becomes(&daemon, cut, 1.0);
        assert_eq!(value(&daemon, ended), 1.0, "and is counted once");
    });
}

#[test]
fn a_table_that_is_taken_away_is_counted() {
    inside(|| {
        let daemon = Daemon::start("[firewall]\nowner = \"never\"\nports = [80]\n");
        assert_eq!(value(&daemon, "acmegate_firewall_reassertions_total"), 0.0);
        nft("delete table inet acmegate");
        becomes(&daemon, "acmegate_firewall_reassertions_total", 1.0);
        becomes(&daemon, "acmegate_firewall_installed", 1.0);
    });
}
