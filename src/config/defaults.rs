//! What counts where the file says nothing, and why.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{
    Allow, Closed, Config, Daemon, Dns, Egress, Firewall, Format, Http, Level, Log, Metrics, Mode,
    Named, Notify, Proxy, Refusal, Report, Shut, Site, Source, Tls, When, Window,
};
use crate::gate::RedirectFor;
use crate::gate::challenge::ChallengeType;
use crate::gate::early;
use crate::gate::site::{self as gate_site, Redirect};
use crate::gate::usage::{Allowance, TimeLimits};
use crate::gate::window::Budget;

impl Default for Daemon {
    fn default() -> Self {
        Self {
            user: "acmegate".to_owned(),
            state_dir: PathBuf::from("/var/lib/acmegate"),
            // Debian 12's kernel knows half of landlock, and there are containers that have none of it.
            require_seals: false,
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            // One socket for both families, where the CA's validators come from either.
            listen: vec![SocketAddr::from(([0u16; 8], 80))],
            divert: None,
            redirect_status: 301,
            redirect_for: RedirectFor::default(),
            // A validation's head is one packet; Let's Encrypt gives up after 10 s itself.
            head_timeout: Duration::from_secs(10),
            max_connections: 4096,
            max_connections_per_source: 256,
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            divert: None,
            server: None,
            // What a port-scan learns is that something listens, and that it does at a closed port too.
            refuse: Refusal::Close,
            hello_timeout: Duration::from_secs(10),
            // Web sockets and event streams are silent for minutes; servers close sooner themselves.
            idle_timeout: Duration::from_secs(600),
            max_connections: 4096,
            max_connections_per_source: 256,
        }
    }
}

impl Default for Window {
    fn default() -> Self {
        Self {
            max: Duration::from_secs(600),
            early: early::Rule::default(),
        }
    }
}

impl Default for Firewall {
    fn default() -> Self {
        Self {
            mode: Mode::Guard,
            ports: vec![80],
            mark: 0x0800_0000,
            closed: Closed {
                v4: Shut::Drop,
                v6: Shut::Drop,
            },
            owned: true,
            egress: Egress::Auto,
            commands: None,
        }
    }
}

impl Default for Allow {
    fn default() -> Self {
        Self {
            local: true,
            listed: Named::default(),
            taken_off: Named::default(),
            country_source: Vec::new(),
            unused_groups: Vec::new(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: Format::Text,
            level: Level::Info,
        }
    }
}

impl Default for Report {
    fn default() -> Self {
        Self {
            history: true,
            // A certificate's life: what failed at the last renewal can be laid beside this one's.
            keep: Duration::from_secs(90 * 24 * 3600),
            // Six thousand windows of a dozen visitors each.
            max_bytes: 64 * 1024 * 1024,
            databases: Vec::new(),
            // Which of six perspectives was dropped nobody else can tell; what it costs is in
            // docs/performance.md.
            evidence: true,
        }
    }
}

impl Default for Notify {
    fn default() -> Self {
        Self {
            notifier: None,
            webhook: None,
            // What an operator has to look at; a window that went well is in the history.
            when: When {
                failed: true,
                dropped: true,
                cut: true,
                always: false,
            },
        }
    }
}

impl Site {
    /// What stands when the file has no `[[site]]`: every identifier is answered with pushed tokens
    /// and from `state_dir`/webroot, and nobody is redirected.
    pub fn built_in(state_dir: &Path) -> Self {
        Self {
            gate: gate_site::Site {
                identifiers: Vec::new(),
                is_default: true,
                redirect: Redirect::Asked,
                accounts: Vec::new(),
            },
            source: Source::Webroot(state_dir.join("webroot")),
            tls_source: None,
            server: None,
            challenges: vec![ChallengeType::Http01],
        }
    }
}

impl Default for Config {
    /// What works without a file.
    fn default() -> Self {
        let daemon = Daemon::default();
        Self {
            source: None,
            http: Http::default(),
            tls: Tls::default(),
            window: Window::default(),
            // A host with a dozen certificates renews each every 60 days; a hundred openings an
            // hour is a first setup with retries, or a runaway hook.
            budget: Budget {
                per_hour: 120,
                per_caller: 60,
                reserve: 20,
                time: TimeLimits {
                    // Three hundred renewals a day of more than a minute each, one after the other,
                    // are a large edge host; a hook that runs wild has its port open all day.
                    total: Allowance {
                        day: Some(Duration::from_secs(8 * 3600)),
                        month: Some(Duration::from_secs(5 * 24 * 3600)),
                    },
                    // On a host with one client, one name has everything: only its operator knows
                    // whose share should be smaller than the whole.
                    lease: Allowance::default(),
                    identifier: Allowance::default(),
                },
            },
            // Let's Encrypt allows five failed validations of an identifier, account and hour
            // (<https://letsencrypt.org/docs/rate-limits/>, 2025-06): the fifth is left for whoever
            // has mended something and insists.
            failures_per_hour: Some(4),
            firewall: Firewall::default(),
            allow: Allow::default(),
            proxy: Proxy::default(),
            metrics: Metrics::default(),
            log: Log::default(),
            report: Report::default(),
            notify: Notify::default(),
            dns: Dns::default(),
            grants: Vec::new(),
            sites: vec![Site::built_in(&daemon.state_dir)],
            daemon,
        }
    }
}
