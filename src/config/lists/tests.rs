//! Lists on a real disk: what is read, what is kept when it turns bad, and the whole against a naive
//! oracle.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::database::tests::Made;
use super::*;

/// A directory of its own, gone afterwards.
struct Ground(PathBuf);

impl Ground {
    fn new() -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("acmegate-lists-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Replaces a file, as an update should.
    fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = self.path("new");
        fs::write(&new, content).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn allow() -> Allow {
    Allow {
        local: false,
        ..Allow::default()
    }
}

fn of_files(paths: &[&PathBuf]) -> Allow {
    let mut allow = allow();
    allow.listed.files = paths.iter().map(|path| (*path).clone()).collect();
    allow
}

fn of_countries(source: &[PathBuf], codes: &[&str]) -> Allow {
    let mut allow = allow();
    allow.country_source = source.to_vec();
    allow.listed.countries = codes
        .iter()
        .map(|code| Country::parse(code).unwrap())
        .collect();
    allow
}

fn holds(lists: &Lists, address: &str) -> bool {
    lists.list().contains(address.parse().unwrap())
}

fn refused(allow: &Allow) -> String {
    Lists::read(allow).unwrap_err().to_string()
}

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lists");

#[test]
fn every_list_is_read_from_where_it_stands() {
    let data = Path::new(DATA);
    let mut allow = of_countries(&[data.join("mmdb/geolite-28.mmdb")], &["LI", "DE"]);
    allow.listed.files = vec![data.join("office.list"), data.join("elements/li_ipv4.ip")];
    allow.taken_off.prefixes = vec!["203.0.113.9/32".parse().unwrap()];
    let lists = Lists::read(&allow).unwrap();
    for inside in [
        "203.0.113.8",
        "203.0.113.200",
        "198.19.0.1",
        "2001:db8:100::1",
        "2001:db8:77::1",
        "::ffff:192.0.2.1",
    ] {
        assert!(holds(&lists, inside), "{inside}");
    }
    for outside in ["203.0.113.9", "10.0.0.1", "198.20.0.0", "2001:db8:300::1"] {
        assert!(!holds(&lists, outside), "{outside}");
    }
    let sources: Vec<String> = lists
        .sources()
        .map(|(name, v4, v6)| format!("{} {v4} {v6}", name.replace(DATA, "")))
        .collect();
    assert_eq!(
        sources,
        [
            "/elements/li_ipv4.ip 4 0",
            "/office.list 3 3",
            "DE of /mmdb/geolite-28.mmdb 1 1",
            "LI of /mmdb/geolite-28.mmdb 2 1",
        ]
    );
    assert_eq!(lists.problems(), [""; 0]);
    assert!(!lists.has_changed());
}

#[test]
fn a_registrys_files_are_joined() {
    let ground = Ground::new();
    let ripe = Path::new(DATA).join("delegated-ripencc-extended");
    let apnic = ground.put(
        "apnic",
        "2|apnic|20260601|1|19830613|20260531|+1000\napnic|*|ipv4|*|1|summary\n\
         apnic|LI|ipv4|198.18.0.0|3|20110811|assigned|A91\n",
    );
    let lists = Lists::read(&of_countries(&[ripe.clone(), apnic.clone()], &["LI"])).unwrap();
    assert!(holds(&lists, "198.18.0.2") && !holds(&lists, "198.18.0.3"));
    assert!(holds(&lists, "198.51.102.255") && holds(&lists, "2001:db8:100::1"));
    let told = refused(&of_countries(&[apnic.clone(), ripe], &["AT"]));
    assert_eq!(
        told,
        format!(
            "{}: there is no network of AT in it; nor in the other files of country_source: name that of its registry, too",
            apnic.display()
        )
    );
}

#[test]
fn a_directory_holds_lists_by_their_names() {
    let ground = Ground::new();
    ground.put("zones/li.zone", "198.51.100.0/24\n");
    ground.put("zones/LI_ipv6.iplist", "elements={ 2001:db8:100::/40 }\n");
    // It may be empty where another is not.
    ground.put("zones/li.ipv4", "# none\n");
    ground.put("zones/li.html", "<html>");
    ground.put("zones/ch-aggregated.zone", "192.0.2.0/24\n");
    let zones = ground.path("zones");
    let lists = Lists::read(&of_countries(std::slice::from_ref(&zones), &["LI", "CH"])).unwrap();
    for inside in ["198.51.100.1", "2001:db8:100::1", "192.0.2.1"] {
        assert!(holds(&lists, inside), "{inside}");
    }
    assert_eq!(
        refused(&of_countries(std::slice::from_ref(&zones), &["LI", "AT"])),
        format!(
            "{}: there is no list of AT; looked for at, at-aggregated, at_ipv4, at_ipv6 ending in .zone, .list, .txt, .cidr, .ip, .iplist, .ipv4, .ipv6, also in upper case",
            zones.display()
        )
    );
    // One more file of a country is seen, and a directory that is replaced.
    ground.put("zones/ch.list", "203.0.113.0/24\n");
    assert!(lists.has_changed());
    let allow = of_countries(std::slice::from_ref(&zones), &["LI", "CH"]);
    let lists = lists.refresh(&allow, Trust::Careful).unwrap();
    assert!(holds(&lists, "203.0.113.1") && !lists.has_changed());
    fs::remove_dir_all(&zones).unwrap();
    assert!(lists.has_changed());
    let lists = lists.refresh(&allow, Trust::Asked).unwrap();
    assert!(holds(&lists, "203.0.113.1"));
    assert_eq!(lists.problems().len(), 1, "{:?}", lists.problems());
}

#[test]
fn at_the_start_every_list_must_be_good() {
    let ground = Ground::new();
    let good = ground.put("good", "192.0.2.0/24\n");
    let bad = ground.put("bad", "192.0.2.0/24\n\n192.0.2.0/33 # \u{1b}[31m\n");
    let ugly = ground.put("ugly", "\u{1b}[31m\n");
    let empty = ground.put("empty", "# nobody yet\n");
    let missing = ground.path("missing");
    let directory = ground.path("");
    let lines = refused(&of_files(&[
        &good, &bad, &ugly, &empty, &missing, &directory,
    ]));
    let lines: Vec<String> = lines
        .lines()
        .map(|line| line.replace(&ground.0.display().to_string(), ""))
        .collect();
    assert_eq!(
        lines,
        [
            "/: this is a directory; name a file; a directory of country lists stands alone in country_source",
            "/bad:3: `192.0.2.0/33` is not a prefix; write one such as \"192.0.2.0/24\", \"2001:db8::/32\" or \"192.0.2.7\"",
            "/empty: this list is empty; write the prefixes into it, or take it out of [allow]",
            "/missing: there is no such file; put it there, or take it out of [allow]",
            "/ugly:1: `\\u{1b}[31m` is not a prefix; write one such as \"192.0.2.0/24\", \"2001:db8::/32\" or \"192.0.2.7\"",
        ]
    );
    let mut taken_off = of_files(&[&good]);
    taken_off.taken_off.files = vec![missing];
    assert!(refused(&taken_off).contains("there is no such file"));
}

#[test]
fn a_pipe_does_not_hold_up_the_start() {
    let ground = Ground::new();
    let pipe = ground.path("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(refused(&of_files(&[&pipe])).contains("this is no file; name a file"));
    assert!(refused(&of_files(&[&PathBuf::from("/dev/zero")])).contains("this is no file"));
}

#[test]
fn a_file_is_at_most_256_mib() {
    let ground = Ground::new();
    let path = ground.path("large");
    let file = fs::File::create(&path).unwrap();
    file.set_len(disk::MAX_FILE_BYTES + 1).unwrap();
    assert!(refused(&of_files(&[&path])).contains("larger than 256 MiB"));
}

#[test]
fn what_turns_bad_keeps_its_last_good_content() {
    let good = "192.0.2.0/24\n198.51.100.0/24\n2001:db8::/32\n";
    let ground = Ground::new();
    let path = ground.put("office", good);
    let written: SystemTime = UNIX_EPOCH + Duration::from_secs(1_780_272_000);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(written).unwrap();
    let allow = of_files(&[&path]);
    let first = Lists::read(&allow).unwrap();
    let stays = "; the last good one, of Mon, 01 Jun 2026 00:00:00 GMT, stays";
    let change = |content: Option<&str>| match content {
        Some(content) => drop(ground.put("office", content)),
        None => fs::remove_file(&path).unwrap(),
    };
    for (content, told, asked) in [
        (Some("192.0.2.0/24\nx\n"), ":2: `x` is not a prefix", false),
        (Some("# gone\n"), ": this list is empty", false),
        (None, ": there is no such file", false),
        (Some("192.0.2.0/2"), ":1: `192.0.2.0/2` has bits set", false),
        (
            Some("192.0.2.0/25\n2001:db8::/32\n"),
            ": covers less than half of the IPv4 addresses",
            true,
        ),
        (
            Some("192.0.2.0/24\n198.51.100.0/24\n"),
            ": covers less than half of the IPv6 addresses",
            true,
        ),
        (
            Some("0.0.0.0/0\n2001:db8::/32\n"),
            ": covers half of all IPv4 addresses or more, and did not before",
            true,
        ),
        (
            Some("192.0.2.0/24\n198.51.100.0/24\n::-7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff\n"),
            ": covers half of all IPv6 addresses or more",
            true,
        ),
        (
            Some("192.0.2.0/24\n198.51.100.0/24\n2000::/4\n"),
            ": covers half of all IPv6 addresses or more",
            true,
        ),
    ] {
        change(content);
        assert!(first.has_changed());
        let careful = first.refresh(&allow, Trust::Careful).unwrap();
        assert_eq!(careful.list(), first.list(), "{told}");
        let problems = careful.problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with(&format!("{}{told}", path.display())),
            "{problems:?}"
        );
        assert!(problems[0].ends_with(stays), "{problems:?}");
        // It was looked at: nobody asks again and again, and it is told for as long as it is so.
        assert!(!careful.has_changed());
        let again = careful.refresh(&allow, Trust::Careful).unwrap();
        assert_eq!(again.problems(), problems);
        // Asked for, what is not empty is taken, though nothing has changed since.
        let taken = again.refresh(&allow, Trust::Asked).unwrap();
        assert_eq!(taken.problems().is_empty(), asked, "{told}");
        assert_eq!(taken.list() != first.list(), asked, "{told}");
        // A good one ends the trouble.
        change(Some(good));
        let good = careful.refresh(&allow, Trust::Careful).unwrap();
        assert_eq!((good.problems(), good.list()), (Vec::new(), first.list()));
    }
}

#[test]
fn half_is_enough_and_more_is_welcome() {
    let ground = Ground::new();
    let path = ground.put("office", "192.0.2.0/24\n");
    let allow = of_files(&[&path]);
    let mut lists = Lists::read(&allow).unwrap();
    for content in [
        "192.0.2.0/25\n",
        "192.0.2.0/24\n198.51.100.0/24\n",
        "192.0.2.0/24\n2001:db8::/32\n",
    ] {
        ground.put("office", content);
        lists = lists.refresh(&allow, Trust::Careful).unwrap();
        assert_eq!(lists.problems(), [""; 0], "{content}");
    }
    assert!(holds(&lists, "2001:db8::1") && !holds(&lists, "198.51.100.1"));
}

#[test]
fn a_country_that_shrinks_stays_while_the_others_are_new() {
    let ground = Ground::new();
    let mut before = Made::new(6);
    let mut after = Made::new(6);
    let path = ground.put(
        "c.mmdb",
        before.li("198.51.100.0/24").ch("192.0.2.0/24").bytes(),
    );
    let allow = of_countries(std::slice::from_ref(&path), &["LI", "CH"]);
    let lists = Lists::read(&allow).unwrap();
    ground.put(
        "c.mmdb",
        after.li("198.51.100.0/26").ch("192.0.2.0/23").bytes(),
    );
    let careful = lists.refresh(&allow, Trust::Careful).unwrap();
    assert!(holds(&careful, "198.51.100.255") && holds(&careful, "192.0.3.255"));
    let problems = careful.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with(&format!("LI of {}: covers less", path.display())));
    // Cut off, it is one trouble and not one for each country.
    let whole = fs::read(&path).unwrap();
    ground.put("c.mmdb", &whole[..whole.len() / 2]);
    let cut = careful.refresh(&allow, Trust::Asked).unwrap();
    assert_eq!((cut.problems().len(), cut.list()), (1, careful.list()));
    assert!(
        cut.problems()[0].contains("this is no text"),
        "{:?}",
        cut.problems()
    );
}

#[test]
fn what_is_new_in_the_configuration_must_be_good() {
    let ground = Ground::new();
    let office = ground.put("office", "192.0.2.0/24\n");
    let lists = Lists::read(&of_files(&[&office])).unwrap();
    let abuse = ground.path("abuse");
    let mut more = of_files(&[&office]);
    more.taken_off.files = vec![abuse.clone()];
    let told = lists.refresh(&more, Trust::Asked).unwrap_err().to_string();
    assert!(told.contains("there is no such file"), "{told}");
    ground.put("abuse", "192.0.2.7\n");
    let lists = lists.refresh(&more, Trust::Asked).unwrap();
    assert!(holds(&lists, "192.0.2.6") && !holds(&lists, "192.0.2.7"));
    // What is not named any more is not looked at any more.
    let lists = lists.refresh(&of_files(&[&office]), Trust::Asked).unwrap();
    fs::remove_file(&abuse).unwrap();
    assert!(!lists.has_changed() && holds(&lists, "192.0.2.7"));
}

#[test]
fn a_country_more_of_the_same_source_counts_at_once() {
    let source = [PathBuf::from(DATA).join("delegated-ripencc-extended")];
    let lists = Lists::read(&of_countries(&source, &["LI"])).unwrap();
    let more = of_countries(&source, &["LI", "CH"]);
    let lists = lists.refresh(&more, Trust::Asked).unwrap();
    assert!(holds(&lists, "192.0.2.1") && holds(&lists, "198.51.100.1"));
    let mut without = of_countries(&source, &["LI"]);
    without.listed.prefixes = vec!["192.0.2.0/24".parse().unwrap()];
    let lists = Lists::read(&without).unwrap();
    assert!(holds(&lists, "192.0.2.1"));
    without.taken_off.countries = vec![Country::parse("CH").unwrap()];
    let lists = lists.refresh(&without, Trust::Asked).unwrap();
    assert!(!holds(&lists, "192.0.2.1"));
}

#[test]
fn one_bad_file_of_a_country_keeps_all_that_was_good_of_it() {
    let ground = Ground::new();
    ground.put("geo/li_ipv4.list", "192.0.2.0/24\n");
    ground.put("geo/li_ipv6.list", "2001:db8::/32\n");
    let allow = of_countries(&[ground.path("geo")], &["LI"]);
    let lists = Lists::read(&allow).unwrap();
    ground.put("geo/li_ipv4.list", "192.0.2.0/24\n198.51.100.0/24\n");
    ground.put("geo/li_ipv6.list", "<html>");
    for trust in [Trust::Careful, Trust::Asked] {
        let lists = lists.refresh(&allow, trust).unwrap();
        assert!(holds(&lists, "192.0.2.1") && holds(&lists, "2001:db8::1"));
        assert!(!holds(&lists, "198.51.100.1"));
        assert_eq!(lists.problems().len(), 1, "{:?}", lists.problems());
    }
}

#[test]
fn a_source_that_is_named_twice_is_read_once() {
    let ground = Ground::new();
    let office = ground.put("office", "192.0.2.0/24\n192.0.2.0/28\n");
    let lists = Lists::read(&of_files(&[&office, &office])).unwrap();
    assert_eq!(lists.sources().count(), 1);
    assert_eq!(lists.list().v4().as_slice().len(), 1);
}

#[test]
fn what_is_taken_off_beats_local_too() {
    let ground = Ground::new();
    let guests = ground.put("guests", "10.9.0.0/16\n");
    let mut allow = Allow::default();
    allow.taken_off.files = vec![guests];
    let lists = Lists::read(&allow).unwrap();
    assert!(holds(&lists, "10.8.0.1") && !holds(&lists, "10.9.0.1"));
}

#[test]
fn all_lists_together_have_an_end() {
    let of = |prefixes: &[&str]| {
        let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap());
        Good {
            list: Arc::new(AllowList::new(prefixes)),
            written: None,
        }
    };
    let one = of(&["192.0.2.0/24"]);
    let three = of(&["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/32"]);
    let origin = Origin::File(PathBuf::from("/lists/office"));
    let judged = |old: Option<&Good>, new: &Good, mut room: usize| {
        judge(&origin, None, old, new.clone(), Trust::Asked, &mut room).map(|_| room)
    };
    assert_eq!(judged(None, &three, 3), Ok(0));
    assert_eq!(judged(Some(&one), &three, 2), Ok(0));
    assert_eq!(judged(Some(&three), &one, 0), Ok(2));
    let told = "/lists/office: 3 ranges, which with all others are more than 4000000; name fewer or smaller lists";
    assert_eq!(judged(None, &three, 2), Err(told.to_owned()));
    assert_eq!(judged(Some(&one), &three, 1), Err(told.to_owned()));
}

#[test]
fn one_list_has_an_end() {
    let mut entries = Entries {
        v4: vec![(0, 0); MAX_RANGES],
        v6: Vec::new(),
    };
    assert_eq!(text::within(&entries), Ok(()));
    let told = text::add(&mut entries, "2001:db8::/32", 1).unwrap_err();
    assert_eq!(told.what, "more than 4000000 ranges");
}

#[test]
fn directories_are_those_of_files_and_of_what_links_lead_to() {
    let ground = Ground::new();
    let real = ground.put("real/office", "192.0.2.0/24\n");
    let zone = ground.put("elsewhere/li.zone", "192.0.2.0/24\n");
    fs::create_dir(ground.path("named")).unwrap();
    fs::create_dir(ground.path("zones")).unwrap();
    let named = ground.path("named/office");
    std::os::unix::fs::symlink(&real, &named).unwrap();
    std::os::unix::fs::symlink(&zone, ground.path("zones/li.zone")).unwrap();
    let mut allow = of_countries(&[ground.path("zones")], &["LI"]);
    allow.taken_off.files = vec![named];
    let expected = ["elsewhere", "named", "real", "zones"].map(|name| ground.path(name));
    assert_eq!(allow.directories(), expected);
    assert!(Allow::default().directories().is_empty());
}

struct Nobody;

impl super::super::Accounts for Nobody {
    fn user(&self, _name: &str) -> Option<u32> {
        None
    }

    fn group(&self, _name: &str) -> Option<super::super::Group> {
        None
    }
}

/// What one source of the oracle holds, as first and last address.
type Pairs = Vec<(IpAddr, IpAddr)>;

fn entry() -> impl Strategy<Value = (String, (IpAddr, IpAddr))> {
    // Few addresses, so that entries meet.
    let address = (any::<bool>(), 0u32..4096).prop_map(|(is_v6, bits)| match is_v6 {
        true => IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(bits))),
        false => IpAddr::V4(Ipv4Addr::from_bits(0xc612_0000 | bits)),
    });
    (address, 0u8..=12, 0u32..64, 0u8..3).prop_map(|(address, shorter, more, kind)| {
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = IpNet::new(address, whole - shorter).unwrap().trunc();
        let last = match address {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() + more).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() + u128::from(more)).into(),
        };
        match kind {
            0 => (prefix.to_string(), (prefix.network(), prefix.broadcast())),
            1 => (address.to_string(), (address, address)),
            _ => (format!("{address} - {last}"), (address, last)),
        }
    })
}

fn entries() -> impl Strategy<Value = Vec<(String, (IpAddr, IpAddr))>> {
    prop::collection::vec(entry(), 1..8)
}

fn listed_in(pairs: &Pairs, address: IpAddr) -> bool {
    pairs.iter().any(|(first, last)| {
        first.is_ipv4() == address.is_ipv4() && (*first..=*last).contains(&address)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Files, countries and prefixes, in [allow] and in groups, with ! and without: whoever is listed
    /// and not taken off is a member, and nobody else.
    #[test]
    fn membership_agrees_with_a_naive_oracle(
        sources in prop::collection::vec((entries(), 0u8..5, any::<bool>(), any::<bool>()), 1..7),
    ) {
        let ground = Ground::new();
        let codes = ["LI", "CH", "AT", "DE", "FR", "IT", "LU"];
        let quoted = |text: &str| format!("\"{text}\"");
        // [allow] and two groups, the second of which is taken off as a whole.
        let mut tables: [[Vec<String>; 3]; 3] = Default::default();
        let (mut listed, mut taken_off): (Pairs, Pairs) = Default::default();
        for (at, (entries, kind, takes_off, in_group)) in sources.into_iter().enumerate() {
            let (lines, pairs): (Vec<String>, Pairs) = entries.into_iter().unzip();
            let text = lines.join("\n");
            let table = match (in_group, takes_off) {
                (false, _) => 0,
                // A group that is taken off has nothing with ! in it; every other one of these.
                (true, true) if at % 2 == 0 => 2,
                (true, _) => 1,
            };
            let sign = if takes_off && table != 2 { "!" } else { "" };
            let [prefixes, files, countries] = &mut tables[table];
            match kind {
                0 | 1 => {
                    let path = ground.put(&format!("{at}.list"), &text);
                    files.push(quoted(&format!("{sign}{}", path.display())));
                }
                2 => {
                    let text = format!("elements={{ {} }}", text.replace('\n', ", "));
                    let path = ground.put(&format!("{at}.ip"), text);
                    files.push(quoted(&format!("{sign}{}", path.display())));
                }
                3 => {
                    ground.put(&format!("zones/{}.zone", codes[at].to_lowercase()), &text);
                    countries.push(quoted(&format!("{sign}{}", codes[at])));
                }
                // Prefixes stand in the file itself, which knows no ranges.
                _ => {
                    for (line, pair) in lines.iter().zip(&pairs) {
                        match line.contains('-') {
                            false => prefixes.push(quoted(&format!("{sign}{line}"))),
                            true => {
                                let end = pair.1.to_string();
                                prefixes.push(quoted(&format!("{sign}{end}")));
                            }
                        }
                    }
                }
            }
            let side = if takes_off { &mut taken_off } else { &mut listed };
            match kind {
                4 => side.extend(lines.iter().zip(pairs).map(|(line, (first, last))| {
                    if line.contains('-') { (last, last) } else { (first, last) }
                })),
                _ => side.extend(pairs),
            }
        }
        let keys = |[prefixes, files, countries]: &[Vec<String>; 3]| {
            format!(
                "prefixes = [{}]\nfiles = [{}]\ncountries = [{}]\n",
                prefixes.join(", "),
                files.join(", "),
                countries.join(", ")
            )
        };
        let is_used = |table: &[Vec<String>; 3]| table.iter().any(|key| !key.is_empty());
        let mut text = String::from("[allow]\nlocal = false\n");
        text += &format!("country_source = \"{}\"\n", ground.path("zones").display());
        let mut groups = Vec::new();
        let mut of_groups = String::new();
        for (table, name, sign) in [(&tables[1], "office", ""), (&tables[2], "guests", "!")] {
            if is_used(table) {
                groups.push(quoted(&format!("{sign}{name}")));
                of_groups += &format!("[group.{name}]\n{}", keys(table));
            }
        }
        text += &format!("groups = [{}]\n{}{of_groups}", groups.join(", "), keys(&tables[0]));
        let config = super::super::Config::parse(
            &text,
            "test.toml",
            &Nobody,
            &super::super::Unchecked,
        );
        let lists = Lists::read(&config.unwrap().allow).unwrap();
        let list = lists.list();
        let near = |address: IpAddr| -> Vec<IpAddr> {
            match address {
                IpAddr::V4(it) => (-1..=1).map(|by| Ipv4Addr::from_bits(it.to_bits().wrapping_add_signed(by)).into()).collect(),
                IpAddr::V6(it) => (-1..=1).map(|by| Ipv6Addr::from_bits(it.to_bits().wrapping_add_signed(by)).into()).collect(),
            }
        };
        for (first, last) in listed.iter().chain(&taken_off) {
            for address in near(*first).into_iter().chain(near(*last)) {
                let naive = listed_in(&listed, address) && !listed_in(&taken_off, address);
                prop_assert_eq!(list.contains(address), naive, "{} in {}", address, text);
            }
        }
    }
}
