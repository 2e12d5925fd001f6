//! What the desk does with pushed answers: who may push one, whether it is one, whether a site would
//! give it, and the word to those who count tokens.

use std::time::Duration;

use super::desk::Desk;
use super::now;
use super::refused::Refused;
use super::words::{Account, Told, identifier};
use crate::answer::PushedAnswer;
use crate::answer::pushed::{DEFAULT_LIFETIME, MAX_LIFETIME};
use crate::config::format_duration;
use crate::control::protocol::{Exit, Response};
use crate::front::Speaks;
use crate::gate::caller::{Ask as GateAsk, Caller};
use crate::gate::challenge::ChallengeType;
use crate::gate::identifier::Identifier;
use crate::gate::site::site_for;
use crate::gate::token::Token;

impl Desk {
    /// What is to be answered for whom, if this caller may say so and a site would answer it.
    pub(super) fn answer(
        &self,
        caller: Caller,
        name: &str,
        told: Told,
    ) -> Result<(Identifier, PushedAnswer), Refused> {
        let identifier = identifier(name)?;
        self.permit(
            caller,
            GateAsk::Answer(&identifier),
            "push tokens for this identifier",
        )?;
        let config = self.config.borrow();
        let sites = config.gate_sites();
        let Some((_, site)) = site_for(&sites, &identifier) else {
            return Err(Refused::new(
                Exit::Config,
                format!(
                    "no [[site]] has {identifier}, so it would never be answered: add it to a site's identifiers"
                ),
            ));
        };
        let answer = told.vouched_by(site).map_err(|account| {
            let message = match account {
                Account::Named(account) => format!(
                    "the site of {identifier} does not name the account {account}: add it to the site's `accounts` if it is yours"
                ),
                Account::Hidden => format!(
                    "the digest for {identifier} is of none of the site's `accounts`: add yours there, or push the whole key authorization to see whose it is"
                ),
            };
            Refused::new(Exit::Config, message)
        })?;
        let (table, speaks, challenge) = match answer {
            PushedAnswer::Http01(_) => ("http", Speaks::Http, ChallengeType::Http01),
            PushedAnswer::TlsAlpn01(_) => ("tls", Speaks::Tls, ChallengeType::TlsAlpn01),
        };
        // With windows alone somebody else's server answers by HTTP-01, and the hook's word is what
        // opened for it.
        let is_elses = speaks == Speaks::Http && self.spoken.is_empty();
        if !self.spoken.contains(&speaks) && !is_elses {
            return Err(Refused::new(
                Exit::Config,
                format!(
                    "[{table}] does not listen, so nothing would ever be answered by {challenge}: set its `listen`"
                ),
            ));
        }
        Ok((identifier, answer))
    }

    pub(super) fn add_answer(
        &self,
        caller: Caller,
        (identifier, answer): (Identifier, PushedAnswer),
        milliseconds: Option<u64>,
    ) -> Result<Response, Refused> {
        let lifetime = milliseconds
            .map_or(DEFAULT_LIFETIME, Duration::from_millis)
            .min(MAX_LIFETIME);
        let (token, now) = (answer.token().clone(), now());
        let by = match answer {
            PushedAnswer::Http01(_) => "",
            PushedAnswer::TlsAlpn01(_) => " by tls-alpn-01",
        };
        self.pushed
            .add(identifier.clone(), answer, lifetime, now)
            .map_err(|full| Refused::new(Exit::TempFail, full.to_string()))?;
        self.tell_of_token(&identifier, &token);
        self.rate_limit.pushed(&identifier, caller.uid);
        // Neither token nor thumbprint: this line goes to the log.
        Ok(Response::done(format!(
            "answering for {identifier}{by}, {} at most",
            format_duration(lifetime)
        )))
    }

    pub(super) fn remove_answer(
        &self,
        caller: Caller,
        challenge: ChallengeType,
        name: &str,
        token: &str,
    ) -> Result<Response, Refused> {
        let identifier = identifier(name)?;
        self.permit(
            caller,
            GateAsk::Answer(&identifier),
            "withdraw tokens of this identifier",
        )?;
        let token = Token::parse(token.as_bytes())
            .map_err(|error| Refused::new(Exit::Data, error.to_string()))?;
        let was_there = self.pushed.remove(challenge, &identifier, &token, now());
        self.tell_of_token(&identifier, &token);
        Ok(match was_there {
            true => Response::done(format!("no longer answering {identifier} with that token")),
            false => Response::done(format!(
                "{identifier} had no such token: nothing to withdraw"
            )),
        })
    }

    /// Tells those who count tokens until when this one is answered, by whatever challenge: some
    /// CAs give one token to all challenges of an authorization.
    fn tell_of_token(&self, identifier: &Identifier, token: &Token) {
        match self.pushed.answered_until(identifier, token, now()) {
            Some(until) => {
                self.early.pushed(identifier, token, until);
                self.recorder.announced(identifier, token);
            }
            None => self.early.withdrawn(identifier, token),
        }
    }
}
