//! The whole help text and the manual page, as golden files: what a change does to them is seen in its diff.
//!
//! `MURMIR_RENEW=1 cargo test --workspace --test murmir-tests -- manual` writes them anew.

use std::fs;
use std::path::PathBuf;

use crate::util::{Lab, Machine};

/// Where they are.
fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// Compares with the golden file, or makes it where that was asked for.
#[track_caller]
fn assert_golden(name: &str, text: &str) {
    let path = golden(name);
    if std::env::var_os("MURMIR_RENEW").is_some() {
        fs::create_dir_all(path.parent().expect("a directory")).expect("tests/golden");
        return fs::write(&path, text).expect("a golden file");
    }
    let known = fs::read_to_string(&path).unwrap_or_default();
    let at = known.lines().zip(text.lines()).take_while(|(one, other)| one == other).count();
    assert!(
        known == text,
        "tests/golden/{name} differs from line {} on:\n- {}\n+ {}\nMURMIR_RENEW=1 writes it anew",
        at + 1,
        known.lines().nth(at).unwrap_or_default(),
        text.lines().nth(at).unwrap_or_default()
    );
}

fn verbs(machine: &Machine) -> Vec<String> {
    let help = machine.ok(&[&"--help"]).text();
    let list =
        help.split("Commands:\n").nth(1).expect("a list of verbs").split("\n\n").next().expect("its end").to_owned();
    let first = |line: &str| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')).map(str::to_owned);
    list.lines().filter_map(first).filter_map(|line| Some(line.split(' ').next()?.to_owned())).collect()
}

#[test]
fn the_help_text_is_as_it_was() {
    let lab = Lab::new();
    let machine = lab.machine("m");
    let mut text = machine.ok(&[&"--help"]).text();
    let verbs = verbs(&machine);
    assert!(verbs.len() > 25, "{verbs:?}");
    for verb in verbs {
        text.push_str(&format!("\n===== murmir {verb} --help\n{}", machine.ok(&[&verb, &"--help"]).text()));
    }
    assert_golden("help.txt", &text);
}

#[test]
fn the_manual_page_is_as_it_was() {
    let lab = Lab::new();
    assert_golden("murmir.1", &lab.machine("m").ok(&[&"man"]).text());
}
