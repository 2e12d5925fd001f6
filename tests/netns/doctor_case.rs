//! What the doctor's exams are given in tests: a real daemon's configuration and sockets.

use std::path::PathBuf;

use acmegate::config::lists::Lists;
use acmegate::config::{Config, Unchecked};
use acmegate::daemon::privilege::HostAccounts;
use acmegate::doctor::case::Case;
use acmegate::gate::identifier::{Identifier, Pattern};

use crate::lab::Daemon;

/// The case of a daemon as its configuration file is now; without names, those of its sites.
pub fn case(daemon: &Daemon, names: &[&str]) -> Case {
    let path = PathBuf::from(daemon.config());
    let config =
        Config::load_with(Some(&path), &HostAccounts, &Unchecked).expect("a good configuration");
    let lists = Lists::read(&config.allow).expect("good lists");
    let patterns = config.sites.iter().flat_map(|site| &site.gate.identifiers);
    let own = patterns.filter_map(|pattern| match pattern {
        Pattern::Exact(name) => Some(name.clone()),
        Pattern::Wildcard(_) => None,
    });
    let names = match names {
        [] => own.collect(),
        names => names
            .iter()
            .map(|name| Identifier::parse(name).expect("an identifier"))
            .collect(),
    };
    Case {
        allow: lists.list(),
        config,
        runtime_dir: PathBuf::from(daemon.runtime_dir()),
        names,
        is_root: true,
    }
}

/// Runs an exam to its end.
pub fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    done
}
