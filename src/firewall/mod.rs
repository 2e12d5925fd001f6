//! Enforces: what the kernel is told.
