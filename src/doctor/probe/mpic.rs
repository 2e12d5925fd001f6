//! Services that speak the Open MPIC API (github.com/open-mpic/open-mpic-specification, 3.5.0): a coordinator that
//! asks perspectives around the world, as CAs run it for themselves.
//!
//! Two questions for each name: the validation itself (`dcv` by `acme-http-01`), and whether CAA permits it (`caa`).
//! What a perspective reports is believed as far as it goes: a status, whether the check passed, and errors, which
//! are clipped.

pub mod answer;

use std::time::Instant;

use serde::Serialize;

use self::answer::{Answer, MAX_TEXT};
use super::Question;
use super::seen::{Caa, Family, Fetch, Vantage, View};
use super::web::{self, Key, Url};
use crate::observe::report::escape::clip;

/// Where questions go, behind the service's address.
const PATH: &str = "/mpic";

/// What is asked.
#[derive(Debug, Serialize)]
#[serde(tag = "check_type", rename_all = "lowercase")]
enum Check<'question> {
    Dcv {
        domain_or_ip_target: String,
        dcv_check_parameters: Parameters<'question>,
    },
    Caa {
        domain_or_ip_target: String,
        caa_check_parameters: CaaParameters<'question>,
    },
}

#[derive(Debug, Serialize)]
struct Parameters<'question> {
    validation_method: &'static str,
    token: &'question str,
    key_authorization: String,
}

#[derive(Debug, Serialize)]
struct CaaParameters<'question> {
    certificate_type: &'static str,
    /// The service's own default where nothing is named.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    caa_domains: &'question [String],
}

/// What a service came to.
#[derive(Debug, Default)]
pub struct Heard {
    /// Its perspectives.
    pub vantages: Vec<Vantage>,
    /// For which names the service itself says that the validation fails.
    pub refused: Vec<String>,
    /// For which names it could not say whether CAA permits issuance, and why.
    pub without_caa: Vec<String>,
}

/// Asks a service for one name; blocking.
///
/// # Errors
/// One line: why it could not be asked.
pub fn ask(
    url: &Url,
    key: Option<&Key>,
    question: &Question,
    issuers: &[String],
    deadline: Instant,
) -> Result<Heard, String> {
    let target = question.name.to_string();
    let dcv = Check::Dcv {
        domain_or_ip_target: target.clone(),
        dcv_check_parameters: Parameters {
            validation_method: "acme-http-01",
            token: question.answer.token().as_str(),
            key_authorization: question.answer.to_body(),
        },
    };
    let answer = exchange(url, key, &dcv, deadline)?;
    let mut heard = Heard::default();
    if answer.is_valid != Some(true) {
        heard.refused.push(target.clone());
    }
    let perspectives = answer.perspectives();
    if perspectives.is_empty() {
        return Err(format!("{} names no perspective", url.host()));
    }
    for (code, checked) in perspectives {
        let view = View {
            name: target.clone(),
            fetches: vec![Fetch {
                family: Family::Any,
                outcome: checked.outcome(),
                took: None,
            }],
            ..View::default()
        };
        heard.vantages.push(Vantage {
            from: format!("mpic:{url} {code}"),
            views: vec![view],
            ..Vantage::default()
        });
    }
    let caa = Check::Caa {
        domain_or_ip_target: target.clone(),
        caa_check_parameters: CaaParameters {
            certificate_type: "tls-server",
            caa_domains: issuers,
        },
    };
    match exchange(url, key, &caa, deadline) {
        Ok(answer) => {
            for (code, checked) in answer.perspectives() {
                let from = format!("mpic:{url} {code}");
                let of = heard
                    .vantages
                    .iter_mut()
                    .find(|vantage| vantage.from == from);
                if let Some(view) = of.and_then(|vantage| vantage.views.first_mut()) {
                    view.caa = Some(match checked.has_passed() {
                        true => Caa::Permits,
                        false => Caa::Forbids(checked.why()),
                    });
                }
            }
        }
        Err(why) => heard.without_caa.push(format!("{target}: {why}")),
    }
    Ok(heard)
}

fn exchange(
    url: &Url,
    key: Option<&Key>,
    check: &Check<'_>,
    deadline: Instant,
) -> Result<Answer, String> {
    let body = serde_json::to_vec(check).map_err(|error| error.to_string())?;
    let (status, answer) = web::ask(&url.at(PATH), key, Some(&body), deadline)?;
    match status {
        200 => Answer::parse(&answer).map_err(|error| {
            format!(
                "what {} answered is not of the Open MPIC API: {error}",
                url.host()
            )
        }),
        401 | 403 => Err(format!(
            "{} wants another key (status {status})",
            url.host()
        )),
        _ => Err(format!(
            "{} answered {status}: {}",
            url.host(),
            clip(&String::from_utf8_lossy(&answer), MAX_TEXT)
        )),
    }
}
