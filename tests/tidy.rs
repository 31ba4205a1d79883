//! The shape of the source: what may name what, how long files may be (docs/ARCHITECTURE.md).

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file, in lines, tests included.
const MAX_LINES: usize = 500;

/// A source file: its path in the repository, and its text.
struct Source {
    path: String,
    text: String,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn collect(dir: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).expect("a source directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("source is text");
            let path = path.strip_prefix(repository()).expect("below").display().to_string();
            sources.push(Source { path, text });
        }
    }
}

/// All source files below these directories.
fn sources(dirs: &[&str]) -> Vec<Source> {
    let mut sources = Vec::new();
    for dir in dirs {
        collect(&repository().join(dir), &mut sources);
    }
    assert!(!sources.is_empty());
    sources
}

/// Lines of code that hold one of `words`, in files that are not `allowed`. Comments do not count, nor do unit tests.
fn findings(sources: &[Source], allowed: &[&str], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let is_test = source.path.contains("tests") || source.path.contains("fixtures");
        if is_test || allowed.iter().any(|prefix| source.path.starts_with(prefix)) {
            continue;
        }
        for (number, line) in source.text.lines().enumerate() {
            if line.trim_start().starts_with("#[cfg(test)]") {
                break;
            }
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    found
}

#[track_caller]
fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn files_are_short() {
    let sources = sources(&["node/src", "tracker-less/src", "tests"]);
    let long = sources.iter().filter(|source| source.text.lines().count() > MAX_LINES);
    assert_none(&long.map(|source| source.path.clone()).collect::<Vec<_>>());
}

#[test]
fn one_file_names_sled() {
    assert_none(&findings(&sources(&["node/src", "tracker-less/src"]), &["node/src/store/index"], &["sled::"]));
}

#[test]
fn only_the_ui_prints() {
    let words = ["println!", "print!(", "io::stdout", "io::stderr"];
    // The log's writer is set where the log is set up.
    let allowed = ["node/src/ui", "node/src/main.rs", "node/src/cli"];
    assert_none(&findings(&sources(&["node/src", "tracker-less/src"]), &allowed, &words));
    assert_none(&findings(&sources(&["node/src/cli", "node/src/verbs"]), &[], &["println!", "print!("]));
}

#[test]
fn tracker_less_is_pure_outside_net() {
    let words =
        ["Instant::now", "SystemTime::now", "std::fs", "std::net::Tcp", "tokio::", "libp2p::", "rand::", "getrandom"];
    assert_none(&findings(&sources(&["tracker-less/src"]), &["tracker-less/src/net"], &words));
}

#[test]
fn tracker_less_touches_no_disk() {
    assert_none(&findings(&sources(&["tracker-less/src"]), &[], &["std::fs", "tokio::fs", "std::path"]));
}

#[test]
fn the_manifest_is_pure() {
    let words = ["Instant::now", "SystemTime::now", "std::fs", "std::io", "tokio::", "rustix::", "libp2p::"];
    assert_none(&findings(&sources(&["node/src/manifest"]), &[], &words));
}

#[test]
fn plan_and_pick_are_pure() {
    let sources: Vec<Source> = sources(&["node/src/sync"])
        .into_iter()
        .filter(|source| source.path.contains("/plan/") || source.path.ends_with("/pick.rs"))
        .collect();
    assert!(sources.len() > 2);
    assert_none(&findings(&sources, &[], &["Instant::now", "SystemTime::now", "std::fs", "tokio::", "rustix::"]));
}

#[test]
fn left_uses_right_and_never_back() {
    let layers = ["cli", "verbs", "attach", "service", "control", "sync", "web", "wire", "store", "delta", "manifest"];
    let may_not: [(&str, &[&str]); 8] = [
        (
            "node/src/delta",
            &["store", "wire", "web", "sync", "control", "service", "verbs", "attach", "cli", "ui", "config"],
        ),
        ("node/src/manifest", &["store", "wire", "sync", "control", "service", "verbs", "cli", "ui", "config"]),
        ("node/src/store", &["wire", "sync", "control", "service", "verbs", "cli", "ui", "config"]),
        ("node/src/web", &["sync", "control", "service", "verbs", "attach", "cli", "ui", "config"]),
        ("node/src/attach", &["store", "sync", "control", "service", "verbs", "cli", "ui", "config"]),
        ("node/src/wire", &["web", "sync", "control", "service", "verbs", "cli", "ui", "config"]),
        ("node/src/sync", &["attach", "control", "service", "verbs", "cli", "ui", "config"]),
        ("node/src/verbs", &["cli", "config"]),
    ];
    for (dir, forbidden) in may_not {
        let words: Vec<String> = forbidden.iter().map(|layer| format!("crate::{layer}::")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_none(&findings(&sources(&[dir]), &[], &words));
    }
    assert!(layers.iter().all(|layer| {
        repository()
            .join("node/src")
            .read_dir()
            .expect("source")
            .flatten()
            .any(|entry| entry.path().file_stem().is_some_and(|stem| stem == *layer))
    }));
    assert_none(&findings(&sources(&["tracker-less/src"]), &[], &["murmir::"]));
}

#[test]
fn no_source_is_unsafe() {
    let lints = fs::read_to_string(repository().join("Cargo.toml")).expect("Cargo.toml");
    assert!(lints.contains("unsafe_code = \"forbid\""));
    let found = findings(&sources(&["node/src", "tracker-less/src"]), &[], &["allow(unsafe_code", "unsafe {"]);
    assert_none(&found);
}
