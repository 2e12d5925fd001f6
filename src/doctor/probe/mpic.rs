//! Services that speak the Open MPIC API (github.com/open-mpic/open-mpic-specification, 3.5.0): a coordinator that
//! asks perspectives around the world, as CAs run it for themselves.
//!
//! Two questions for each name: the validation itself (`dcv` by `acme-http-01`), and whether CAA permits it (`caa`).
//! What a perspective reports is believed as far as it goes: a status, whether the check passed, and errors, which
//! are clipped.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::Question;
use super::seen::{Caa, Family, Fetch, Outcome, Vantage, View};
use super::web::{self, Key, Url};
use crate::observe::report::escape::clip;

/// Where questions go, behind the service's address.
const PATH: &str = "/mpic";
/// The most perspectives that are told of; CAs use six or so.
const MAX_PERSPECTIVES: usize = 64;
/// The longest text that is kept, in characters.
const MAX_TEXT: usize = 200;

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

/// What comes back; of older versions of the API too, which have a perspective's result beside its code.
#[derive(Debug, Deserialize)]
struct Answer {
    is_valid: Option<bool>,
    #[serde(default)]
    perspectives: Option<Vec<Perspective>>,
}

#[derive(Debug, Deserialize)]
struct Perspective {
    perspective_code: String,
    #[serde(default)]
    check_response: Option<Checked>,
    #[serde(flatten)]
    beside: Checked,
}

#[derive(Debug, Default, Deserialize)]
struct Checked {
    #[serde(default)]
    check_passed: bool,
    #[serde(default)]
    errors: Option<Vec<Mistake>>,
    #[serde(default)]
    details: Option<Details>,
}

#[derive(Debug, Deserialize)]
struct Mistake {
    #[serde(default)]
    error_type: Option<String>,
    #[serde(default)]
    error_message: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Details {
    #[serde(default)]
    response_status_code: Option<u16>,
}

impl Perspective {
    fn checked(self) -> (String, Checked) {
        (
            clip(&self.perspective_code, MAX_TEXT),
            self.check_response.unwrap_or(self.beside),
        )
    }
}

impl Checked {
    fn outcome(&self) -> Outcome {
        let status = self
            .details
            .as_ref()
            .and_then(|details| details.response_status_code);
        match (status, self.check_passed) {
            (status, true) => Outcome::Answered {
                status: status.unwrap_or(200),
                matches: true,
            },
            (Some(status), false) => Outcome::Answered {
                status,
                matches: false,
            },
            (None, false) => Outcome::Silent(self.why()),
        }
    }

    fn why(&self) -> String {
        let first = self.errors.as_ref().and_then(|errors| errors.first());
        let words =
            first.and_then(|error| error.error_message.as_ref().or(error.error_type.as_ref()));
        words.map_or_else(
            || "it does not say why".to_owned(),
            |words| clip(words, MAX_TEXT),
        )
    }
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
    let perspectives = answer.perspectives.unwrap_or_default();
    if perspectives.is_empty() {
        return Err(format!("{} names no perspective", url.host()));
    }
    for perspective in perspectives.into_iter().take(MAX_PERSPECTIVES) {
        let (code, checked) = perspective.checked();
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
            for perspective in answer.perspectives.unwrap_or_default() {
                let (code, checked) = perspective.checked();
                let from = format!("mpic:{url} {code}");
                let of = heard
                    .vantages
                    .iter_mut()
                    .find(|vantage| vantage.from == from);
                if let Some(view) = of.and_then(|vantage| vantage.views.first_mut()) {
                    view.caa = Some(match checked.check_passed {
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
        200 => serde_json::from_slice(&answer).map_err(|error| {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, Outcome)> {
        let answer: Answer = serde_json::from_str(text).unwrap();
        let perspectives = answer.perspectives.unwrap().into_iter();
        perspectives
            .map(|perspective| {
                let (code, checked) = perspective.checked();
                (code, checked.outcome())
            })
            .collect()
    }

    #[test]
    fn both_shapes_of_a_perspective_are_read() {
        let new = r#"{"is_valid": true, "check_type": "dcv", "perspectives": [
            {"perspective_code": "a", "check_response": {"check_completed": true, "check_passed": true, "errors": null,
             "details": {"validation_method": "acme-http-01", "response_status_code": 200}}},
            {"perspective_code": "b", "check_response": {"check_passed": false,
             "errors": [{"error_type": "mpic_error:dcv_checker:http", "error_message": "it timed out"}],
             "details": {"response_status_code": null}}}]}"#;
        let old = r#"{"is_valid": true, "perspectives": [
            {"perspective_code": "a", "check_passed": true, "errors": null, "details": {"response_status_code": 200}},
            {"perspective_code": "b", "check_passed": false, "errors": [{"error_message": "it timed out"}]}]}"#;
        let good = Outcome::Answered {
            status: 200,
            matches: true,
        };
        let expected = [
            ("a".to_owned(), good),
            ("b".to_owned(), Outcome::Silent("it timed out".to_owned())),
        ];
        assert_eq!(read(new), expected);
        assert_eq!(read(old), expected);
    }

    #[test]
    fn another_page_is_no_pass() {
        let other = r#"{"perspectives": [{"perspective_code": "a", "check_response":
            {"check_passed": false, "details": {"response_status_code": 404}}}]}"#;
        let missing = Outcome::Answered {
            status: 404,
            matches: false,
        };
        assert_eq!(read(other), [("a".to_owned(), missing)]);
        let empty = r#"{"perspectives": [{"perspective_code": "a"}]}"#;
        assert!(!read(empty)[0].1.is_good());
    }
}
