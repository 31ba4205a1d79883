//! Filter rules select what rsync selects: generated trees and rules, side by side with the real one.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::Command;

use murmir::manifest::filter::{Filter, FilterError, Inside, Manner, Scope, Side, Subject};
use murmir::manifest::path::TreePath;

use crate::util::{Random, cases, first_seed};

const NAMES: [&[u8]; 18] = [
    b"a",
    b"b",
    b"foo",
    b"bar",
    b"foo.c",
    b"foo.o",
    b"a b",
    b"x\ny",
    b"f\xff",
    b"[x]",
    b"*",
    b"core",
    b"-dash",
    b".git",
    b"x.bak",
    b"\xc3\xa9",
    b"tags",
    b"b\\c",
];
const PARTS: [&str; 24] = [
    "a",
    "b",
    "foo",
    "bar",
    "*",
    "**",
    "?",
    "*.c",
    "*.o",
    "foo*",
    "[a-f]*",
    "[!a]*",
    "[[:alpha:]]*",
    "f?o",
    "a b",
    "x*y",
    "\\*",
    "core",
    "***",
    "*.bak",
    "[x]",
    "b\\c",
    "é",
    "f**",
];
/// What may stand in a file of a directory. Merged files stand at the top, or beside the file that names them.
const LINES: [&str; 18] = [
    "- *.o",
    "+ foo",
    "- /a",
    "- b/",
    "!",
    "# no rule",
    "- a/b",
    "+ */",
    "-! *.c",
    "hide x*",
    "-p core",
    "- *",
    ". .more",
    ": .sub",
    ":n .sub",
    "-C",
    "merge ./.more",
    ":- .cvsignore",
];

fn fill(random: &mut Random, dir: &Path, depth: usize) {
    for _ in 0..2 + random.below(5) {
        let name = OsString::from_vec(random.pick(&NAMES).to_vec());
        let path = dir.join(name);
        if path.exists() {
            continue;
        }
        if depth < 3 && random.once_in(2) {
            fs::create_dir(&path).expect("directory");
            fill(random, &path, depth + 1);
        } else {
            fs::write(&path, "").expect("file");
        }
    }
    // rsync takes `[` and `*` in the path of such a file for wildcards of its anchored rules; we take them for names.
    let is_plain = !dir.as_os_str().as_bytes().iter().any(|byte| b"[*".contains(byte));
    if is_plain && random.once_in(3) {
        let lines: Vec<&str> = (0..1 + random.below(3)).map(|_| *random.pick(&LINES)).collect();
        fs::write(dir.join(".rules"), lines.join("\n") + "\n").expect("rules");
    }
    if is_plain && (depth == 0 || random.once_in(2)) {
        // These name no further files: rsync, too, would read them in circles.
        fs::write(dir.join(".more"), format!("{}\n", random.pick(&LINES[..12]))).expect("rules");
    }
    if is_plain && random.once_in(4) {
        fs::write(dir.join(".sub"), format!("{}\n", random.pick(&LINES))).expect("rules");
    }
    if random.once_in(4) {
        fs::write(dir.join(".cvsignore"), format!("{} {}\n", random.pick(&PARTS), random.pick(&PARTS))).expect("rules");
    }
}

fn pattern(random: &mut Random) -> String {
    let mut text = String::new();
    if random.once_in(3) {
        text.push('/');
    }
    for part in 0..1 + random.below(3) {
        if part > 0 {
            text.push('/');
        }
        text.push_str(random.pick::<&str>(&PARTS));
    }
    if random.once_in(4) {
        text.push('/');
    }
    text
}

/// One option of rsync's, and the rule it stands for.
fn option(random: &mut Random) -> (String, String, Manner) {
    let pattern = pattern(random);
    match random.below(10) {
        0..=2 => (format!("--exclude={pattern}"), pattern, Manner::patterns(false)),
        3..=4 => (format!("--include={pattern}"), pattern, Manner::patterns(true)),
        5 => {
            let rule = *random.pick(&[
                ": .rules",
                ":n .rules",
                ":e .rules",
                ":- .cvsignore",
                ":C",
                "-C",
                ":w- .cvsignore",
                "dir-merge .rules",
                ":s .rules",
            ]);
            (format!("--filter={rule}"), rule.to_owned(), Manner::default())
        }
        _ => {
            let sign = random.pick(&["- ", "+ ", "-! ", "hide ", "show ", "exclude,p ", "-s ", "P ", "-_", "+,! "]);
            let rule = format!("{sign}{pattern}");
            (format!("--filter={rule}"), rule, Manner::default())
        }
    }
}

/// What rsync would bring, sorted; none if it refuses the rules.
fn by_rsync(options: &[String], source: &Path) -> Option<BTreeSet<Vec<u8>>> {
    let mut from = source.as_os_str().to_owned();
    from.push("/");
    let run = Command::new("rsync")
        .args(["-r", "-n", "--out-format=%n"])
        .args(options)
        .arg(from)
        .arg(std::env::temp_dir().join("murmir-no-such-directory"))
        .env("HOME", "/nonexistent")
        .env_remove("CVSIGNORE")
        .output()
        .expect("rsync");
    let listed = run.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && *line != b"./");
    run.status.success().then(|| listed.map(unescape).collect())
}

/// rsync writes odd bytes as `\#ooo`.
fn unescape(line: &[u8]) -> Vec<u8> {
    let (mut rest, mut out) = (line, Vec::new());
    while let Some((first, tail)) = rest.split_first() {
        let octal = rest.strip_prefix(b"\\#").and_then(|rest| rest.get(..3));
        if let Some(byte) = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()) {
            out.push(byte);
            rest = &rest[5..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

fn by_us(filter: &Filter, source: &Path) -> Result<BTreeSet<Vec<u8>>, FilterError> {
    let mut found = BTreeSet::new();
    walk(filter, &filter.top(), source, &TreePath::root(), &mut found)?;
    Ok(found)
}

fn walk(
    filter: &Filter,
    outer: &Scope,
    source: &Path,
    at: &TreePath,
    found: &mut BTreeSet<Vec<u8>>,
) -> Result<(), FilterError> {
    let here = source.join(std::ffi::OsStr::from_bytes(at.as_bytes()));
    let mut read = |path: &TreePath| {
        Ok::<_, FilterError>(fs::read(source.join(std::ffi::OsStr::from_bytes(path.as_bytes()))).ok())
    };
    let scope = filter.enter(outer, Inside { dir: at, base: &TreePath::root(), above: false }, &mut read)?;
    for entry in fs::read_dir(&here).expect("a directory") {
        let entry = entry.expect("an entry");
        let name = murmir::manifest::path::Name::new(entry.file_name().as_bytes()).expect("a name");
        let (path, is_dir) = (at.join(&name).expect("a path"), entry.file_type().expect("a type").is_dir());
        let subject = Subject { path: path.as_bytes(), below: 0, is_dir };
        if filter.verdict(&scope, Side::Remote, subject, false) == Some(false) {
            continue;
        }
        found.insert([path.as_bytes(), if is_dir { b"/" } else { b"" }].concat());
        if is_dir {
            walk(filter, &scope, source, &path, found)?;
        }
    }
    Ok(())
}

fn difference(theirs: Option<BTreeSet<Vec<u8>>>, ours: Option<BTreeSet<Vec<u8>>>) -> String {
    let (Some(theirs), Some(ours)) = (&theirs, &ours) else {
        return format!("rsync refuses: {}, we refuse: {}", theirs.is_none(), ours.is_none());
    };
    let show = |one: &BTreeSet<Vec<u8>>, other: &BTreeSet<Vec<u8>>| -> Vec<String> {
        one.difference(other).take(5).map(|path| path.escape_ascii().to_string()).collect()
    };
    format!("only rsync {:?}, only we {:?}", show(theirs, ours), show(ours, theirs))
}

#[test]
fn rules_select_what_rsync_selects() {
    let (mut refused, mut failures) = (0, Vec::new());
    let cases = cases(200);
    for seed in first_seed()..first_seed() + cases as u64 {
        let mut random = Random::new(seed);
        let dir = tempfile::tempdir().expect("a directory");
        fill(&mut random, dir.path(), 0);
        let options: Vec<_> = (0..1 + random.below(6)).map(|_| option(&mut random)).collect();
        let words: Vec<String> = options.iter().map(|(option, ..)| option.clone()).collect();
        let mut filter = Filter::default();
        let mut no_files = |_: &[u8]| Err(FilterError::TooMany);
        let added: Result<(), FilterError> =
            options.iter().try_for_each(|(_, rule, manner)| filter.add(rule.as_bytes(), *manner, &mut no_files));
        let ours = added.and_then(|()| by_us(&filter, dir.path())).ok();
        let theirs = by_rsync(&words, dir.path());
        refused += usize::from(theirs.is_none());
        if ours != theirs {
            let kept = dir.keep();
            failures.push(format!("seed {seed}, {}: {words:?}\n{}", kept.display(), difference(theirs, ours)));
        }
    }
    assert!(failures.is_empty(), "{} of {cases}:\n{}", failures.len(), failures.join("\n"));
    assert!(refused * 4 < cases, "rsync refused {refused} of {cases} rule sets: the generator is off");
}
