//! What is ours in the kernel is called, and how much of it there may be. Nothing here does anything.

use std::time::Duration;

use crate::gate::lease::MAX_PORTS;
use crate::gate::window::MAX_LEASES;

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
/// The count of first packets that came while their window was open.
pub const ARRIVED_COUNTER: &str = "arrived";
/// The count of those of them that went into a `seen` set.
pub const KEPT_COUNTER: &str = "kept";
/// The ports that the administrator's set holds because of us (mode `set`).
pub const OPENED_SET: &str = "opened";
/// The most openings that the kernel remembers; above the largest budget that can be configured.
pub const BUDGET_SET_SIZE: u32 = 4096;
/// The most slots of time that the kernel remembers; above what all accounts can have, so that a slot
/// can take the place of one that the kernel has not swept out yet.
pub const USAGE_SET_SIZE: u32 = 1024;
/// The most doors by address or interface that are open at a time, of each family: every lease may have its own.
pub const OPEN_DOORS_SIZE: u32 = (MAX_LEASES * MAX_PORTS) as u32;
/// The most of them that are open or in their grace: above what the largest budget opens in an hour.
pub const GRACE_DOORS_SIZE: u32 = BUDGET_SET_SIZE * MAX_PORTS as u32;
/// What rules of ours in somebody else's chains are known by.
pub const TAG: &str = "acmegate";
/// The most sources and ports that a set of evidence holds. With [`KEPT_FOR`] and the rate at which
/// rules fill `seen` (2,000 a second) it cannot get full.
pub const EVIDENCE_SET_SIZE: u32 = 65_535;
/// How long a source stays in a set of evidence after its last packet.
pub const KEPT_FOR: Duration = Duration::from_secs(30);
/// The most sources whose next packet is traced, of each family.
pub const TRACE_SET_SIZE: u32 = 64;
