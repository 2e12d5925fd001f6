//! `acmegate watch`: windows and who comes, as it happens. On a terminal a screen that follows; into
//! a pipe one line for each event.
//!
//! The daemon tells all windows of the moment whenever something changes; nothing is asked again and
//! again. What peers chose is escaped before it is drawn.

mod arrival;
mod feed;
mod keys;
mod line;
mod lines;
mod screen;
mod view;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use self::feed::{Feed, News};
use self::keys::Key;
use self::lines::Told;
use self::screen::Screen;
use self::view::View;
use super::signals::Signals;
use super::terminal::print_part;
use super::{Failure, wall};
use crate::control::client;
use crate::control::protocol::Exit;

/// How often the screen is drawn at most because of news: a scan must not fill a slow line.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// How many of these pass until the times on the screen are drawn anew.
const DRAWS_A_SECOND: u32 = 10;
/// Stops a program on a terminal, and lets it go on; tokio has no names for them.
const TERMINAL_STOP: i32 = Signal::TSTP.as_raw();
const CONTINUE: i32 = Signal::CONT.as_raw();

pub fn run(runtime_dir: &Path) -> Result<ExitCode, Failure> {
    let staying = client::watch(runtime_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system)?;
    let code = runtime.block_on(async {
        let feed = Feed::new(runtime_dir, staying)?;
        match screen::is_there() {
            true => on_screen(feed).await,
            false => in_lines(feed).await,
        }
    });
    // A daemon that hangs while it is asked again is nothing to wait for.
    runtime.shutdown_background();
    code
}

/// Writes lines until nobody reads them or the daemon refuses.
async fn in_lines(mut feed: Feed) -> Result<ExitCode, Failure> {
    let mut told = Told::new();
    let mut is_lost = false;
    loop {
        let lines = match feed.next().await {
            News::Windows(records) => {
                let mut lines = Vec::new();
                if std::mem::take(&mut is_lost) {
                    lines.push("acmegate is there again".to_owned());
                }
                lines.extend(told.news(&records));
                lines
            }
            News::Lost(why) => {
                is_lost = true;
                vec![format!("{why}; waiting for it")]
            }
            News::Refused(failure) => return Err(failure),
        };
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        if !print_part(&text)? {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Draws until a key or a signal ends it, or the daemon refuses.
async fn on_screen(mut feed: Feed) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen().map_err(system)?;
    let mut sizes = signal(SignalKind::window_change()).map_err(system)?;
    let mut stops = signal(SignalKind::from_raw(TERMINAL_STOP)).map_err(system)?;
    let mut goes_on = signal(SignalKind::from_raw(CONTINUE)).map_err(system)?;
    let mut screen = Screen::take().map_err(system)?;
    let mut keys = screen::keys();
    let mut view = View::default();
    let mut draws = tokio::time::interval(DRAW_EVERY);
    draws.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut has_news, mut still) = (true, 0);
    loop {
        tokio::select! {
            news = feed.next() => {
                has_news = true;
                match news {
                    News::Windows(records) => {
                        view.records = records;
                        view.lost = None;
                    }
                    News::Lost(why) => view.lost = Some(why),
                    News::Refused(failure) => return Err(failure),
                }
            }
            key = keys.recv() => match key {
                // Without a key, the terminal is gone.
                None | Some(Key::Leave) => return Ok(ExitCode::SUCCESS),
                Some(Key::Scroll(by)) => {
                    view.scrolled = view.scrolled.saturating_add_signed(by);
                    screen.draw(&mut view, wall()).map_err(system)?;
                }
            },
            _ = sizes.recv() => screen.draw(&mut view, wall()).map_err(system)?,
            _ = stops.recv() => screen.stop().map_err(system)?,
            _ = goes_on.recv() => {
                screen.go_on().map_err(system)?;
                screen.draw(&mut view, wall()).map_err(system)?;
            }
            came = signals.next() => return Ok(ExitCode::from(came.code)),
            _ = draws.tick() => {
                still += 1;
                if has_news || still >= DRAWS_A_SECOND {
                    screen.draw(&mut view, wall()).map_err(system)?;
                    (has_news, still) = (false, 0);
                }
            }
        }
    }
}

fn system(error: std::io::Error) -> Failure {
    Failure::new(Exit::Os, error)
}
