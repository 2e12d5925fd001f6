//! A day in minutes: windows of every kind by the real daemon, one after the other and some at once,
//! with validations from several networks, reloads, foreign flushes and killed processes in between;
//! and nothing grows, nothing is left.
//!
//! `ACMEGATE_WINDOWS=N` asks for another number of windows, `ACMEGATE_FULL=1` for 2,000.

mod day;
mod measure;

use std::time::Duration;

use day::Day;
use measure::{Sample, come_back, judge, table};

use crate::lab::inside_within;

/// What all of it may take: 2,000 windows take a third of this.
const LIMIT: Duration = Duration::from_secs(3400);
/// How many times what is there is looked at, in the life that is judged.
const LOOKS: usize = 40;
/// Between two looks lie at least so many windows: each look waits until all is quiet.
const APART: usize = 16;

fn windows() -> usize {
    let asked = std::env::var("ACMEGATE_WINDOWS").ok();
    match asked.and_then(|number| number.parse().ok()) {
        Some(number) => number,
        None if std::env::var_os("ACMEGATE_FULL").is_some() => 2000,
        None => 60,
    }
}

#[test]
fn a_day_of_windows_leaves_nothing_behind_and_nothing_grows() {
    inside_within(LIMIT, || {
        let windows = windows();
        let mut day = Day::new(0x5eed_0fda);
        // Lives that end by force; what they leave, the next one finds.
        let rough = windows * 3 / 10;
        let between = (windows / 50).max(5);
        while day.windows < rough {
            day.window();
            if day.windows.is_multiple_of(between) {
                day.kill();
            }
        }
        // And one that goes on to the end: its first part is for getting warm.
        let calm = windows - rough;
        let warm = rough + calm / 5;
        while day.windows < warm {
            day.window();
        }
        let step = ((windows - warm) / LOOKS).max(APART);
        let mut samples = vec![Sample::take(&day)];
        while day.windows < windows {
            day.window();
            if (day.windows - warm).is_multiple_of(step) || day.windows == windows {
                samples.push(Sample::take(&day));
            }
        }
        println!("{}", day.told());
        println!("{}", table(&samples));
        judge(&samples).iter().for_each(|line| println!("{line}"));
        come_back(&day, &samples);
        day.end();
    });
}
