//! Signals that end a command which has something to put back before.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Those that somebody sends to end it.
#[derive(Debug)]
pub struct Signals([(Signal, u8); 3]);

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system's.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self([
            (signal(SignalKind::terminate())?, 128 + 15),
            (signal(SignalKind::hangup())?, 128 + 1),
            (signal(SignalKind::interrupt())?, 128 + 2),
        ]))
    }

    /// What a shell says of whoever was ended by the one that came.
    pub async fn next(&mut self) -> u8 {
        let [(terminate, first), (hang_up, second), (interrupt, third)] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => *first,
            _ = hang_up.recv() => *second,
            _ = interrupt.recv() => *third,
        }
    }
}
