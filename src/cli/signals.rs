//! Signals that end a command which has something to put back before.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Came {
    /// What it is called.
    pub name: &'static str,
    /// What a shell says of whoever was ended by it: 128 and its number.
    pub code: u8,
}

/// Those that somebody sends to end it.
#[derive(Debug)]
pub struct Signals([(Signal, Came); 3]);

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system's.
    pub fn listen() -> std::io::Result<Self> {
        let came = |name, number: u8| Came {
            name,
            code: 128 + number,
        };
        Ok(Self([
            (signal(SignalKind::terminate())?, came("SIGTERM", 15)),
            (signal(SignalKind::hangup())?, came("SIGHUP", 1)),
            (signal(SignalKind::interrupt())?, came("SIGINT", 2)),
        ]))
    }

    /// The next one.
    pub async fn next(&mut self) -> Came {
        let [(terminate, first), (hang_up, second), (interrupt, third)] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => *first,
            _ = hang_up.recv() => *second,
            _ = interrupt.recv() => *third,
        }
    }
}
