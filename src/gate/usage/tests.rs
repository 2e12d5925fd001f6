use proptest::prelude::*;

use super::super::lease::{Entrance, Families, Holder, Lease, Scope, Trigger};
use super::super::window::{Budget, Limits, Refusal, Windows};
use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Span::Day.length();

fn limits(time: TimeLimits) -> Limits {
    Limits {
        ports: vec![80],
        max: 24 * HOUR,
        budget: Budget {
            per_hour: 3600,
            per_caller: 3600,
            reserve: 600,
            time,
        },
    }
}

fn total(day: Duration) -> TimeLimits {
    TimeLimits {
        total: Allowance {
            day: Some(day),
            month: None,
        },
        ..TimeLimits::default()
    }
}

fn lease(name: &str, deadline: Instant) -> Lease {
    Lease {
        id: 0,
        name: name_of(name),
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

fn name_of(name: &str) -> LeaseName {
    LeaseName::parse(name).unwrap()
}

fn of_lease(name: &str) -> Account {
    Account::Lease(name_of(name), 0)
}

fn held(name: &str, pid: u32, deadline: Instant) -> Lease {
    Lease {
        holder: Some(Holder {
            pid,
            start_ticks: 1,
            command: "certbot".to_owned(),
        }),
        ..lease(name, deadline)
    }
}

/// What an account used up to now.
fn spent(windows: &Windows, account: &Account, span: Span, now: Instant) -> Duration {
    let times = windows.times(TimeLimits::default(), MINUTE, now);
    let time = times.into_iter().find(|time| time.account == *account);
    time.map_or(Duration::ZERO, |time| match span {
        Span::Day => time.day,
        Span::Month => time.month,
    })
}

#[track_caller]
fn shortage(refused: Result<impl std::fmt::Debug, Refusal>) -> Shortage {
    match refused {
        Err(Refusal::Time(shortage)) => shortage,
        other => panic!("not refused for its time: {other:?}"),
    }
}

#[test]
fn what_was_not_used_is_given_back() {
    let now = Instant::now();
    let mut windows = Windows::default();
    let limits = limits(TimeLimits::default());
    windows
        .acquire(lease("a", now + 10 * MINUTE), &limits, now)
        .unwrap();
    let charged = |windows: &Windows, at| windows.usage().used(&Account::Total, Span::Day, at);
    let up_to = |windows: &Windows, at| spent(windows, &Account::Total, Span::Day, at);
    assert_eq!(charged(&windows, now), 10 * MINUTE);
    assert_eq!(up_to(&windows, now), Duration::ZERO);
    let later = now + 2 * MINUTE;
    assert_eq!(up_to(&windows, later), 2 * MINUTE);
    windows.release(&name_of("a"), later);
    for at in [later, later + HOUR] {
        assert_eq!(charged(&windows, at), 2 * MINUTE);
        assert_eq!(up_to(&windows, at), 2 * MINUTE);
    }
    // A second release, or one of nothing, gives nothing back.
    windows.release(&name_of("a"), later);
    assert_eq!(charged(&windows, later), 2 * MINUTE);
}

#[test]
fn what_two_leases_have_open_at_once_counts_once_for_all_and_for_each_of_them() {
    let now = Instant::now();
    let mut windows = Windows::default();
    let limits = limits(TimeLimits::default());
    for (name, minutes) in [("a", 10), ("b", 4)] {
        let lease = lease(name, now + minutes * MINUTE);
        windows.acquire(lease, &limits, now).unwrap();
    }
    // The longer one ends first: the shorter keeps it open.
    windows.release(&name_of("a"), now + MINUTE);
    let end = now + HOUR;
    windows.expire(end);
    for (account, minutes) in [
        (Account::Total, 4),
        (of_lease("a"), 1),
        (of_lease("b"), 4),
        (of_lease("c"), 0),
    ] {
        for span in Span::ALL {
            let spent = spent(&windows, &account, span, end);
            assert_eq!(spent, minutes * MINUTE, "{account:?}");
        }
    }
}

#[test]
fn every_run_of_a_client_is_counted_as_one() {
    let now = Instant::now();
    for (name, pid, counted) in [
        ("certbot-812", 812, "certbot"),
        ("certbot-812", 12, "certbot-812"),
        ("a-b-7", 7, "a-b"),
        ("7", 7, "7"),
        ("a7", 7, "a7"),
    ] {
        assert_eq!(held(name, pid, now).counted_as().as_str(), counted);
    }
    assert_eq!(
        lease("certbot-812", now).counted_as(),
        name_of("certbot-812")
    );
    let mut windows = Windows::default();
    let limits = limits(TimeLimits::default());
    for pid in [5, 6] {
        let lease = held(&format!("lego-{pid}"), pid, now + MINUTE);
        windows.acquire(lease, &limits, now).unwrap();
    }
    assert_eq!(
        spent(&windows, &of_lease("lego"), Span::Day, now + HOUR),
        MINUTE
    );
}

#[test]
fn somebody_elses_lease_of_the_same_name_takes_nothing_away() {
    let now = Instant::now();
    let mut windows = Windows::default();
    let limits = limits(TimeLimits {
        lease: Allowance {
            day: Some(HOUR),
            month: None,
        },
        ..TimeLimits::default()
    });
    for caller in [1000, 0] {
        let lease = Lease {
            caller,
            ..held(&format!("certbot-{}", 7 + caller), 7 + caller, now + HOUR)
        };
        windows.acquire(lease, &limits, now).unwrap();
    }
    let another = held("certbot-8", 8, now + HOUR + MINUTE);
    assert_eq!(shortage(windows.acquire(another, &limits, now)).used, HOUR);
}

#[test]
fn what_is_used_up_is_refused_until_it_is_a_day_old() {
    let now = Instant::now();
    let mut windows = Windows::default();
    let limits = limits(total(15 * MINUTE));
    let mut open = |name: &str, length, at| windows.acquire(lease(name, at + length), &limits, at);
    open("a", 10 * MINUTE, now).unwrap();
    let after = now + HOUR;
    let refused = shortage(open("a", 10 * MINUTE, after));
    assert_eq!(
        refused,
        Shortage {
            kind: Kind::Total,
            span: Span::Day,
            limit: 15 * MINUTE,
            used: 10 * MINUTE,
            fits_in: Some(DAY + Span::Day.slot() - HOUR),
        }
    );
    // What is left is given, and not a second more.
    open("a", 5 * MINUTE, after).unwrap();
    shortage(open("b", 5 * MINUTE + Duration::from_secs(1), after));
    // Beside what is open in any case nothing is taken.
    open("b", 5 * MINUTE, after).unwrap();
    // As it was said; but what came later is still there.
    let free = after + refused.fits_in.unwrap();
    shortage(open("a", 10 * MINUTE, free - Duration::from_secs(1)));
    open("a", 10 * MINUTE, free).unwrap();
    // Longer than all there is never fits.
    assert_eq!(
        shortage(open("a", 16 * MINUTE, free + 9 * DAY)).fits_in,
        None
    );
}

#[test]
fn nobody_has_more_than_root_and_others_leave_roots_share() {
    let now = Instant::now();
    let mut windows = Windows::default();
    let limits = limits(total(60 * MINUTE));
    let mut open = |caller, minutes, at: Instant| {
        let lease = Lease {
            caller,
            ..lease(&format!("by-{caller}"), at + minutes * MINUTE)
        };
        windows.acquire(lease, &limits, at)
    };
    // 600 of 3600 are a sixth.
    assert_eq!(shortage(open(1000, 51, now)).limit, 50 * MINUTE);
    open(1000, 50, now).unwrap();
    let later = now + 2 * HOUR;
    shortage(open(1000, 1, later));
    assert_eq!(shortage(open(0, 11, later)).limit, 60 * MINUTE);
    open(0, 10, later).unwrap();
    shortage(open(0, 1, later + HOUR));
}

#[test]
fn a_lease_and_an_identifier_have_limits_of_their_own() {
    let now = Instant::now();
    let only = |day| Allowance {
        day: None,
        month: Some(day),
    };
    let limits = limits(TimeLimits {
        total: Allowance::default(),
        lease: only(20 * MINUTE),
        identifier: only(5 * MINUTE),
    });
    let name = Identifier::parse("www.example.com").unwrap();
    let mut windows = Windows::default();
    let mut scoped = lease("a", now + 5 * MINUTE);
    scoped.scope.identifiers = Some(vec![name.clone()]);
    windows.acquire(scoped.clone(), &limits, now).unwrap();
    // Another lease's, but the same identifier.
    let later = now + HOUR;
    let other = Lease {
        name: name_of("b"),
        deadline: later + MINUTE,
        ..scoped
    };
    let refused = shortage(windows.acquire(other.clone(), &limits, later));
    assert_eq!(
        (refused.kind, refused.span),
        (Kind::Identifier, Span::Month)
    );
    let (account, _) = windows
        .within_time(&other, limits.budget.time, later)
        .unwrap_err();
    assert_eq!(account, Account::Identifier(name));
    let refused = shortage(windows.acquire(lease("a", later + 16 * MINUTE), &limits, later));
    assert_eq!((refused.kind, refused.used), (Kind::Lease, 5 * MINUTE));
    windows
        .acquire(lease("b", later + 16 * MINUTE), &limits, later)
        .unwrap();
}

#[test]
fn a_renewal_is_charged_for_what_it_adds() {
    let now = Instant::now();
    let mut windows = Windows::default();
    let limits = limits(total(10 * MINUTE));
    windows
        .acquire(lease("a", now + 6 * MINUTE), &limits, now)
        .unwrap();
    let half = now + 3 * MINUTE;
    windows
        .acquire(lease("a", half + 7 * MINUTE), &limits, half)
        .unwrap();
    shortage(windows.acquire(lease("a", half + 8 * MINUTE), &limits, half));
    // To an earlier end it is always given, and frees the rest.
    windows
        .acquire(lease("a", half + MINUTE), &limits, half)
        .unwrap();
    let used = windows.usage().used(&Account::Total, Span::Day, half);
    assert_eq!(used, 4 * MINUTE);
    windows.shorten(&name_of("a"), half, half);
    let used = windows.usage().used(&Account::Total, Span::Day, half);
    assert_eq!(used, 3 * MINUTE);
}

#[test]
fn names_are_bounded_and_those_that_were_open_least_are_forgotten() {
    let now = Instant::now();
    let mut windows = Windows::default();
    let limits = limits(TimeLimits::default());
    windows
        .acquire(lease("most", now + HOUR), &limits, now)
        .unwrap();
    for number in 0..1000 {
        let at = now + HOUR + number * MINUTE;
        let lease = lease(&format!("one-of-many-{number}"), at + MINUTE);
        windows.acquire(lease, &limits, at).unwrap();
        assert!(windows.usage().accounts().count() <= MAX_LEASE_NAMES + 1);
    }
    let end = now + HOUR + 1000 * MINUTE;
    assert_eq!(spent(&windows, &of_lease("most"), Span::Day, end), HOUR);
    let all = spent(&windows, &Account::Total, Span::Day, end);
    assert_eq!(all, HOUR + 1000 * MINUTE);
}

/// The kernel's set has places for this many slots.
#[test]
fn an_account_has_few_slots_however_it_is_used() {
    let mut now = Instant::now();
    let mut windows = Windows::default();
    let mut limits = limits(TimeLimits::default());
    limits.budget.per_hour = u32::MAX;
    for _ in 0..24 * 40 {
        for hours in [24, 1] {
            windows
                .acquire(lease("a", now + hours * HOUR), &limits, now)
                .unwrap();
        }
        windows
            .acquire(lease("a", now + 24 * HOUR), &limits, now)
            .unwrap();
        let most = windows.usage().accounts().map(|(_, slots)| slots.len());
        assert!(most.max() <= Some(MAX_SLOTS), "{:?}", windows.usage());
        now += HOUR;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Acquire(u8, u64),
    Release(u8),
    Wait(u64),
}

/// A second of these tests, of which a day has 144.
const TICK: Duration = Duration::from_secs(600);

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..4, 1u64..144).prop_map(|(name, ticks)| Step::Acquire(name, ticks)),
        (0u8..4).prop_map(Step::Release),
        (1u64..60).prop_map(Step::Wait),
        (1u64..2000).prop_map(Step::Wait),
    ]
}

/// Counts moment by moment: how many of the last `span` moments were open.
fn naive(moments: &[bool], span: Duration) -> u32 {
    let count = (span.as_secs() / TICK.as_secs()) as usize;
    let last = &moments[moments.len().saturating_sub(count)..];
    last.iter().filter(|open| **open).count() as u32
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The book is never below what was open in a span, never above what was open in a span and a
    /// slot, and no span ever holds more than is allowed.
    #[test]
    fn the_book_agrees_with_counting_moment_by_moment(
        steps in prop::collection::vec(step(), 0..60), day in 1u32..144, month in 1u32..1000,
    ) {
        let mut now = Instant::now();
        let time = TimeLimits {
            total: Allowance { day: Some(TICK * day), month: Some(TICK * month) },
            ..TimeLimits::default()
        };
        let limits = limits(time);
        let mut windows = Windows::default();
        let mut moments: Vec<bool> = Vec::new();
        let mut of_first: Vec<bool> = Vec::new();
        for step in steps {
            match step {
                Step::Acquire(name, ticks) => {
                    let lease = lease(&name.to_string(), now + TICK * ticks as u32);
                    let fits = windows.acquire(lease, &limits, now);
                    prop_assert!(matches!(fits, Ok(_) | Err(Refusal::Time(_))), "{:?}", fits);
                    if let Err(Refusal::Time(Shortage { fits_in: Some(wait), .. })) = fits {
                        prop_assert!(!wait.is_zero());
                    }
                }
                Step::Release(name) => drop(windows.release(&name_of(&name.to_string()), now)),
                Step::Wait(ticks) => for _ in 0..ticks {
                    let open = |lease: &&Lease| lease.deadline > now;
                    moments.push(windows.leases().any(|lease| open(&lease)));
                    let first = windows.lease(&name_of("0"));
                    of_first.push(first.as_ref().is_some_and(open));
                    now += TICK;
                    prop_assert!(naive(&moments, Span::Day.length()) <= day);
                },
            }
            prop_assert!(naive(&moments, Span::Month.length()) <= month);
            windows.expire(now);
            for span in Span::ALL {
                for (account, moments) in [(Account::Total, &moments), (of_lease("0"), &of_first)] {
                    let spent = spent(&windows, &account, span, now);
                    let least = TICK * naive(moments, span.length());
                    let most = TICK * naive(moments, span.length() + span.slot());
                    prop_assert!((least..=most).contains(&spent), "{:?} {:?}: {:?} {:?} {:?}", account, span, least, spent, most);
                }
            }
        }
    }
}
