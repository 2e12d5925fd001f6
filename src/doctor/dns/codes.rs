//! The words of this exam's findings, as docs/doctor.md explains them.

crate::findings! {
    Dns:
    /// There is no such name.
    NAME_MISSING = "name-missing";
    /// The name has neither A nor AAAA.
    NO_ADDRESS = "no-address";
    /// The resolvers could not find the name's addresses out.
    LOOKUP_FAILED = "lookup-failed";
    /// The name's addresses are this host's.
    POINTS_HERE = "points-here";
    /// None of the name's addresses is this host's.
    POINTS_ELSEWHERE = "points-elsewhere";
    /// Some addresses of one family are not this host's.
    SOME_ELSEWHERE = "some-elsewhere";
    /// A is right, AAAA is somebody else's.
    IPV6_ELSEWHERE = "ipv6-elsewhere";
    /// A is right, and nobody answers at AAAA.
    IPV6_DEAD = "ipv6-dead";
    /// AAAA is right, A is somebody else's.
    IPV4_ELSEWHERE = "ipv4-elsewhere";
    /// The name has an address that no CA contacts.
    PRIVATE_ADDRESS = "private-address";
    /// Whether a public address leads to this host's private one is not known.
    BEHIND_NAT = "behind-nat";
    /// The chain of signatures is broken.
    DNSSEC_BOGUS = "dnssec-bogus";
    /// Signatures end soon.
    DNSSEC_EXPIRING = "dnssec-expiring";
    /// The chain of signatures is whole, or there is none and none has to be.
    DNSSEC_FINE = "dnssec-fine";
    /// A server of the zone does not serve it.
    SERVER_LAME = "server-lame";
    /// A server of the zone has an old version of it, whose signatures have ended.
    SERVER_STALE = "server-stale";
    /// A server of the zone does not answer.
    SERVER_SILENT = "server-silent";
    /// A server of the zone answers by UDP alone.
    TCP_SHUT = "tcp-shut";
    /// A server of the zone has no address.
    SERVER_WITHOUT_ADDRESS = "server-without-address";
    /// The parent zone has to say where a server is, and does not.
    MISSING_GLUE = "missing-glue";
    /// The zone's servers give different answers.
    SERVERS_DISAGREE = "servers-disagree";
    /// The zone's servers have different versions of it.
    SERIALS_DIFFER = "serials-differ";
    /// The parent zone names other servers than the zone itself.
    DELEGATION_DIFFERS = "delegation-differs";
    /// All of the zone's servers answer, by UDP and TCP.
    SERVERS_FINE = "servers-fine";
    /// Whether a CA may issue could not be looked up, so none does.
    CAA_FAILED = "caa-failed";
    /// CAA records forbid the CA.
    CAA_FORBIDS = "caa-forbids";
    /// CAA records forbid the method of validation.
    CAA_FORBIDS_METHOD = "caa-forbids-method";
    /// CAA records forbid the account.
    CAA_FORBIDS_ACCOUNT = "caa-forbids-account";
    /// CAA records allow one account, and which one is used is not known.
    CAA_ACCOUNT = "caa-account";
    /// CAA records forbid a wildcard certificate.
    CAA_FORBIDS_WILDCARD = "caa-forbids-wildcard";
    /// CAA records allow what is wanted.
    CAA_FINE = "caa-fine";
    /// There are no CAA records.
    CAA_ABSENT = "caa-absent";
    /// `_acme-challenge` is an alias.
    CHALLENGE_DELEGATED = "challenge-delegated";
    /// `_acme-challenge` is an alias of nothing.
    CHALLENGE_DANGLING = "challenge-dangling";
    /// A dns-persist-01 record counts.
    PERSIST_FINE = "persist-fine";
    /// A dns-persist-01 record is expected, and not there or not to be looked up.
    PERSIST_MISSING = "persist-missing";
    /// A dns-persist-01 record is not what it has to be.
    PERSIST_WRONG = "persist-wrong";
    /// A dns-persist-01 record ends soon.
    PERSIST_EXPIRING = "persist-expiring";
    /// A dns-persist-01 record has ended.
    PERSIST_EXPIRED = "persist-expired";
}
