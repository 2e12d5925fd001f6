//! What is ours in the kernel is called, and how much of it there may be. Nothing here does anything.

/// Our table, in family `inet`.
pub const TABLE: &str = "acmegate";
/// Who holds which lease. No rule reads it.
pub const LEASE_SET: &str = "lease";
/// By which way a lease opens, where it does not open all of them. No rule reads it.
pub const ENTRANCE_SET: &str = "entrance";
/// The openings of the last hour. No rule reads it.
pub const BUDGET_SET: &str = "budget";
/// For how long windows were open, by whom. No rule reads it.
pub const USAGE_SET: &str = "usage";
/// The ports that the administrator's set holds because of us (mode `set`).
pub const OPENED_SET: &str = "opened";
/// The most openings that the kernel remembers; above the largest budget that can be configured.
pub const BUDGET_SET_SIZE: u32 = 4096;
/// The most slots of time that the kernel remembers; above what all accounts can have, so that a slot
/// can take the place of one that the kernel has not swept out yet.
pub const USAGE_SET_SIZE: u32 = 1024;
/// What rules of ours in somebody else's chains are known by.
pub const TAG: &str = "acmegate";
