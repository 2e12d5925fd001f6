//! Verdicts and reasons: the words that log, report, metrics and tests share.
//!
//! Every connection ends with exactly one of each. Nothing here decides; it only names.

use std::fmt;

/// The gate's answer, in nftables' words.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The peer got what a validation may get, or was shown the way to HTTPS.
    Accept,
    /// The peer got a refusal, or nothing at all.
    Drop,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident, $word:literal, $verdict:ident, $status:expr;)*) => {
        /// Why a connection ended as it did.
        #[must_use]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The one word for logs, metrics and reports.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The verdict that this reason belongs to.
            pub fn verdict(self) -> Verdict {
                match self { $(Self::$name => Verdict::$verdict,)* }
            }

            /// The HTTP status that a refusal is answered with; `None` closes without a word.
            /// For accepting reasons the answer itself knows its status.
            pub fn status(self) -> Option<u16> {
                match self { $(Self::$name => $status,)* }
            }
        }
    };
}

reasons! {
    /// A key authorization was answered.
    Answered, "answered", Accept, Some(200);
    /// Everything but a challenge is sent to HTTPS.
    Redirected, "redirected", Accept, None;
    /// A TLS handshake, and nothing but it, was carried to a responder and back.
    Relayed, "relayed", Accept, None;
    /// A visitor from the allow-list was led to the site's server.
    Passed, "passed", Accept, None;

    /// No lease lives and the peer is not on the allow-list.
    NoLease, "no-lease", Drop, None;
    /// The window that admitted the peer closed, and its grace ended.
    WindowClosed, "window-closed", Drop, None;
    /// One source holds too many connections.
    SourceLimit, "source-limit", Drop, None;
    /// All sources together hold too many connections.
    TotalLimit, "total-limit", Drop, None;
    /// The peer went away before its head was complete, or before it took its answer.
    PeerGone, "peer-gone", Drop, None;
    /// acmegate stopped before the connection had come to its end.
    Stopping, "stopping", Drop, None;
    /// The head was not complete in time.
    HeadTimeout, "head-timeout", Drop, Some(408);
    /// TLS, HTTP/2, HTTP/0.9 or `Upgrade: h2c`: no HTTP/1 to answer in.
    NotHttp1, "not-http1", Drop, None;
    /// A line end, field or version that RFC 9112 does not allow, or allows and we do not.
    MalformedHead, "malformed-head", Drop, Some(400);
    /// The head has more than 8 KiB or 64 lines.
    HeadTooLarge, "head-too-large", Drop, Some(431);
    /// The target is longer than a challenge or a redirect can be.
    TargetTooLong, "target-too-long", Drop, Some(414);
    /// Another method than GET and HEAD.
    Method, "method", Drop, Some(405);
    /// Not origin-form, or an octet that no target may have.
    TargetForm, "target-form", Drop, Some(400);
    /// A body was announced where none may be.
    Body, "body", Drop, Some(400);
    /// The bytes of a peer that must tell by the PROXY protocol whom it speaks for do not.
    ProxyHeader, "proxy-header", Drop, None;
    /// The fields of a peer that must tell whom it speaks for do not.
    Forwarded, "forwarded", Drop, Some(400);
    /// No validation, and the peer is not on the allow-list.
    NotAllowed, "not-allowed", Drop, Some(403);
    /// No TLS, where nothing else is spoken.
    NotTls, "not-tls", Drop, None;
    /// A ClientHello that is not as RFC 8446 §4.1.2 and RFC 5246 §7.4.1.2 have it.
    MalformedHello, "malformed-hello", Drop, None;
    /// A ClientHello of more than 16 KiB.
    HelloTooLarge, "hello-too-large", Drop, None;
    /// The ClientHello was not complete in time.
    HelloTimeout, "hello-timeout", Drop, None;
    /// `acme-tls/1` beside other names: no validator offers that.
    MixedAlpn, "mixed-alpn", Drop, None;
    /// A validation that announces data before its handshake is complete.
    EarlyData, "early-data", Drop, None;
    /// A validation without a server name.
    NoServerName, "no-server-name", Drop, None;
    /// A server name that is neither an LDH name nor the reverse name of an address.
    MalformedServerName, "malformed-server-name", Drop, None;
    /// Nobody announced an answer by TLS-ALPN-01 for this identifier.
    NoAnswer, "no-answer", Drop, None;
    /// The handshake with our responder came to no good end.
    HandshakeFailed, "handshake-failed", Drop, None;
    /// More than a handshake was sent to a responder.
    NotHandshake, "not-handshake", Drop, None;
    /// A visitor asks for a name for which no server is configured.
    NoServer, "no-server", Drop, None;
    /// No Host field, or more than one.
    HostCount, "host-count", Drop, Some(400);
    /// The Host field holds neither an LDH name nor a canonical address.
    MalformedHost, "malformed-host", Drop, Some(400);
    /// No site has this identifier.
    UnknownHost, "unknown-host", Drop, Some(421);
    /// The site redirects nowhere.
    NoRedirect, "no-redirect", Drop, Some(404);
    /// The challenge path is followed by something that is not a token.
    MalformedToken, "malformed-token", Drop, Some(404);
    /// Nobody announced this token for this identifier.
    UnknownToken, "unknown-token", Drop, Some(404);
    /// The token may only be asked for while a window covers its identifier.
    NotCovered, "not-covered", Drop, Some(404);
    /// The file is there but is not this token's key authorization (yet), or not a plain file.
    UnfitFile, "unfit-file", Drop, Some(404);
    /// The webroot could not be read in time, or at all.
    WebrootFailed, "webroot-failed", Drop, Some(503);
    /// The answer belongs to an ACME account that the site does not name.
    ForeignAccount, "foreign-account", Drop, Some(404);
    /// The upstream could not be reached, or went away without an answer.
    UpstreamGone, "upstream-gone", Drop, Some(502);
    /// The upstream answered something else than 200 and exactly the key authorization.
    UpstreamLied, "upstream-lied", Drop, Some(502);
    /// The upstream does not have this token.
    UpstreamUnknown, "upstream-unknown", Drop, Some(404);
    /// The upstream did not answer in time.
    UpstreamSlow, "upstream-slow", Drop, Some(504);
    /// Too many requests wait for this upstream.
    UpstreamBusy, "upstream-busy", Drop, Some(503);
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
        })
    }
}
