//! Signals that pass through to the command.
//!
//! What the terminal sends reaches the command by itself: it stands in our process group. What was
//! ignored when we were started stays ignored, so that nohup(1) means the command too. SIGTSTP and
//! SIGCONT are not touched: job control stops and continues us both.

use std::fs;
use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};
use tokio::sync::mpsc;

/// Those that somebody sends on purpose.
const FORWARDED: [Signal; 7] = [
    Signal::TERM,
    Signal::HUP,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
    Signal::INT,
    Signal::QUIT,
];
/// How many may wait; one more of a kind means nothing new.
const QUEUE: usize = 16;

/// What was heard.
#[derive(Clone, Copy, Debug)]
pub enum Heard {
    /// A child ended, stopped or went on.
    ChildChanged,
    /// This one is the command's.
    Forward(Signal),
}

/// Listens for signals.
#[derive(Debug)]
pub struct Signals {
    child: Listener,
    forwarded: mpsc::Receiver<Signal>,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system's.
    pub fn listen() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let ignored = ignored_in(&status);
        let (heard, forwarded) = mpsc::channel(QUEUE);
        for forwarded in FORWARDED {
            let number = forwarded.as_raw();
            if ignored & (1 << (number - 1)) != 0 {
                continue;
            }
            let mut signals = signal(SignalKind::from_raw(number))?;
            let heard = heard.clone();
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    if heard.send(forwarded).await.is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self {
            child: signal(SignalKind::child())?,
            forwarded,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Heard {
        loop {
            let heard = tokio::select! {
                Some(()) = self.child.recv() => return Heard::ChildChanged,
                Some(signal) = self.forwarded.recv() => signal,
                else => std::future::pending().await,
            };
            // The terminal has sent these to our whole process group.
            if !matches!(heard, Signal::INT | Signal::QUIT) || !is_in_foreground() {
                return Heard::Forward(heard);
            }
        }
    }
}

fn is_in_foreground() -> bool {
    fs::read_to_string("/proc/self/stat").is_ok_and(|stat| stands_in_foreground(&stat))
}

/// proc_pid_stat(5): field 5 is the process group, field 8 the one in the terminal's foreground.
fn stands_in_foreground(stat: &str) -> bool {
    let Some((_, fields)) = stat.rsplit_once(") ") else {
        return false;
    };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields.get(2).is_some_and(|own| fields.get(5) == Some(own))
}

/// proc_pid_status(5): the mask of ignored signals, the first one its lowest bit.
fn ignored_in(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_foreground_is_told_by_the_process_group() {
        assert!(stands_in_foreground("7 (a) b) S 1 70 60 34816 70 4194304"));
        assert!(!stands_in_foreground(
            "7 (acmegate) S 1 70 60 34816 71 4194304"
        ));
        assert!(!stands_in_foreground("7 (acmegate) S 1 70 60 0 -1 4194304"));
        assert!(!stands_in_foreground(""));
    }

    #[test]
    fn nohup_is_seen() {
        let ignored = ignored_in("SigBlk:\t0\nSigIgn:\t0000000000001001\nSigCgt:\t0");
        assert_ne!(ignored & (1 << (Signal::HUP.as_raw() - 1)), 0);
        assert_eq!(ignored & (1 << (Signal::TERM.as_raw() - 1)), 0);
        assert_eq!(ignored_in(""), 0);
    }
}
