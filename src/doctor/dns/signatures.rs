//! What is wrong with signatures that do not hold, and when those end that do (RFC 4034, RFC 4035).
//!
//! That they do not hold was found by the validator; here is looked for the likeliest reason.

use hickory_net::proto::dnssec::rdata::{DNSKEY, DNSSECRData, DS, RRSIG};
use hickory_net::proto::rr::{Name, RData, Record, RecordType};

use super::chain::Lookup;
use super::words::{list, name};
use crate::observe::report::words::many;

/// Signatures that end sooner than this should have been made anew: signers do so days ahead.
const SOON: u32 = 24 * 3600;

/// Why it does not hold, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) evidence: String,
    pub(super) remedy: String,
}

/// Looks for the reason why a name's records of a type do not hold; `now` is in seconds after 1970.
pub(super) async fn reason(lookup: &Lookup, owner: &Name, kind: RecordType, now: u32) -> Reason {
    let zone = lookup.zone_of(owner).await.unwrap_or_else(|| owner.clone());
    let (keys, delegation, records) = tokio::join!(
        lookup.raw(&zone, RecordType::DNSKEY),
        lookup.raw(&zone, RecordType::DS),
        lookup.raw(owner, kind),
    );
    let shown = name(&zone);
    let sign_again = format!(
        "have {shown} signed anew and see why its signer stopped: `knotc zone-sign {shown}`, `rndc sign {shown}` or as your provider has it"
    );
    let ds: Vec<&DS> = delegation.iter().filter_map(as_ds).collect();
    let dnskeys: Vec<&DNSKEY> = keys.iter().filter_map(as_key).collect();
    let in_parent: Vec<u16> = ds.iter().map(|one| one.key_tag()).collect();
    if !ds.is_empty() && dnskeys.is_empty() {
        return Reason {
            evidence: format!(
                "the zone above {shown} says that it is signed, with key {}, and {shown} has no keys",
                list(&in_parent)
            ),
            remedy: format!("have {shown} signed, or have the registrar take its DS record out"),
        };
    }
    let covers = |one: &&DS| {
        dnskeys
            .iter()
            .any(|key| matches!(one.covers(&zone, key), Ok(true)))
    };
    if !ds.is_empty() && !ds.iter().any(covers) {
        let own: Vec<u16> = dnskeys
            .iter()
            .filter_map(|key| key.calculate_key_tag().ok())
            .collect();
        return Reason {
            evidence: format!(
                "the zone above {shown} has a DS record for key {}, and {shown} has the keys {}",
                list(&in_parent),
                list(&own)
            ),
            remedy: format!(
                "give the registrar the DS record of {shown}'s present key: `keymgr {shown} ds`, `dnssec-dsfromkey`, or as your provider shows it"
            ),
        };
    }
    let signatures = keys.iter().chain(&records).filter_map(as_signature);
    for signature in signatures {
        let input = signature.input();
        let (from, until) = (input.sig_inception.get(), input.sig_expiration.get());
        let what = format!("the signature over {} of {shown}", input.type_covered);
        if is_before(until, now) {
            return Reason {
                evidence: format!("{what} ended {} ago", ago(now.wrapping_sub(until))),
                remedy: sign_again,
            };
        }
        if is_before(now, from) {
            return Reason {
                evidence: format!("{what} begins in {} only", ago(from.wrapping_sub(now))),
                remedy: "set the clock right, of this host or of the one that signs".to_owned(),
            };
        }
    }
    let is_signed = records.iter().any(|record| as_signature(record).is_some());
    let evidence = match is_signed || records.is_empty() {
        true => {
            format!("there are signatures of {shown}, and they do not fit what they are to prove")
        }
        false => format!(
            "{shown} is signed, and its answer for {kind} of {} has no signature",
            name(owner)
        ),
    };
    Reason {
        evidence,
        remedy: sign_again,
    }
}

/// In how many seconds the first of a name's signatures ends, if that is soon.
pub(super) async fn ends_soon(
    lookup: &Lookup,
    owner: &Name,
    kind: RecordType,
    now: u32,
) -> Option<u32> {
    let zone = lookup.zone_of(owner).await?;
    let (keys, records) = tokio::join!(
        lookup.raw(&zone, RecordType::DNSKEY),
        lookup.raw(owner, kind)
    );
    let signatures = keys.iter().chain(&records).filter_map(as_signature);
    let left = signatures.map(|signature| signature.input().sig_expiration.get().wrapping_sub(now));
    left.min().filter(|left| *left < SOON)
}

/// When a record's signature ends, if it is one.
pub(super) fn ends(record: &Record) -> Option<u32> {
    as_signature(record).map(|signature| signature.input().sig_expiration.get())
}

/// A length of time as it is said.
pub(super) fn ago(seconds: u32) -> String {
    match seconds {
        0..7200 => many(seconds / 60, "minute"),
        7200..172_800 => format!("{} hours", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Serial number arithmetic (RFC 4034 §3.1.5).
pub(super) fn is_before(one: u32, other: u32) -> bool {
    let distance = other.wrapping_sub(one);
    distance != 0 && distance < 1 << 31
}

fn as_signature(record: &Record) -> Option<&RRSIG> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::RRSIG(signature)) => Some(signature),
        _ => None,
    }
}

fn as_ds(record: &Record) -> Option<&DS> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::DS(ds)) => Some(ds),
        _ => None,
    }
}

fn as_key(record: &Record) -> Option<&DNSKEY> {
    match &record.data {
        RData::DNSSEC(DNSSECRData::DNSKEY(key)) => Some(key),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_compared_around_the_end_of_their_numbers() {
        assert!(is_before(1, 2) && !is_before(2, 1) && !is_before(2, 2));
        assert!(is_before(u32::MAX, 5) && !is_before(5, u32::MAX));
        assert_eq!(ago(119), "1 minute");
        assert_eq!(ago(180), "3 minutes");
        assert_eq!(ago(7200), "2 hours");
        assert_eq!(ago(172_800), "2 days");
    }
}
