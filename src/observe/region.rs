//! Which Internet registry serves a country: the regions that a CA's perspectives are counted by
//! (BR §3.2.2.9).
//!
//! By the registries' own lists of their service regions (afrinic.net "service region", apnic.net
//! "economies", arin.net "country codes in ARIN's region", lacnic.net "coverage area", ripe.net "list of
//! country codes and RIRs"), which together name every code of ISO 3166-1 once; and XK, by which databases call Kosovo.
//! An address may be registered elsewhere than where it is used: what counts here is the country.

use super::record::Region;

/// Codes of ISO 3166-1 by region.
const BY_REGION: [(Region, &str); 5] = [
    (
        Region::Afrinic,
        "AO BF BI BJ BW CD CF CG CI CM CV DJ DZ EG EH ER ET GA GH GM GN GQ GW KE KM LR LS LY MA MG ML MR MU MW MZ \
         NA NE NG RE RW SC SD SL SN SO SS ST SZ TD TG TN TZ UG YT ZA ZM ZW",
    ),
    (
        Region::Apnic,
        "AF AS AU BD BN BT CC CK CN CX FJ FM GU HK ID IN IO JP KH KI KP KR LA LK MH MM MN MO MP MV MY NC NF NP NR \
         NU NZ PF PG PH PK PN PW SB SG TF TH TK TL TO TV TW VN VU WF WS",
    ),
    (
        Region::Arin,
        "AG AI AQ BB BL BM BS BV CA DM GD GP HM JM KN KY LC MF MQ MS PM PR SH TC UM US VC VG VI",
    ),
    (
        Region::Lacnic,
        "AR AW BO BQ BR BZ CL CO CR CU CW DO EC FK GF GS GT GY HN HT MX NI PA PE PY SR SV SX TT UY VE",
    ),
    (
        Region::Ripe,
        "AD AE AL AM AT AX AZ BA BE BG BH BY CH CY CZ DE DK EE ES FI FO FR GB GE GG GI GL GR HR HU IE IL IM IQ IR \
         IS IT JE JO KG KW KZ LB LI LT LU LV MC MD ME MK MT NL NO OM PL PS PT QA RO RS RU SA SE SI SJ SK SM SY TJ \
         TM TR UA UZ VA XK YE",
    ),
];

/// The region of a country, by its code in upper case; `None` for what is none.
pub fn region_of(country: &str) -> Option<Region> {
    let is_code = country.len() == 2;
    let found = BY_REGION
        .iter()
        .find(|(_, codes)| is_code && codes.split(' ').any(|code| code == country));
    found.map(|(region, _)| *region)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The codes of ISO 3166-1 alpha-2, as Debian's iso-codes has them.
    const ISO_3166: &str = "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO \
BQ BR BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER \
ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN \
IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH \
MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN \
PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ \
TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

    #[test]
    fn every_country_is_in_one_region() {
        let all: BTreeSet<&str> = ISO_3166.split(' ').collect();
        assert_eq!(all.len(), 249);
        let listed: Vec<&str> = BY_REGION
            .iter()
            .flat_map(|(_, codes)| codes.split(' '))
            .collect();
        let once: BTreeSet<&str> = listed.iter().copied().collect();
        assert_eq!(listed.len(), once.len(), "a country stands twice");
        let others: Vec<&&str> = once.symmetric_difference(&all).collect();
        assert_eq!(others, [&"XK"]);
        for (region, codes) in BY_REGION {
            assert!(codes.split(' ').is_sorted(), "{region:?}");
        }
        // As ARIN counts its own.
        assert_eq!(BY_REGION[2].1.split(' ').count(), 29);
    }

    #[test]
    fn regions_are_those_of_the_registries() {
        for (country, region) in [
            ("DE", Some(Region::Ripe)),
            ("US", Some(Region::Arin)),
            ("SG", Some(Region::Apnic)),
            ("BR", Some(Region::Lacnic)),
            ("ZA", Some(Region::Afrinic)),
            ("TR", Some(Region::Ripe)),
            ("MX", Some(Region::Lacnic)),
            ("PR", Some(Region::Arin)),
            ("KZ", Some(Region::Ripe)),
            ("de", None),
            ("ZZ", None),
            ("", None),
            ("D", None),
            ("E F", None),
            (" ", None),
        ] {
            assert_eq!(region_of(country), region, "{country}");
        }
    }
}
