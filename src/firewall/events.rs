//! What the kernel tells of changes to the ruleset: who committed them, and whether they touched
//! what is ours. Nothing is done about it here.

use nlink::netlink::nftables::{Family as NftFamily, NftablesEvent, NftablesGroup};
use nlink::netlink::{Connection, Nftables};

use super::error::KernelError;
use super::names::TABLE;

/// How much may wait to be read: each element that we write ourselves comes back as an event, and a
/// full book has a thousand, of which the kernel counts each as a kilobyte or less. Where the system
/// grants less, events may be lost, which is taken for somebody's doing and looked after.
const EVENT_BYTES: usize = 1024 * 1024;

/// Somebody else's batch of changes, put together from its events.
#[derive(Debug)]
pub(super) struct Batch {
    own_name: String,
    touches_our_elements: bool,
}

/// Who committed a batch, and whether elements of our own sets were in it.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) name: String,
    pub(super) touched_our_elements: bool,
    /// There were more events than could be heard: what was in them is not known.
    pub(super) were_lost: bool,
}

impl Committed {
    /// Both, to be looked after at once; who came last is named.
    pub(super) fn and(self, later: Self) -> Self {
        Self {
            name: later.name,
            touched_our_elements: self.touched_our_elements || later.touched_our_elements,
            were_lost: self.were_lost || later.were_lost,
        }
    }
}

impl Batch {
    /// An empty batch; what a process of this name commits is not somebody else's.
    pub(super) fn of_others_than(own_name: String) -> Self {
        Self {
            own_name,
            touches_our_elements: false,
        }
    }

    /// The end of a batch that is not our own doing.
    pub(super) fn committed_by(
        &mut self,
        change: Option<nlink::Result<NftablesEvent>>,
    ) -> Option<Committed> {
        match change {
            Some(Ok(NftablesEvent::NewGen(generation))) => {
                let touched_our_elements = std::mem::take(&mut self.touches_our_elements);
                // The kernel tells the pid of the first namespace, which in a container is not the
                // one that we know; the name is the same everywhere.
                let is_ours = generation.pid == Some(std::process::id())
                    || generation.proc_name.as_ref() == Some(&self.own_name);
                (!is_ours).then(|| Committed {
                    name: generation
                        .proc_name
                        .unwrap_or_else(|| "somebody".to_owned()),
                    touched_our_elements,
                    were_lost: false,
                })
            }
            Some(Ok(
                NftablesEvent::NewSetElements(event) | NftablesEvent::DelSetElements(event),
            )) => {
                self.touches_our_elements |=
                    event.family == NftFamily::Inet && event.table == TABLE;
                None
            }
            Some(Ok(_)) => None,
            Some(Err(_)) | None => Some(Committed {
                name: "somebody (events were lost)".to_owned(),
                touched_our_elements: std::mem::take(&mut self.touches_our_elements),
                were_lost: true,
            }),
        }
    }
}

/// A second socket, on which the kernel tells of every change to the ruleset.
pub struct Events {
    connection: Connection<Nftables>,
}

impl Events {
    pub(super) fn subscribe() -> Result<Self, KernelError> {
        let refused =
            |error| KernelError::Refused("subscribing to ruleset events", Box::new(error));
        let connection = Connection::<Nftables>::new().map_err(refused)?;
        let room = connection.socket().set_rcvbuf(EVENT_BYTES);
        room.map_err(refused)?;
        connection
            .subscribe(&[NftablesGroup::All])
            .map_err(refused)?;
        Ok(Self { connection })
    }

    pub(super) async fn stream(
        &self,
    ) -> impl tokio_stream::Stream<Item = nlink::Result<NftablesEvent>> + '_ {
        self.connection.events().await
    }
}
