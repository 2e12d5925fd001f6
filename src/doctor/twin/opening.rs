//! One opening, proved: the world knocks at the ports of a lease, by the way that it opens, and at nothing else.

use std::time::Duration;

use super::entrances::doors;
use super::exam::{Runs, open_findings};
use super::order::{Order, Source, Window};
use super::visits::visits;
use super::{TwinError, prove};
use crate::doctor::finding::{Area, Exam, Finding};
use crate::firewall::ruleset::{Mode, Settings};
use crate::gate::allow_list::AllowList;
use crate::gate::lease::{Entrance, Families, Family};

/// What a lease opens.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Its ports.
    pub ports: Vec<u16>,
    /// Its families.
    pub families: Families,
    /// By which address or interface.
    pub entrance: Entrance,
    /// [`Window::AsItStands`] for one that is open, [`Window::Open`] for one that would be.
    pub window: Window,
}

/// Has the world knock, and says what it found: for each port and family whether it passes, and what is in its way.
/// What the twin cannot carry stands in no finding, but in the second part, a line each.
///
/// # Errors
/// [`TwinError`]; then nothing is proved.
pub async fn prove_opening(
    settings: &Settings,
    allow: &AllowList,
    opening: &Opening,
    patience: Duration,
) -> Result<(Vec<Finding>, Vec<String>), TwinError> {
    let broken = |error| TwinError::Broken(format!("{error}"));
    let mut doors = doors().await.map_err(broken)?;
    doors.retain(|door| {
        let is_wanted = match &opening.entrance {
            Entrance::Any => true,
            Entrance::Address(address) => door.address == *address,
            Entrance::Interface(interface) => door.interface == interface.name(),
        };
        is_wanted && opening.families.has(Family::of(door.address))
    });
    if doors.is_empty() {
        return Err(TwinError::Broken(
            "no interface that is opened has an address that the Internet could ask for".to_owned(),
        ));
    }
    let visits = visits(&doors, &opening.ports, allow);
    let windows = [opening.window];
    let order = Order {
        source: Source::Live,
        settings: (settings.mode != Mode::GateOnly).then(|| settings.clone()),
        windows: windows.to_vec(),
        knocks: visits.iter().map(|visit| visit.knock.clone()).collect(),
        patience,
    };
    let answer = prove(&order).await?;
    let mut exam = Exam::of(Area::Firewall);
    open_findings(&mut exam, &Runs::of_open(&visits, &answer));
    let untold = [answer.not_carried, exam.not_covered].concat();
    Ok((exam.findings, untold))
}
