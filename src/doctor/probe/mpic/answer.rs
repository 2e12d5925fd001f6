//! What a service of the Open MPIC API answers, read.
//!
//! What it says more than is needed is passed over; how many perspectives and how long a text are kept is bounded. Texts
//! stay as they came: whoever shows one escapes it.

use serde::Deserialize;

use crate::doctor::probe::seen::Outcome;
use crate::observe::report::escape::clip;

/// The most perspectives that are told of; CAs use six or so.
pub const MAX_PERSPECTIVES: usize = 64;
/// The longest text that is kept, in characters.
pub const MAX_TEXT: usize = 200;

/// What comes back; of older versions of the API too, which have a perspective's result beside its code.
#[derive(Debug, Deserialize)]
pub struct Answer {
    /// What the service itself says of the check; it may leave that to who asks.
    pub is_valid: Option<bool>,
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

/// What came of one perspective's check.
#[derive(Debug, Default, Deserialize)]
pub struct Checked {
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

impl Answer {
    /// Reads the body of an answer.
    ///
    /// # Errors
    /// It is no JSON, or not of this API.
    pub fn parse(body: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(body)
    }

    /// Of each perspective what it is called, and what came of its check.
    pub fn perspectives(self) -> Vec<(String, Checked)> {
        let all = self.perspectives.unwrap_or_default().into_iter();
        all.take(MAX_PERSPECTIVES)
            .map(Perspective::checked)
            .collect()
    }
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
    /// Whether the check passed.
    pub fn has_passed(&self) -> bool {
        self.check_passed
    }

    /// What it saw, where the check was a validation.
    pub fn outcome(&self) -> Outcome {
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

    /// The first error's words.
    pub fn why(&self) -> String {
        let first = self.errors.as_ref().and_then(|errors| errors.first());
        let words =
            first.and_then(|error| error.error_message.as_ref().or(error.error_type.as_ref()));
        words.map_or_else(
            || "it does not say why".to_owned(),
            |words| clip(words, MAX_TEXT),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, Outcome)> {
        let perspectives = Answer::parse(text.as_bytes()).unwrap().perspectives();
        perspectives
            .into_iter()
            .map(|(code, checked)| (code, checked.outcome()))
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
