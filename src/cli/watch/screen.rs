//! The terminal: taken over, and given back in whatever way this ends.

use std::io::{self, IsTerminal, Stdout};
use std::panic;

use crossterm::cursor::{Hide, Show};
use crossterm::event::Event;
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui_core::terminal::Terminal;
use ratatui_crossterm::CrosstermBackend;
use tokio::sync::mpsc;

use super::view::View;

/// How many keys may wait.
const KEYS: usize = 16;

/// Whether a screen can be drawn on, and somebody can press keys.
pub fn is_there() -> bool {
    let term = std::env::var("TERM").unwrap_or_default();
    let can_draw = !term.is_empty() && term != "dumb";
    can_draw && io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// The taken terminal; dropping it gives it back.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal. A panic gives it back before it says anything.
    ///
    /// # Errors
    /// The terminal's.
    pub fn take() -> io::Result<Self> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
        enable_raw_mode()?;
        let taken = execute!(io::stdout(), EnterAlternateScreen, Hide)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match taken {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Draws; follows the terminal's size.
    ///
    /// # Errors
    /// The terminal's.
    pub fn draw(&mut self, view: &mut View, now: u64) -> io::Result<()> {
        self.terminal.draw(|frame| view.draw(frame, now))?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn give_back() {
    // A terminal that is gone needs nothing back.
    let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
    let _ = disable_raw_mode();
}

/// Keys and changes of size, from a thread that waits for them and ends with the program; the channel
/// ends with the terminal.
pub fn events() -> mpsc::Receiver<Event> {
    let (pressed, events) = mpsc::channel(KEYS);
    std::thread::spawn(move || {
        while let Ok(event) = crossterm::event::read() {
            if pressed.blocking_send(event).is_err() {
                return;
            }
        }
    });
    events
}
