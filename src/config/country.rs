//! Countries, as ISO 3166-1 abbreviates them.

use std::fmt;

/// The codes of ISO 3166-1 alpha-2, and XK, by which every source of country lists calls Kosovo.
const CODES: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ \
BR BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES \
ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO \
IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK \
ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR \
PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK \
TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW";

/// A country's code, upper case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

impl Country {
    /// Reads a code as an operator writes it.
    ///
    /// # Errors
    /// What is wrong, and what to write instead. Lower case is an error, so that there is one spelling.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        if let Some(known) = Self::known(text.as_bytes()) {
            return Ok(known);
        }
        let upper = text.to_ascii_uppercase();
        let message = format!("`{text}` is no country");
        let fix = match upper.as_str() {
            _ if Self::known(upper.as_bytes()).is_some() => format!("write \"{upper}\""),
            "UK" => "write \"GB\"".to_owned(),
            "EL" => "write \"GR\"".to_owned(),
            "EU" | "AP" => "name each country of the region".to_owned(),
            _ => "write its code of two letters, such as \"DE\" (ISO 3166-1 alpha-2)".to_owned(),
        };
        Err((message, fix))
    }

    /// The country that a source means by these bytes, known or not; upper and lower case occur.
    pub(super) fn of_source(code: &[u8]) -> Option<Self> {
        let code: [u8; 2] = code.try_into().ok()?;
        let is_code = code.iter().all(u8::is_ascii_alphabetic);
        is_code.then(|| Self(code.map(|byte| byte.to_ascii_uppercase())))
    }

    fn known(code: &[u8]) -> Option<Self> {
        let code: [u8; 2] = code.try_into().ok()?;
        let mut codes = CODES.as_bytes().chunks(3);
        codes.any(|known| known[..2] == code).then_some(Self(code))
    }

    /// The code.
    pub fn as_str(&self) -> &str {
        // Two letters of ASCII, by how one is made.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_read_and_nothing_else() {
        let codes: Vec<&str> = CODES.split(' ').collect();
        // ISO 3166-1 has 249; and XK.
        assert_eq!(codes.len(), 250);
        assert!(codes.is_sorted());
        for code in codes {
            assert_eq!(Country::parse(code).unwrap().to_string(), code);
            assert_eq!(
                Country::of_source(code.to_lowercase().as_bytes()),
                Country::parse(code).ok()
            );
        }
        for (text, fix) in [
            ("de", "write \"DE\""),
            ("Gb", "write \"GB\""),
            ("UK", "write \"GB\""),
            ("el", "write \"GR\""),
            ("EU", "name each country of the region"),
            (
                "DEU",
                "write its code of two letters, such as \"DE\" (ISO 3166-1 alpha-2)",
            ),
            (
                "",
                "write its code of two letters, such as \"DE\" (ISO 3166-1 alpha-2)",
            ),
            (
                "D ",
                "write its code of two letters, such as \"DE\" (ISO 3166-1 alpha-2)",
            ),
        ] {
            assert_eq!(Country::parse(text).unwrap_err().1, fix, "{text}");
        }
        for code in ["", "D", "DEU", "D1", "*", "\u{e9}"] {
            assert_eq!(Country::of_source(code.as_bytes()), None, "{code}");
        }
    }
}
