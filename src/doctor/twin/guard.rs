//! Our own table in the twin: as it was copied, or as the enforcer would install it; with the window shut and
//! open.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::order::Window;
use crate::firewall::error::KernelError;
use crate::firewall::netlink::Kernel;
use crate::firewall::ruleset::{Mode, Settings};
use crate::gate::lease::{Entrance, Families, Lease, LeaseName, Scope, Trigger};
use crate::gate::window::Windows;

/// Whoever is answered here stays half-open for a second.
pub const BACKLOG: i32 = 4096;
/// Longer than any twin lives.
const LENGTH: Duration = Duration::from_secs(600);

/// Our table, and who changes it.
pub struct Guard {
    kernel: Kernel,
    settings: Settings,
    /// What peers are diverted to: without a listener nobody is.
    _listeners: Vec<Socket>,
}

impl Guard {
    /// Takes our table over in the namespace that the calling thread is in; puts it there if it `is_missing`.
    ///
    /// # Errors
    /// [`KernelError`]: most of all a set or chain of the administrator's that is not there.
    pub async fn prepare(settings: Settings, is_missing: bool) -> Result<Self, KernelError> {
        let mut kernel = Kernel::connect()?;
        if is_missing {
            let none = Windows::default();
            kernel.ensure_whole(&settings, &none, now()).await?;
        }
        let listeners = settings.divert.iter().flat_map(|divert| {
            let loopbacks = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            loopbacks.map(|address| listener(SocketAddr::new(address, divert.to)))
        });
        let listeners = listeners.filter_map(Result::ok).collect();
        Ok(Self {
            kernel,
            settings,
            _listeners: listeners,
        })
    }

    /// Shuts or opens the window.
    ///
    /// # Errors
    /// [`KernelError`].
    pub async fn set(&self, window: Window) -> Result<(), KernelError> {
        let mut windows = Windows::default();
        match window {
            Window::AsItStands => return Ok(()),
            Window::Shut => {}
            Window::Open => windows.adopt(self.lease()),
        }
        if self.settings.mode == Mode::GateOnly {
            return Ok(());
        }
        self.kernel.rewrite(&self.settings, &windows, now()).await
    }

    fn lease(&self) -> Lease {
        Lease {
            id: 0,
            name: LeaseName::parse("twin").unwrap_or_else(|| unreachable!("a name of letters")),
            holder: None,
            caller: 0,
            trigger: Trigger::Asked,
            scope: Scope {
                ports: self.settings.ports.clone(),
                families: Families::BOTH,
                entrance: Entrance::Any,
                identifiers: None,
            },
            deadline: now() + LENGTH,
        }
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// One that TPROXY finds; it answers, and accepts nobody.
fn listener(at: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    match at {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_ip_transparent_v6(true)?;
        }
    }
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}
