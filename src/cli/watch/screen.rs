//! The terminal: taken over, and given back in whatever way this ends.

use std::io::{self, IsTerminal, Read as _, Write as _};
use std::panic;
use std::sync::OnceLock;

use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

use super::keys::{Key, Keys};
use super::view::View;

/// How many keys may wait.
const KEYS: usize = 16;
/// The other screen of the terminal, no cursor, and lines that are cut where they are too long.
const TAKE: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const GIVE_BACK: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const CLEAR: &str = "\x1b[2J";
/// What is assumed of a terminal that does not tell its size.
const USUAL: (u16, u16) = (80, 24);

/// How the terminal was before it was taken.
static BEFORE: OnceLock<Termios> = OnceLock::new();

/// Whether a screen can be drawn on, and somebody can press keys.
pub fn is_there() -> bool {
    let term = std::env::var("TERM").unwrap_or_default();
    let can_draw = !term.is_empty() && term != "dumb";
    can_draw && io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The taken terminal; dropping it gives it back.
pub struct Screen {
    is_coloured: bool,
    /// Of the last drawing: columns and rows, and what each row was sent.
    size: (u16, u16),
    rows: Vec<String>,
}

impl Screen {
    /// Takes the terminal. A panic gives it back before it says anything.
    ///
    /// # Errors
    /// The terminal's.
    pub fn take() -> io::Result<Self> {
        let modes = tcgetattr(io::stdin())?;
        BEFORE.get_or_init(|| modes);
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
        let mut taken = Self {
            is_coloured: std::env::var_os("NO_COLOR").is_none(),
            size: (0, 0),
            rows: Vec::new(),
        };
        taken.go_on()?;
        write(TAKE)?;
        Ok(taken)
    }

    /// Gives the terminal back, stops this program as SIGTSTP would have, and takes the terminal again once
    /// it is continued.
    ///
    /// # Errors
    /// The terminal's, or the system's that stops nobody.
    pub fn stop(&mut self) -> io::Result<()> {
        give_back();
        // Sent to itself it is delivered before the call is over: what follows happens after SIGCONT.
        kill_process(getpid(), Signal::STOP)?;
        // First the modes: in the background that stops it again, before anything is written.
        self.go_on()?;
        write(TAKE)
    }

    /// After SIGCONT: whoever had the terminal meanwhile may have set it and written to it as he liked.
    ///
    /// # Errors
    /// The terminal's.
    pub fn go_on(&mut self) -> io::Result<()> {
        let mut modes = tcgetattr(io::stdin())?;
        modes.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &modes)?;
        // Everything is drawn anew.
        self.size = (0, 0);
        Ok(())
    }

    /// Draws, in the terminal's size of the moment; only rows that changed are sent.
    ///
    /// # Errors
    /// The terminal's.
    pub fn draw(&mut self, view: &mut View, now: u64) -> io::Result<()> {
        let (width, height) = size();
        let mut out = String::new();
        if self.size != (width, height) {
            self.size = (width, height);
            self.rows.clear();
            out += CLEAR;
        }
        let columns = usize::from(width);
        let rows = view.rows(width, height, now);
        let rows: Vec<String> = rows
            .iter()
            .map(|row| row.drawn(columns, self.is_coloured))
            .collect();
        for (at, row) in rows.iter().enumerate() {
            if self.rows.get(at) != Some(row) {
                // To the row's begin; what it had is erased behind the new.
                out += &format!("\x1b[{};1H{row}\x1b[K", at + 1);
            }
        }
        self.rows = rows;
        write(&out)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn size() -> (u16, u16) {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        _ => USUAL,
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn give_back() {
    // A terminal that is gone needs nothing back.
    let _ = write(GIVE_BACK);
    if let Some(before) = BEFORE.get() {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
    }
}

/// Keys, from a thread that waits for them and ends with the program; the channel ends with the terminal.
pub fn keys() -> mpsc::Receiver<Key> {
    let (pressed, keys) = mpsc::channel(KEYS);
    std::thread::spawn(move || {
        let mut meant = Keys::default();
        let mut bytes = [0; 256];
        loop {
            let read = match io::stdin().read(&mut bytes) {
                Ok(0) => return,
                Ok(length) => meant.read(
                    bytes.get(..length).unwrap_or_default(),
                    length == bytes.len(),
                ),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            for key in read {
                if pressed.blocking_send(key).is_err() {
                    return;
                }
            }
        }
    });
    keys
}
