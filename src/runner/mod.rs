//! Runs: the commands that the configuration names, and nothing else.
//!
//! The runner is a process of its own and exists only if there are commands. It executes exactly
//! the argument lists that are written there, without a shell, each with a deadline; what the front
//! says decides only whether the opening or the closing one is run, and for which lease, configured
//! ports and length. It listens nowhere and reads no byte that came from the Internet.
//!
//! | file | |
//! | --- | --- |
//! | `book.rs` | what was opened, and what is still to be closed; pure |
//! | `message.rs` | what front and runner say to each other |
//! | `notice.rs` | notifications, beside everything else |
//! | `program.rs` | one program, from its start to its end |
//! | `state.rs` | what survives every process |
//! | `serve.rs` | the process that ties them together |

pub mod book;
pub mod message;
pub mod notice;
pub mod program;
pub mod serve;
pub mod state;
