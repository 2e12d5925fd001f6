//! Knows: where key authorizations come from.
