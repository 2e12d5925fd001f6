//! Grants: what callers of the control socket besides root may ask.

use toml::Spanned;

use super::error::Problem;
use super::file::{self, Section, Word};
use super::site;
use super::value::word_of;
use crate::gate::caller::{Grant, Verb, Who};

/// Looks accounts up. An argument, so that checking a file needs no system.
pub trait Accounts {
    /// The uid of the account with this name.
    fn user(&self, name: &str) -> Option<u32>;

    /// The group with this name.
    fn group(&self, name: &str) -> Option<Group>;
}

/// A group of accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its gid.
    pub gid: u32,
    /// The uids that name it as an additional group.
    pub members: Vec<u32>,
}

/// An id in digits. The last one means "no change" to chown(2) and its kin, and is nobody.
pub(super) fn numeric_id(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = text.parse().ok().filter(|id| *id != u32::MAX);
    id.filter(|_| is_number)
}

/// Checks one `[[grant]]`; `None` if it is for nobody.
pub(super) fn grant(
    section: &Section<file::Grant>,
    accounts: &dyn Accounts,
    problems: &mut Vec<Problem>,
) -> Option<Grant> {
    let keys = &section.keys;
    let before = problems.len();
    let who = who(section, accounts, problems);
    let may = verbs(section, problems);
    let identifiers = site::patterns(&keys.identifiers, problems);
    if section.is_whole && problems.len() == before {
        let answers = keys
            .may
            .iter()
            .flat_map(Spanned::get_ref)
            .find(|verb| verb.get_ref() == Verb::Answer.as_str());
        match (answers, &keys.identifiers) {
            (Some(verb), _) if identifiers.is_empty() => problems.push(
                Problem::new(verb.span(), "a grant to answer needs identifiers")
                    .fix("add identifiers = [\"example.com\"]")
                    .note("who may push tokens for a name can have certificates issued for it"),
            ),
            (None, Some(given)) => problems.push(
                Problem::new(given.span(), "`identifiers` are for \"answer\" alone")
                    .fix("leave them out, or add \"answer\" to may")
                    .note("windows are not opened for one identifier and shut for another"),
            ),
            _ => {}
        }
    }
    Some(Grant {
        who: who?,
        may,
        identifiers,
    })
}

fn who(
    section: &Section<file::Grant>,
    accounts: &dyn Accounts,
    problems: &mut Vec<Problem>,
) -> Option<Who> {
    match (&section.keys.user, &section.keys.group) {
        (Some(user), None) => user_of(user, accounts, problems).map(Who::User),
        (None, Some(group)) => {
            let Group { gid, members } = group_of(group, accounts, problems)?;
            Some(Who::Group { gid, members })
        }
        (Some(user), Some(group)) => {
            let problem = Problem::new(group.span(), "a grant for a user and for a group")
                .fix("write a [[grant]] for each")
                .also(user.span(), "the user");
            problems.push(problem);
            None
        }
        (None, None) => {
            if section.is_whole {
                let problem = Problem::new(section.at.clone(), "a grant for nobody")
                    .fix("add user = \"name\" or group = \"name\"");
                problems.push(problem);
            }
            None
        }
    }
}

fn user_of(
    key: &Spanned<Word>,
    accounts: &dyn Accounts,
    problems: &mut Vec<Problem>,
) -> Option<u32> {
    let name = word(key);
    let uid = numeric_id(&name).or_else(|| accounts.user(&name));
    if uid.is_none() {
        let problem = Problem::new(key.span(), format!("there is no account `{name}`"))
            .fix("write one that `getent passwd` shows, or its uid");
        problems.push(problem);
    }
    uid
}

fn group_of(
    key: &Spanned<Word>,
    accounts: &dyn Accounts,
    problems: &mut Vec<Problem>,
) -> Option<Group> {
    let name = word(key);
    let found = accounts.group(&name);
    let group = match numeric_id(&name) {
        // The members of a gid are known only to an `Accounts` that looks up gids too.
        Some(gid) => Some(found.filter(|group| group.gid == gid).unwrap_or(Group {
            gid,
            members: Vec::new(),
        })),
        None => found,
    };
    if group.is_none() {
        let problem = Problem::new(key.span(), format!("there is no group `{name}`"))
            .fix("write one that `getent group` shows, or its gid");
        problems.push(problem);
    }
    group
}

fn word(key: &Spanned<Word>) -> String {
    match key.get_ref() {
        Word::Text(name) => name.clone(),
        Word::Number(id) => id.to_string(),
    }
}

fn verbs(section: &Section<file::Grant>, problems: &mut Vec<Problem>) -> Vec<Verb> {
    let words =
        [Verb::Open, Verb::Close, Verb::Answer, Verb::Report].map(|verb| (verb.as_str(), verb));
    let mut may = Vec::new();
    match &section.keys.may {
        Some(entries) if entries.get_ref().is_empty() => problems.push(
            Problem::new(entries.span(), "a grant of nothing")
                .fix("write [\"open\", \"close\"], or leave the grant out"),
        ),
        Some(entries) => {
            for entry in entries.get_ref() {
                match word_of(entry, &words) {
                    Ok(verb) if may.contains(&verb) => {
                        let message = format!("`{}` stands here twice", verb.as_str());
                        problems.push(Problem::new(entry.span(), message).fix("leave one out"));
                    }
                    Ok(verb) => may.push(verb),
                    Err(fix) => {
                        let message = format!("`{}` is nothing to grant", entry.get_ref());
                        problems.push(Problem::new(entry.span(), message).fix(fix));
                    }
                }
            }
        }
        None if section.is_whole => problems.push(
            Problem::new(section.at.clone(), "a grant of nothing")
                .fix("add may = [\"open\", \"close\"]"),
        ),
        None => {}
    }
    may
}
