//! Our own table in the twin: shut and open it does to packets what the kernel's own would.
