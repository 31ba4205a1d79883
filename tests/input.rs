//! Bad input on the command line and in settings: one line that names the object, exit code 1, nothing done.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;

use crate::util::{Lab, Machine, Run, Tree, facts};

/// A reference whose id is a key; nobody has the module.
const REFERENCE: &str = "murmir://k51qzi5uqu5dips0khg63h0ys1c5r0yemjk8o9u4d2zpek1a3dxfwgejao5uuf/tree";

/// The run said one thing on stderr, before it a hint at most, and named the object; nothing on stdout.
#[track_caller]
fn refused(run: Run, names: &str) -> Run {
    let run = run.expect(1);
    let lines: Vec<&str> = run.stderr.lines().collect();
    let last = lines.last().copied().unwrap_or_default();
    assert!(last.starts_with("murmir error: ") && last.ends_with(" (code 1)"), "{}", run.stderr);
    assert!(lines.len() <= 2, "{}", run.stderr);
    assert!(run.stderr.contains(names), "{names} in {}", run.stderr);
    assert!(run.stdout.is_empty(), "{}", run.text());
    run
}

fn fetch(machine: &Machine, flags: &[&str]) -> Run {
    let mut words: Vec<&dyn AsRef<OsStr>> = vec![&"--no-dht", &"fetch"];
    words.extend(flags.iter().map(|flag| flag as &dyn AsRef<OsStr>));
    words.extend([&REFERENCE as &dyn AsRef<OsStr>, &"dst"]);
    machine.run(&words)
}

#[test]
fn values_that_are_none_are_refused_by_name() {
    let lab = Lab::new();
    let machine = lab.machine("m");
    for (flag, names) in [
        ("--max-size=10X", "--max-size"),
        ("--min-size=-1", "--min-size"),
        ("--max-size=1.2.3K", "not a size"),
        ("--max-transfer=99999999999999999999", "too large"),
        ("--max-size-total=KiB", "K, M, G, T or P"),
        ("--bwlimit=fast", "--bwlimit"),
        ("--bwlimit=1:2:3", "not a size"),
        ("--max-age=5", "--max-age"),
        ("--max-age=1.5h", "s, m, h, d or w"),
        ("--seed=1y", "not a duration"),
        ("--wait-lock=99999999999999999999w", "too large"),
        ("--modify-window=soon", "--modify-window"),
        ("--timeout=soon", "--timeout"),
        ("--contimeout=-5", "--contimeout"),
        ("--stop-after=1h", "--stop-after"),
        ("--stop-at=noon", "invalid --stop-at format: noon"),
        ("--stop-at=2001-01-01", "in the past"),
        ("--max-delete=many", "--max-delete"),
        ("--sources=0", "--sources"),
        ("--origin=often", "--origin"),
        ("--chmod=z+r", "z+r"),
        ("--suffix=a/b", "a/b"),
        ("--info=nmae", "nmae"),
        ("--web-seed=ftp://host/", "ftp://host/"),
        ("--port=none", "--port"),
        ("--no-such-flag", "--no-such-flag"),
        ("--listen=nowhere", "nowhere"),
        ("--peer=nobody", "nobody"),
        ("--inplace", "--inplace"),
    ] {
        refused(fetch(&machine, &[flag]), names);
    }
    for sample in ["0", "101", "many"] {
        refused(machine.run(&[&"verify", &"dst", &"--sample", &sample]), "--sample");
    }
    assert!(!lab.path("m/dst").exists());
}

#[test]
fn patterns_that_are_too_large_or_none_are_refused() {
    let lab = Lab::new();
    let machine = lab.machine("m");
    let long = "x".repeat(5000);
    let many = "a\n".repeat(10_001);
    fs::write(lab.path("many"), many).expect("a file");
    fs::write(lab.path("bad"), "- fine\nno rule\n").expect("a file");
    let file = |flag: &str, name: &str| format!("{flag}{}", lab.path(name).display());
    for (flag, names) in [
        (format!("--exclude={long}"), "filter rule too long: xxx"),
        (format!("--filter=- {long}"), "filter rule too long: - xxx"),
        (file("--exclude-from=", "many"), "more than 10000 filter rules"),
        (file("--filter=merge ", "bad"), "unknown filter rule: no rule"),
        ("--filter=nonsense".to_owned(), "unknown filter rule: nonsense"),
        ("--filter=-q x".to_owned(), "invalid modifier 'q'"),
        ("--filter=-x user.name".to_owned(), "invalid modifier 'x'"),
        ("--filter=- ".to_owned(), "unexpected end of filter rule"),
        (format!("--regex={}", "(a|b){500}".repeat(40)), "size limit"),
        ("--regex=a(".to_owned(), "a("),
        (format!("--regex={long}"), "too l"),
    ] {
        refused(fetch(&machine, &[&flag]), names);
    }
    fetch(&machine, &[&file("--exclude-from=", "missing")]).expect(11);
}

#[test]
fn a_pattern_that_matches_nothing_is_told_with_counts() {
    let lab = Lab::new();
    let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("t")));
    tree.many(1, 20, 10);
    let node = origin.serve(&[]);
    let reference = node.link(&origin.publish(tree.root()).reference);
    let dest = lab.path("copy");
    for flags in [&["--include=*/", "--include=*.deb", "--exclude=*", "-m"][..], &["--regex=[.]deb$"]] {
        let mut words: Vec<&dyn AsRef<OsStr>> = vec![&"fetch"];
        words.extend(flags.iter().map(|flag| flag as &dyn AsRef<OsStr>));
        words.extend([&reference as &dyn AsRef<OsStr>, &dest]);
        let run = client.ok(&words);
        assert_eq!((run.text().as_str(), run.stderr.trim_end()), ("", "nothing matches: 0 of 22 entries"), "{flags:?}");
        assert!(facts(&dest).is_empty(), "{flags:?}");
    }
    let run = client.ok(&[&"find", &reference, &"*.deb"]);
    assert_eq!((run.text().as_str(), run.stderr.trim_end()), ("", "nothing matches"));
}

#[test]
fn destinations_that_are_not_ours_are_refused() {
    let lab = Lab::new();
    let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("t")));
    tree.file("a", "a");
    let node = origin.serve(&[]);
    let reference = node.link(&origin.publish(tree.root()).reference);
    let (other, home) = (Tree::new(lab.path("other")), lab.path("c"));
    other.file("mine", "precious");
    refused(client.run(&[&"mirror", &reference, &other.root()]), "other");
    refused(client.run(&[&"fetch", &"--delete", &reference, &other.root()]), "other");
    for verb in ["mirror", "fetch"] {
        refused(client.run(&[&verb, &"--delete", &"--adopt", &reference, &"/"]), "/");
        refused(client.run(&[&verb, &"--delete", &"--adopt", &reference, &home]), &home.display().to_string());
    }
    assert_eq!(fs::read(other.path("mine")).expect("it stands"), b"precious");
}

#[test]
fn ids_that_are_none_or_nearly_another_are_refused() {
    let lab = Lab::new();
    let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("t")));
    tree.file("a", "a");
    let node = origin.serve(&[]);
    let reference = origin.publish(tree.root()).reference;
    client.ok(&[&"fetch", &node.link(&reference), &lab.path("copy")]);
    let id = reference.trim_start_matches("murmir://").split('/').next().expect("an id");
    let swapped = |at: usize| {
        let mut letters: Vec<char> = id.chars().collect();
        letters.swap(at, at + 1);
        letters.into_iter().collect::<String>()
    };
    // Some neighbours are the same letter.
    let near: Vec<String> = (10..40).map(swapped).filter(|other| other != id).take(3).collect();
    for other in near {
        // A text that is no key is refused as that; one that is, for being so near.
        refused(client.run(&[&"ls", &format!("murmir://{other}/tree")]), &other);
    }
    refused(client.run(&[&"ls", &format!("murmir://{}/tree", &id[..id.len() - 1])]), id.split_at(40).0);
    for (bad, names) in [
        ("murmir://nobody/tree", "nobody"),
        ("murmir:///tree", "is not a publisher id"),
        (&format!("murmir://{id}/"), "no module name"),
        (&format!("murmir://{id}/a b/c"), "a b"),
        (&format!("murmir://{id}/tree@x"), "x"),
        (&format!("murmir://{id}/tree/%zz"), "%zz"),
        (&format!("murmir://{id}/tree?peer=nowhere"), "nowhere"),
    ] {
        refused(client.run(&[&"ls", &bad]), names);
    }
}

#[test]
fn settings_are_refused_with_line_and_column() {
    let lab = Lab::new();
    let machine = lab.machine("m");
    let large = [b"# ".to_vec(), vec![b'x'; 2 << 20]].concat();
    for (text, names) in [
        (b"json = true\npeeer = []\n".to_vec(), "line 2, column 1: unknown key, did you mean peer?"),
        (b"\n  lisen = []\n".to_vec(), "line 2, column 3: unknown key, did you mean listen?"),
        (b"json = \"yes\"\n".to_vec(), "line 1, column 8"),
        (b"listen = [\n".to_vec(), "line "),
        (b"json = true\njson = false\n".to_vec(), "line 2"),
        (b"peer = [\"nobody\"]\n".to_vec(), "nobody"),
        (b"state-dir = 7\n".to_vec(), "line 1, column 13"),
        (b"\xff\xfe".to_vec(), "settings"),
        (large, "too large"),
    ] {
        let file = lab.path("settings");
        fs::write(&file, text).expect("a file");
        refused(machine.run(&[&"--config", &file, &"config"]), names);
    }
    refused(machine.run(&[&"--config", &lab.path("none"), &"config"]), "none");
    refused(machine.run(&[&"--config", &lab.path(""), &"config"]), "murmir-test");
}

#[test]
fn command_lines_of_any_bytes_end_in_one_line() {
    let lab = Lab::new();
    let machine = lab.machine("m");
    let odd = OsString::from_vec(b"murmir://\xff\x1b[31m/x".to_vec());
    for words in [
        vec![&odd as &dyn AsRef<OsStr>],
        vec![&"fetch"],
        vec![&"fetch", &odd, &"dst"],
        vec![&"rsync", &"-a", &odd, &"dst"],
        vec![&"rsync", &"-a", &"here/", &"host::there"],
        vec![&"rsync", &"-a", &"host:there", &"here"],
        vec![&"rsync"],
        vec![&"forget", &odd],
        vec![&"--config", &odd, &"config"],
    ] {
        let run = machine.run(&words).expect(1);
        let last = run.stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with("murmir error: ") && last.ends_with(" (code 1)"), "{}", run.stderr);
        assert!(run.stderr.chars().all(|char| char == '\n' || !char.is_control()), "{:?}", run.stderr);
    }
}

#[test]
fn words_of_newcomers() {
    let lab = Lab::new();
    let (machine, tree) = (lab.machine("m"), Tree::new(lab.path("tree")));
    tree.file("a", "text");
    assert!(machine.ok(&[&"fetch", &"--version"]).text().contains(env!("CARGO_PKG_VERSION")));
    let lacking = machine.run(&[&"fetch"]).expect(1);
    assert!(lacking.stderr.contains("<REF>"), "{}", lacking.stderr);
    let node = machine.serve(&[]);
    let file = node.link(&format!("{}/a", machine.publish(tree.root()).reference));
    let client = lab.machine("c");
    let deep = lab.path("none/name");
    client.run(&[&"--no-dht", &"fetch", &file, &deep]).expect(11);
    assert!(!lab.path("none").exists());
    client.ok(&[&"--no-dht", &"fetch", &"--mkpath", &file, &deep]);
    assert!(deep.is_file());
}
