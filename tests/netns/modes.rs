//! The ways in which the kernel is asked, each with a firewall of the host that goes with it.

use crate::killed::SET_BY_ADMINISTRATOR;
use crate::lab;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Guard,
    Set,
}

impl Mode {
    pub const ALL: [Self; 2] = [Self::Guard, Self::Set];

    /// Loads the administrator's firewall on the calling host. Gives the table `[firewall]` for it,
    /// with `more` in it.
    pub fn on_this_host(self, more: &str) -> String {
        let (firewall, words) = match self {
            Self::Guard => ("", "mode = \"guard\"\n"),
            Self::Set => (
                SET_BY_ADMINISTRATOR,
                "mode = \"set\"\nset = \"inet filter acmegate\"\n",
            ),
        };
        lab::nft(firewall);
        format!("[firewall]\n{words}{more}")
    }
}
