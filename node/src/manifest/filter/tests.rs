use super::*;
use crate::manifest::path::TreePath;

fn filter(rules: &[&str]) -> Filter {
    let mut filter = Filter::default();
    for rule in rules {
        let mut none = |_: &[u8]| Err(FilterError::TooMany);
        filter.add(rule.as_bytes(), Manner::default(), &mut none).expect("a rule");
    }
    filter
}

fn verdict(filter: &Filter, side: Side, path: &str) -> Option<bool> {
    let is_dir = path.ends_with('/');
    let path = path.trim_end_matches('/').as_bytes();
    filter.verdict(&filter.top(), side, Subject { path, below: 0, is_dir }, false)
}

#[test]
fn first_match_wins_and_patterns_reach_where_rsyncs_do() {
    for (rule, path, matches) in [
        ("foo", "foo", true),
        ("foo", "a/foo", true),
        ("/foo", "a/foo", false),
        ("foo/", "foo", false),
        ("foo/", "foo/", true),
        ("a/b", "x/a/b", true),
        ("a/b", "xa/b", false),
        ("a/*", "x/a/b", true),
        ("a/*", "x/a/b/c", false),
        ("a/**", "x/a/b/c", true),
        ("**/c", "c", true),
        ("**/c", "a/b/c", true),
        ("/a/***", "a/", true),
        ("/a/***", "a", false),
        ("/a/***", "a/b/c", true),
        ("*.o", "a/b.o", true),
        ("/*.o", "a/b.o", false),
    ] {
        let filter = filter(&[&format!("- {rule}")]);
        assert_eq!(verdict(&filter, Side::Remote, path), matches.then_some(false), "{rule} on {path}");
    }
    let filter = filter(&["+ *.c", "- a*", "+ *"]);
    assert_eq!(verdict(&filter, Side::Remote, "a.c"), Some(true));
    assert_eq!(verdict(&filter, Side::Remote, "a.h"), Some(false));
}

#[test]
fn sides_and_clearing() {
    let filter = filter(&["- gone", "!", "hide h", "P p", "-s s", "-r r"]);
    let both = |path| (verdict(&filter, Side::Remote, path), verdict(&filter, Side::Local, path));
    assert_eq!(both("gone"), (None, None));
    assert_eq!(both("h"), (Some(false), None));
    assert_eq!(both("p"), (None, Some(false)));
    assert_eq!(both("s"), (Some(false), None));
    assert_eq!(both("r"), (None, Some(false)));
}

/// The scope inside a directory of a tree with these files.
fn enter(filter: &Filter, outer: &Scope, dir: &str, files: &[(&str, &str)]) -> Result<Scope, FilterError> {
    let (dir, base) = (TreePath::new(dir.as_bytes()).expect("a path"), TreePath::root());
    let find = |path: &TreePath| files.iter().find(|(name, _)| name.as_bytes() == path.as_bytes());
    let mut read = |path: &TreePath| Ok(find(path).map(|(_, text)| text.as_bytes().to_vec()));
    filter.enter(outer, Inside { dir: &dir, base: &base, above: false }, &mut read)
}

fn says(filter: &Filter, scope: &Scope, path: &str) -> Option<bool> {
    filter.verdict(scope, Side::Remote, Subject { path: path.as_bytes(), below: 0, is_dir: false }, false)
}

#[test]
fn files_of_directories_nest_anchor_and_clear() {
    let filter = filter(&[": .rules", "- *.bak"]);
    let files = [("a/.rules", "- /x\n# no rule\n+ keep.bak\n"), ("a/c/.rules", "!\n- y")];
    let a = enter(&filter, &filter.top(), "a", &files).expect("rules");
    let deep = enter(&filter, &a, "a/b", &files).expect("rules");
    let cleared = enter(&filter, &a, "a/c", &files).expect("rules");
    assert_eq!(says(&filter, &a, "a/x"), Some(false));
    assert_eq!(says(&filter, &deep, "a/b/x"), None);
    assert_eq!(says(&filter, &deep, "a/b/keep.bak"), Some(true));
    assert_eq!(says(&filter, &deep, "a/b/other.bak"), Some(false));
    assert_eq!(says(&filter, &cleared, "a/c/keep.bak"), Some(false));
    assert_eq!(says(&filter, &cleared, "a/c/y"), Some(false));
}

#[test]
fn files_of_directories_merge_and_name_others() {
    let filter = filter(&[": .rules"]);
    let files = [
        ("a/.rules", "merge ./more\n. top\n- /k\n: .sub\n+ s"),
        ("a/more", "- m\n- /k"),
        ("top", "- t"),
        ("a/.sub", "- s"),
        ("a/b/.sub", "+ k\n+ s"),
        ("a/c/.rules", "!"),
    ];
    let a = enter(&filter, &filter.top(), "a", &files).expect("rules");
    let (b, c) = (enter(&filter, &a, "a/b", &files).expect("rules"), enter(&filter, &a, "a/c", &files).expect("rules"));
    let told =
        |scope: &Scope, dir: &str| ["m", "t", "k", "s"].map(|name| says(&filter, scope, &format!("{dir}/{name}")));
    assert_eq!(told(&a, "a"), [Some(false), Some(false), Some(false), Some(false)]);
    // What a file nearer by says of `s` comes first, but in the place where its name was told.
    assert_eq!(told(&b, "a/b"), [Some(false), Some(false), Some(true), Some(true)]);
    // Merged rules begin at the transfer root.
    assert_eq!(says(&filter, &a, "k"), Some(false));
    assert_eq!(told(&c, "a/c"), [None; 4]);
    let missing = enter(&filter, &filter.top(), "a", &[("a/.rules", ". none")]);
    assert!(matches!(missing, Err(FilterError::NoFile { .. })), "{missing:?}");
    let circle = enter(&filter, &filter.top(), "a", &[("a/.rules", ". ./.rules")]);
    assert!(matches!(circle, Err(FilterError::TooMany)), "{circle:?}");
    let outside = enter(&filter, &filter.top(), "a", &[("a/.rules", ". ../../x")]);
    assert!(matches!(outside, Err(FilterError::NoFile { .. })), "{outside:?}");
}

#[test]
fn texts_come_back() {
    let rules = ["- *.o", "+!/ps x y", "-r /a/***", "hide z", ":enw .rules", ":C", "-C", ":+ .only", ": /.up"];
    let filter = filter(&rules);
    assert_eq!(Filter::from_texts(&filter.to_texts()).expect("rules"), filter);
}

#[test]
fn nonsense_is_refused() {
    let mut none = |_: &[u8]| Err(FilterError::TooMany);
    for rule in ["", "x foo", "-", "- ", "-z foo", "+e foo", "!foo", "excluded foo", ": a/b", "-x user.*"] {
        assert!(Filter::default().add(rule.as_bytes(), Manner::default(), &mut none).is_err(), "{rule}");
    }
}
