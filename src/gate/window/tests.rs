use proptest::prelude::*;

use super::super::lease::{Families, Family, Interface, Scope, Trigger};
use super::super::usage::{Span, TimeLimits};
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn limits() -> Limits {
    Limits {
        ports: vec![80, 443],
        max: 10 * MINUTE,
        budget: Budget {
            per_hour: 10,
            per_caller: 4,
            reserve: 3,
            time: TimeLimits::default(),
        },
    }
}

fn lease(name: &str, deadline: Instant) -> Lease {
    Lease {
        id: 0,
        name: LeaseName::parse(name).unwrap(),
        holder: None,
        caller: 0,
        trigger: Trigger::Asked,
        scope: Scope {
            ports: vec![80],
            families: Families::BOTH,
            entrance: Entrance::Any,
            identifiers: None,
        },
        deadline,
    }
}

fn door(family: Family, port: u16) -> Door {
    Door {
        family,
        port,
        entrance: Entrance::Any,
    }
}

#[test]
fn a_lease_of_one_address_or_interface_opens_that_alone() {
    let now = Instant::now();
    let mut windows = Windows::default();
    let entrances = [
        Entrance::Address("192.0.2.1".parse().unwrap()),
        Entrance::Interface(Interface::parse("eth0").unwrap().numbered(2)),
    ];
    for (name, entrance) in ["address", "interface"].into_iter().zip(&entrances) {
        let mut lease = lease(name, now + MINUTE);
        lease.scope.entrance = entrance.clone();
        windows.acquire(lease, &limits(), now).unwrap();
    }
    let at = |family, entrance: &Entrance| Door {
        entrance: entrance.clone(),
        ..door(family, 80)
    };
    let [address, interface] = &entrances;
    for (door, is_open) in [
        (door(Family::V4, 80), false),
        (at(Family::V4, address), true),
        (at(Family::V6, address), false),
        (at(Family::V4, interface), true),
        (at(Family::V6, interface), true),
    ] {
        assert_eq!(
            windows.open_until(&door, now).is_some(),
            is_open,
            "{door:?}"
        );
        assert_eq!(windows.admitted_until(&door, now).is_some(), is_open);
    }
    assert_eq!(windows.doors().len(), 3);
    assert!(windows.ask_for_addresses());
}

#[test]
fn an_address_of_another_family_is_refused() {
    let now = Instant::now();
    let mut lease = lease("a", now + MINUTE);
    lease.scope.entrance = Entrance::Address("2001:db8::1".parse().unwrap());
    lease.scope.families.v6 = false;
    let refused = Windows::default().acquire(lease, &limits(), now);
    assert_eq!(refused, Err(Refusal::Family));
}

#[test]
fn a_second_lease_keeps_the_window_open() {
    let now = Instant::now();
    let mut windows = Windows::default();
    windows
        .acquire(lease("a", now + MINUTE), &limits(), now)
        .unwrap();
    windows
        .acquire(lease("b", now + 2 * MINUTE), &limits(), now)
        .unwrap();
    windows.release(&LeaseName::parse("a").unwrap(), now);
    assert_eq!(
        windows.open_until(&door(Family::V6, 80), now),
        Some(now + 2 * MINUTE)
    );
    windows.release(&LeaseName::parse("b").unwrap(), now);
    assert_eq!(windows.open_until(&door(Family::V4, 80), now), None);
    assert_eq!(
        windows.admitted_until(&door(Family::V4, 80), now),
        Some(now + GRACE)
    );
}

#[test]
fn what_a_renewal_leaves_out_shuts_now_and_has_its_grace() {
    let now = Instant::now();
    let mut windows = Windows::default();
    let mut both = lease("a", now + MINUTE);
    both.scope.ports = vec![80, 443];
    windows.acquire(both, &limits(), now).unwrap();
    windows
        .acquire(lease("a", now + 2 * MINUTE), &limits(), now)
        .unwrap();
    let of_443 = door(Family::V4, 443);
    assert_eq!(windows.open_until(&of_443, now), None);
    assert_eq!(windows.admitted_until(&of_443, now), Some(now + GRACE));
    assert!(windows.doors().contains(&of_443));
}

#[test]
fn an_expired_lease_gives_its_grace_before_and_after_it_is_swept_out() {
    let now = Instant::now();
    let mut windows = Windows::default();
    windows.adopt(lease("a", now + MINUTE));
    let (end, until) = (now + MINUTE, now + MINUTE + GRACE);
    for is_swept in [false, true] {
        if is_swept {
            windows.expire(end);
        }
        assert_eq!(windows.open_until(&door(Family::V4, 80), end), None);
        assert_eq!(
            windows.admitted_until(&door(Family::V4, 80), end),
            Some(until)
        );
        assert_eq!(windows.admitted_until(&door(Family::V4, 80), until), None);
    }
}

#[test]
fn bounds_are_refused_and_change_nothing() {
    let now = Instant::now();
    let mut windows = Windows::default();
    let with = |change: &dyn Fn(&mut Lease)| {
        let mut lease = lease("a", now + MINUTE);
        change(&mut lease);
        lease
    };
    let cases = [
        (with(&|lease| lease.scope.ports = vec![22]), Refusal::Port),
        (with(&|lease| lease.scope.ports = vec![]), Refusal::Port),
        (
            with(&|lease| lease.scope.ports = vec![80; 5]),
            Refusal::Port,
        ),
        (
            with(&|lease| {
                lease.scope.families = Families {
                    v4: false,
                    v6: false,
                }
            }),
            Refusal::Family,
        ),
        (with(&|lease| lease.deadline = now), Refusal::Length),
        (
            with(&|lease| lease.deadline = now + 11 * MINUTE),
            Refusal::Length,
        ),
    ];
    for (lease, refusal) in cases {
        assert_eq!(windows.acquire(lease, &limits(), now), Err(refusal));
        assert_eq!(windows.leases().count() + windows.openings().len(), 0);
    }
}

#[test]
fn roots_reserve_is_not_used_up_by_others() {
    let now = Instant::now();
    let mut windows = Windows::default();
    let mut given = 0;
    for caller in [1000, 1001, 1002] {
        for _ in 0..10 {
            let mut lease = lease("a", now + MINUTE);
            lease.caller = caller;
            given += u32::from(windows.acquire(lease, &limits(), now).is_ok());
        }
    }
    assert_eq!(
        given, 7,
        "4 for the first caller, 3 for the second, then the reserve begins"
    );
    let mut automatic = lease("a", now + MINUTE);
    automatic.trigger = Trigger::Automatic;
    assert_eq!(
        windows.acquire(automatic, &limits(), now),
        Err(Refusal::Budget)
    );
    for _ in 0..3 {
        windows
            .acquire(lease("root", now + MINUTE), &limits(), now)
            .unwrap();
    }
    assert_eq!(
        windows.acquire(lease("root", now + MINUTE), &limits(), now),
        Err(Refusal::Budget)
    );
    let later = now + BUDGET_SPAN;
    windows
        .acquire(lease("root", later + MINUTE), &limits(), later)
        .unwrap();
}

#[test]
fn root_finds_a_place_whatever_others_hold() {
    let now = Instant::now();
    let mut limits = limits();
    limits.budget = Budget {
        per_hour: 1000,
        per_caller: 1000,
        reserve: 0,
        time: TimeLimits::default(),
    };
    let mut windows = Windows::default();
    let mut given = |caller, count| {
        let names = 0..count;
        let leases = names.map(|at| Lease {
            caller,
            ..lease(&format!("{caller}-{at}"), now + MINUTE)
        });
        leases
            .filter(|lease| windows.acquire(lease.clone(), &limits, now).is_ok())
            .count()
    };
    assert_eq!(given(1000, 40), 40);
    assert_eq!(given(1001, 40), MAX_LEASES_OF_OTHERS - 40);
    assert_eq!(given(0, 40), MAX_LEASES - MAX_LEASES_OF_OTHERS);
    // Renewing takes no place.
    assert_eq!(given(1000, 40), 40);
}

#[test]
fn a_scoped_lease_covers_only_its_identifiers() {
    let now = Instant::now();
    let mut windows = Windows::default();
    let name = Identifier::parse("www.example.com").unwrap();
    let mut scoped = lease("a", now + MINUTE);
    scoped.scope.identifiers = Some(vec![name.clone()]);
    windows.acquire(scoped, &limits(), now).unwrap();
    assert!(windows.covers(&name, now));
    assert!(!windows.covers(&Identifier::parse("example.com").unwrap(), now));
    assert!(!windows.covers(&name, now + MINUTE));
}

#[test]
fn a_book_that_is_read_anew_keeps_the_time_of_identifiers() {
    let now = Instant::now();
    let limits = limits();
    let name = Identifier::parse("www.example.com").unwrap();
    let mut earlier = Windows::default();
    for lease_name in ["kept", "ended"] {
        let mut scoped = lease(lease_name, now + 10 * MINUTE);
        if lease_name == "ended" {
            scoped.deadline = now + 8 * MINUTE;
        }
        scoped.scope.identifiers = Some(vec![name.clone()]);
        earlier.acquire(scoped, &limits, now).unwrap();
    }
    // The snapshot has no names, and one of the leases has ended since.
    let later = now + MINUTE;
    let snapshot = |names: &[(&str, u32)]| {
        let mut windows = Windows::default();
        for (name, minutes) in names {
            let mut kept = lease(name, now + *minutes * MINUTE);
            kept.scope.identifiers = Some(vec![]);
            windows.adopt(kept);
        }
        windows
    };
    for (names, charged) in [
        (&[("kept", 10), ("ended", 8)][..], 10),
        (&[("ended", 8)], 8),
        (&[], 1),
    ] {
        let mut windows = snapshot(names);
        windows.remember(&earlier, later);
        let account = Account::Identifier(name.clone());
        let used = windows.usage().used(&account, Span::Day, later);
        assert_eq!(used, charged * MINUTE, "{names:?}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Acquire(u8, u64),
    Release(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..4, 1u64..20).prop_map(|(name, seconds)| Step::Acquire(name, seconds)),
        (0u8..4).prop_map(Step::Release),
        (0u64..10).prop_map(Step::Wait),
    ]
}

proptest! {
    /// The oracle knows only pairs of name and deadline, and the last moment anything was open.
    #[test]
    fn the_window_agrees_with_a_ten_line_model(steps in prop::collection::vec(step(), 0..60)) {
        let mut now = Instant::now();
        let mut limits = limits();
        limits.budget = Budget { per_hour: 1000, per_caller: 1000, reserve: 0, time: TimeLimits::default() };
        let mut windows = Windows::default();
        let mut model: BTreeMap<u8, Instant> = BTreeMap::new();
        let mut last_open: Option<Instant> = None;
        for step in steps {
            match step {
                Step::Acquire(name, seconds) => {
                    let deadline = now + Duration::from_secs(seconds);
                    windows.acquire(lease(&name.to_string(), deadline), &limits, now).unwrap();
                    // Renewing to an earlier end ends nothing that was admitted before.
                    model.insert(name, deadline);
                }
                Step::Release(name) => {
                    windows.release(&LeaseName::parse(&name.to_string()).unwrap(), now);
                    if model.remove(&name).is_some_and(|deadline| deadline > now) {
                        last_open = last_open.max(Some(now));
                    }
                }
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
            }
            model.retain(|_, deadline| {
                if *deadline <= now { last_open = last_open.max(Some(*deadline)); }
                *deadline > now
            });
            windows.expire(now);
            let open = model.values().max().copied();
            prop_assert_eq!(windows.open_until(&door(Family::V4, 80), now), open);
            let admitted = open.max(last_open).map(|end| end + GRACE).filter(|end| *end > now);
            prop_assert_eq!(windows.admitted_until(&door(Family::V4, 80), now), admitted);
            prop_assert_eq!(windows.open_until(&door(Family::V4, 443), now), None);
        }
    }
}

/// Numbers are used again once every opening is forgotten: the book before may still hold who had them.
#[test]
fn an_opening_is_new_however_long_ago_the_last_one_was() {
    let now = Instant::now();
    let mut before = Windows::default();
    for name in ["a", "b"] {
        before
            .acquire(lease(name, now + MINUTE), &limits(), now)
            .unwrap();
    }
    for (later, expected) in [(MINUTE, 3), (BUDGET_SPAN + MINUTE, 1)] {
        let now = now + later;
        let mut after = before.clone();
        let opening = after
            .acquire(lease("c", now + MINUTE), &limits(), now)
            .unwrap();
        assert_eq!(opening.id, expected);
        let new: Vec<_> = after.openings_since(&before, now).collect();
        assert_eq!(new, [&opening]);
    }
}
