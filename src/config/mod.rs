//! Reads: the operator's words into values that cannot be wrong.
