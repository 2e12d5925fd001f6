//! Values of single keys: words out of a few, numbers and durations within bounds, directories.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::duration::{DurationError, format_duration, parse_duration};
use super::error::{Problem, nearest};
use super::file::{Key, Word};

/// The meaning of a word out of a few.
pub(super) fn one_of<T: Copy>(
    key: &Key<String>,
    name: &str,
    words: &[(&'static str, T)],
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let key = key.as_ref()?;
    match word_of(key, words) {
        Ok(meaning) => Some(meaning),
        Err(fix) => {
            let message = format!("`{}` is no {name}", key.get_ref());
            problems.push(Problem::new(key.span(), message).fix(fix));
            None
        }
    }
}

/// As [`one_of`], for one entry; the error is the fix.
pub(super) fn word_of<T: Copy>(
    word: &Spanned<String>,
    words: &[(&'static str, T)],
) -> Result<T, String> {
    let word = word.get_ref().as_str();
    if let Some((_, meaning)) = words.iter().find(|(known, _)| *known == word) {
        return Ok(*meaning);
    }
    let known: Vec<String> = words
        .iter()
        .map(|(known, _)| format!("\"{known}\""))
        .collect();
    let meant = nearest(word, words.iter().map(|(known, _)| *known));
    Err(match meant {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("write one of {}", known.join(", ")),
    })
}

/// A whole number within bounds that fit `u32`.
pub(super) fn whole(
    key: &Key<i64>,
    name: &str,
    bounds: RangeInclusive<i64>,
    default: u32,
    problems: &mut Vec<Problem>,
) -> u32 {
    let Some(key) = key else {
        return default;
    };
    let number = *key.get_ref();
    if bounds.contains(&number)
        && let Ok(number) = u32::try_from(number)
    {
        return number;
    }
    let (least, most) = bounds.into_inner();
    let message = format!("`{name}` is out of bounds");
    problems.push(Problem::new(key.span(), message).fix(format!("write {least} to {most}")));
    default
}

pub(super) fn duration(
    key: &Key<Word>,
    name: &str,
    bounds: RangeInclusive<Duration>,
    default: Duration,
    problems: &mut Vec<Problem>,
) -> Duration {
    let Some(key) = key else {
        return default;
    };
    let parsed = match key.get_ref() {
        Word::Text(text) => parse_duration(text),
        Word::Number(_) => Err(DurationError::NoUnit),
    };
    let (message, fix) = match parsed {
        Ok(duration) if bounds.contains(&duration) => return duration,
        Ok(_) => (
            format!("`{name}` is out of bounds"),
            format!(
                "write {} to {}",
                format_duration(*bounds.start()),
                format_duration(*bounds.end())
            ),
        ),
        Err(DurationError::NoUnit) => (
            format!("`{name}` needs a unit"),
            match key.get_ref() {
                Word::Number(number) if *number > 0 => {
                    format!("write \"{number}s\" for seconds, \"{number}m\" for minutes")
                }
                _ => "add s for seconds, m for minutes, h for hours".to_owned(),
            },
        ),
        Err(error) => (format!("`{name}` is not a duration"), error.to_string()),
    };
    problems.push(Problem::new(key.span(), message).fix(fix));
    default
}

/// As [`duration`], or the word `unlimited`.
pub(super) fn allowance(
    key: &Key<Word>,
    name: &str,
    longest: Duration,
    default: Option<Duration>,
    problems: &mut Vec<Problem>,
) -> Option<Duration> {
    match key.as_ref().map(Spanned::get_ref) {
        None => default,
        Some(Word::Text(word)) if word == "unlimited" => None,
        Some(_) => {
            let (least, before) = (Duration::from_secs(1), problems.len());
            let limit = duration(key, name, least..=longest, least, problems);
            if problems.len() > before
                && let Some(problem) = problems.pop()
            {
                problems.push(problem.note("\"unlimited\" sets no limit"));
            }
            Some(limit)
        }
    }
}

/// An absolute path without anything that no directory of ours would be called.
pub(super) fn directory(key: &Spanned<String>, name: &str, problems: &mut Vec<Problem>) -> PathBuf {
    let path = Path::new(key.get_ref());
    if !path.is_absolute() {
        let message = format!("`{name}` is not an absolute path");
        problems.push(Problem::new(key.span(), message).fix("start it with /"));
    } else if key.get_ref().contains(char::is_control) {
        let message = format!("`{name}` holds a control character");
        problems.push(Problem::new(key.span(), message).fix("write a plain path"));
    } else if path.components().any(|part| part.as_os_str() == "..") {
        let message = format!("`{name}` holds `..`");
        problems.push(Problem::new(key.span(), message).fix("write where it leads"));
    }
    path.to_owned()
}
