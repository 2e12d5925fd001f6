//! Tells the service manager how the daemon stands (sd_notify(3)). Without one it is silent.

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// How many signs of life come in the time after which the service manager gives us up: one may be lost,
/// another late.
const SIGNS: u32 = 3;

/// A connected socket, opened before the process is sealed, or none.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    /// How often a sign of life is wanted, if any is.
    alive_every: Option<Duration>,
}

impl Notify {
    /// Connects to `$NOTIFY_SOCKET`, a path or `@` and an abstract name, and reads what
    /// sd_watchdog_enabled(3) reads.
    pub fn from_env() -> Self {
        let connect = || {
            let name = env::var("NOTIFY_SOCKET").ok()?;
            let address = match name.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name).ok()?,
                None => SocketAddr::from_pathname(&name).ok()?,
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.connect_addr(&address).ok()?;
            socket.set_nonblocking(true).ok()?;
            Some(socket)
        };
        Self {
            socket: connect(),
            alive_every: patience().map(|patience| patience / SIGNS),
        }
    }

    /// Ready to serve, and a line for `systemctl status`.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// Another line for `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={status}"));
    }

    /// A reload begins; [`Notify::ready`] ends it.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The end begins.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining");
    }

    fn send(&self, state: &str) {
        if let Some(socket) = &self.socket {
            // A manager that does not listen is no reason to stop serving.
            let _ = socket.send(state.as_bytes());
        }
    }
}

/// Says again and again that this process lives, for as long as its runtime still runs tasks. Ends at
/// once where nobody wants to hear it.
///
/// That an enforcer hangs is not seen here but by whoever asks it something: it has a deadline.
pub async fn keep_alive(notify: Arc<Notify>) {
    let Some(every) = notify.alive_every else {
        return;
    };
    let mut tick = tokio::time::interval(every);
    loop {
        tick.tick().await;
        notify.send("WATCHDOG=1");
    }
}

/// How long the service manager waits for a sign of life of this process, if it does.
fn patience() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    // Without a pid it is whoever reads it.
    let is_ours = env::var_os("WATCHDOG_PID").is_none()
        || number("WATCHDOG_PID") == Some(u64::from(std::process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && is_ours)?;
    // tokio has no interval of nothing.
    Some(Duration::from_micros(micros).max(Duration::from_millis(1) * SIGNS))
}
