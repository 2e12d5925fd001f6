//! What is shipped besides the program: units, packages and licences, checked against it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use acmegate::config::Config;
use acmegate::control::protocol::{Exit, RUNTIME_DIR};

const SERVICE: &str = include_str!("../../systemd/acmegate.service");
const SOCKET: &str = include_str!("../../systemd/acmegate.socket");
const SYSUSERS: &str = include_str!("../../systemd/acmegate.sysusers");
const TMPFILES: &str = include_str!("../../systemd/acmegate.tmpfiles");
const SAMPLE: &str = include_str!("../../config/acmegate.toml");

/// Descriptors that the daemon wants besides its connections (src/daemon/mod.rs).
const OTHER_DESCRIPTORS: u32 = 512;
/// The most exposure that `systemd-analyze security` may find, in tenths.
const MAX_EXPOSURE: &str = "--threshold=17";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

// --- systemd ---------------------------------------------------------------------------------

/// Every value of a key, in the order of the unit.
fn values<'unit>(unit: &'unit str, key: &str) -> Vec<&'unit str> {
    unit.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| value)
        .collect()
}

/// The units as they would stand on a host that has the program.
fn installed_units(name: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("units-{name}-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let program = env!("CARGO_BIN_EXE_acmegate");
    for (file, unit) in [("acmegate.service", SERVICE), ("acmegate.socket", SOCKET)] {
        let lines = unit
            .lines()
            .map(|line| match line.split_once("=acmegate ") {
                Some((key, rest)) if key.starts_with("Exec") => format!("{key}={program} {rest}\n"),
                _ => format!("{line}\n"),
            });
        fs::write(directory.join(file), lines.collect::<String>()).unwrap();
    }
    directory
}

fn systemd_analyze(directory: &Path, arguments: &[&str]) -> Output {
    Command::new("systemd-analyze")
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap_or_else(|error| panic!("systemd-analyze (Debian package systemd): {error}"))
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let directory = installed_units("verify");
    let units = ["./acmegate.service", "./acmegate.socket"];
    let output = systemd_analyze(&directory, &[&["verify", "--man=no"], &units[..]].concat());
    let told = String::from_utf8_lossy(&output.stderr);
    // An unknown key is a warning with status 0.
    let about_us: Vec<&str> = told
        .lines()
        .filter(|line| line.contains("acmegate"))
        .collect();
    assert!(output.status.success() && about_us.is_empty(), "{told}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_unit_exposes_no_more_than_it_says() {
    let directory = installed_units("security");
    let arguments = [
        "security",
        "--offline=true",
        MAX_EXPOSURE,
        "./acmegate.service",
    ];
    let output = systemd_analyze(&directory, &arguments);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    fs::remove_dir_all(directory).unwrap();
}

/// Each point that systemd finds, not one more, and no point that it would not find.
#[test]
fn every_point_of_the_exposure_is_named_in_the_document() {
    let directory = installed_units("points");
    let arguments = [
        "security",
        "--offline=true",
        "--json=short",
        "./acmegate.service",
    ];
    let output = systemd_analyze(&directory, &arguments);
    let points: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let points = points.iter().filter(|point| !point["exposure"].is_null());
    let points: BTreeSet<&str> = points.filter_map(|point| point["name"].as_str()).collect();
    let page = include_str!("../../docs/systemd.md");
    let (_, section) = page
        .split_once("\n## What is left of the exposure\n")
        .unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    // A bar in a table is written with a backslash.
    let named: BTreeSet<String> = section
        .replace("\\|", "\u{0}")
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(|point| point.trim().replace('\u{0}', "|"))
        .filter(|point| point.contains('='))
        .collect();
    let named: BTreeSet<&str> = named.iter().map(String::as_str).collect();
    assert_eq!(named, points);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn systemd_finds_nothing_wrong_with_the_drop_ins() {
    let directory = installed_units("drop-ins");
    let beside = directory.join("acmegate.service.d");
    fs::create_dir(&beside).unwrap();
    let told = || {
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "./acmegate.service"])
            .env("SYSTEMD_UNIT_PATH", format!("{}:", directory.display()))
            .current_dir(&directory)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    // The control: what is beside the unit is read.
    fs::write(beside.join("x.conf"), "[Service]\nNoSuchKey=1\n").unwrap();
    assert!(told().contains("NoSuchKey"), "{}", told());
    fs::remove_file(beside.join("x.conf")).unwrap();
    let page = include_str!("../../docs/systemd.md");
    let mut count = 0;
    for entry in fs::read_dir(root().join("systemd/drop-ins")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        fs::copy(&path, beside.join(name)).unwrap();
        assert!(!told().contains("acmegate"), "{name}: {}", told());
        assert!(page.contains(name), "{name}");
        count += 1;
    }
    assert_eq!(count, 3);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_unit_is_what_the_daemon_expects() {
    let defaults = Config::default();
    let user = defaults.daemon.user.as_str();
    assert_eq!(values(SERVICE, "User"), [user]);
    assert!(
        SYSUSERS.contains(&format!("\nu {user} - ")),
        "the account that the unit names is made"
    );
    let below = |base: &str, path: &Path| {
        let path = path.strip_prefix(base).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let state = below("/var/lib", &defaults.daemon.state_dir);
    assert_eq!(
        values(SERVICE, "StateDirectory"),
        [format!("{state} {state}/webroot")]
    );
    assert_eq!(
        values(SERVICE, "RuntimeDirectory"),
        [below("/run", Path::new(RUNTIME_DIR))]
    );
    let config = Path::new(acmegate::config::DEFAULT_PATH).parent().unwrap();
    assert!(TMPFILES.contains(&format!("\nd {} 0755 root root -", config.display())));
    // SIGTERM stops for good, SIGUSR1 hands over (src/daemon/serve.rs), both asked of the front alone.
    assert_eq!(values(SERVICE, "KillMode"), ["mixed"]);
    assert_eq!(values(SERVICE, "KillSignal"), ["SIGTERM"]);
    assert_eq!(values(SERVICE, "RestartKillSignal"), ["SIGUSR1"]);
    let hopeless = [Exit::Usage, Exit::NoPerm, Exit::Config].map(|exit| (exit as u8).to_string());
    assert_eq!(
        values(SERVICE, "RestartPreventExitStatus"),
        [hopeless.join(" ")]
    );
    let descriptors: u32 = values(SERVICE, "LimitNOFILE")[0].parse().unwrap();
    assert!(descriptors >= defaults.http.max_connections + OTHER_DESCRIPTORS);
}

/// What firewall-cmd asks polkit for, whatever it does, and for whom it is given.
#[test]
fn the_rule_for_polkit_names_the_account_that_runs_commands() {
    let rule = include_str!("../../config/commands/acmegate-firewalld.rules");
    let user = Config::default().daemon.user;
    assert_eq!(values(SERVICE, "User"), [user.as_str()]);
    let condition = format!(
        "if (action.id == \"org.fedoraproject.FirewallD1.all\" && subject.user == \"{user}\") {{\n        return polkit.Result.YES;"
    );
    assert_eq!(rule.matches(&condition).count(), 1, "{rule}");
    assert_eq!(rule.matches("polkit.Result.").count(), 1, "{rule}");
}

#[test]
fn the_socket_is_optional_and_listens_where_the_daemon_would() {
    for key in ["Requires", "Wants", "Sockets", "BindsTo"] {
        let needed = values(SERVICE, key);
        assert!(
            !needed.iter().any(|value| value.contains("acmegate.socket")),
            "{key}"
        );
    }
    let ports: Vec<String> = Config::default()
        .http
        .listen
        .iter()
        .map(|address| address.port().to_string())
        .collect();
    assert_eq!(values(SOCKET, "ListenStream"), ports);
    assert_eq!(values(SOCKET, "BindIPv6Only"), ["both"]);
}

// --- packages ----------------------------------------------------------------------------------

fn stage(arguments: &[&str], to: &Path) {
    let mut command = Command::new(root().join("packaging/stage"));
    command.args(["--binary", env!("CARGO_BIN_EXE_acmegate")]);
    let output = command.args(arguments).arg(to).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
}

#[test]
fn what_is_staged_is_where_systemd_man_and_shells_look_and_a_configuration_stays() {
    let directory =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("staged-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    for (prefix, zsh) in [
        ("/usr", "vendor-completions"),
        ("/usr/local", "site-functions"),
    ] {
        let to = directory.join(prefix.replace('/', "-"));
        stage(&["--prefix", prefix], &to);
        let is_there = |path: &str| assert!(to.join(path).is_file(), "{prefix}: {path}");
        for path in [
            "bin/acmegate",
            "lib/systemd/system/acmegate.service",
            "lib/systemd/system/acmegate.socket",
            "lib/sysusers.d/acmegate.conf",
            "lib/tmpfiles.d/acmegate.conf",
            "share/man/man1/acmegate.1.gz",
            "share/man/man1/acmegate-doctor.1.gz",
            "share/man/man5/acmegate.toml.5.gz",
            "share/man/man7/acmegate-hooks.7.gz",
            "share/bash-completion/completions/acmegate",
            "share/fish/vendor_completions.d/acmegate.fish",
            "share/doc/acmegate/examples/drop-ins/home-webroot.conf",
            "share/doc/acmegate/docs/systemd.md",
        ] {
            is_there(&format!("{}/{path}", &prefix[1..]));
        }
        is_there(&format!("{}/share/zsh/{zsh}/_acmegate", &prefix[1..]));
        let configuration = to.join("etc/acmegate/acmegate.toml");
        assert_eq!(fs::read_to_string(&configuration).unwrap(), SAMPLE);
        fs::write(&configuration, "# ours\n").unwrap();
        stage(&["--prefix", prefix], &to);
        assert_eq!(fs::read_to_string(&configuration).unwrap(), "# ours\n");
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_same_source_gives_the_same_debian_package() {
    let directory =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("deb-{}", std::process::id()));
    let built: Vec<Vec<u8>> = ["one", "two"]
        .iter()
        .map(|name| {
            let output = Command::new(root().join("packaging/build-deb"))
                .args(["--binary", env!("CARGO_BIN_EXE_acmegate")])
                .args(["--compression", "none", "--out"])
                .arg(directory.join(name))
                .env("SOURCE_DATE_EPOCH", "1767225600")
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{told}");
            let package = String::from_utf8(output.stdout).unwrap();
            let name = format!("/acmegate_{}-1_", env!("CARGO_PKG_VERSION"));
            assert!(package.contains(&name), "{package}");
            fs::read(package.trim()).unwrap()
        })
        .collect();
    assert!(built[0] == built[1], "they differ");
    fs::remove_dir_all(directory).unwrap();
}

/// By elf(5): what stands at octet 18 of a program.
#[test]
fn a_package_is_for_the_machine_that_its_program_is_for() {
    let directory =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("machine-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let program = directory.join("program");
    let ask = || {
        let mut command = Command::new(root().join("packaging/machine"));
        let output = command.arg(&program).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let complaint = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), told, complaint)
    };
    let (code, _, complaint) = ask();
    assert_eq!(code, 66, "{complaint}");
    assert!(complaint.contains("cargo build"), "{complaint}");
    for (number, name) in [(62, "x86_64\n"), (183, "aarch64\n")] {
        let mut head = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0".to_vec();
        head.extend([number, 0, 1, 0, 0, 0]);
        fs::write(&program, head).unwrap();
        assert_eq!(ask(), (0, name.to_owned(), String::new()));
    }
    // 32-bit ARM, a script, and a file of less than that.
    for head in [
        &b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x28\0"[..],
        b"#!/usr/bin/env bash\n",
        b"x",
    ] {
        fs::write(&program, head).unwrap();
        let (code, told, complaint) = ask();
        assert_eq!((code, told.as_str()), (65, ""), "{complaint}");
        assert!(complaint.contains("aarch64"), "{complaint}");
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_bill_of_materials_is_what_the_document_says() {
    let output = Command::new(root().join("packaging/sbom"))
        // The document's, whatever this machine is.
        .arg("x86_64")
        .output()
        .unwrap();
    assert!(output.status.success());
    let bill: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let crates = bill["components"].as_array().unwrap();
    let page = include_str!("../../docs/dependencies.md");
    let (_, section) = page.split_once("\n## In the program\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    assert!(
        section.contains(&format!("\n{} crates.\n", crates.len())),
        "{}",
        crates.len()
    );
    let named: BTreeSet<&str> = section.split(['|', ',', ' ', '\n']).collect();
    for own in crates {
        assert!(named.contains(own["name"].as_str().unwrap()), "{own}");
        assert_eq!(own["hashes"][0]["alg"], "SHA-256", "{own}");
    }
    assert_eq!(
        bill["dependencies"].as_array().unwrap().len(),
        crates.len() + 1
    );
}

#[test]
fn every_recipe_makes_this_version() {
    let version = format!("\nPKG_VERSION:={}\n", env!("CARGO_PKG_VERSION"));
    assert!(include_str!("../../packaging/openwrt/Makefile").contains(&version));
    for recipe in ["rpm", "apk"] {
        let recipe = root().join("packaging").join(recipe).join("nfpm.yaml");
        let text = fs::read_to_string(&recipe).unwrap();
        assert!(text.contains("\nversion: ${VERSION}\n"), "{text}");
        let files = text.lines().filter_map(|line| {
            let (_, file) = line.split_once(": ")?;
            file.starts_with("packaging/").then_some(file)
        });
        let missing: Vec<&str> = files.filter(|file| !root().join(file).is_file()).collect();
        assert_eq!(missing, [""; 0]);
    }
}

// --- licences -----------------------------------------------------------------------------------

#[test]
fn every_licence_in_the_tree_is_allowed() {
    let deny: toml::Table = include_str!("../../deny.toml").parse().unwrap();
    let names = |list: &toml::Value| -> BTreeSet<String> {
        let list = list["allow"].as_array().unwrap().iter();
        list.map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    let allowed = names(&deny["licenses"]);
    let exceptions = deny["licenses"]["exceptions"].as_array().unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        // What other systems would need has not been fetched.
        .arg(format!(
            "--filter-platform={}-unknown-linux-gnu",
            std::env::consts::ARCH
        ))
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50);
    for package in packages {
        // SPDX, as far as crates use it; `/` is an old way to write OR.
        let licence = package["license"].as_str().unwrap_or("none");
        let parts = licence.replace('/', " OR ");
        let own = exceptions
            .iter()
            .find(|one| one["crate"].as_str() == package["name"].as_str())
            .map(names)
            .unwrap_or_default();
        let is_allowed = parts.split(" AND ").all(|part| {
            let alternatives = part.trim_matches(['(', ')']);
            alternatives
                .split(" OR ")
                .any(|one| allowed.contains(one.trim()) || own.contains(one.trim()))
        });
        assert!(is_allowed, "{}: {licence}", package["name"]);
    }
}
