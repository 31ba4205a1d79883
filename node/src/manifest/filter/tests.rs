use super::*;

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

#[test]
fn files_of_directories_nest_anchor_and_clear() {
    let filter = filter(&[": .rules", "- *.bak"]);
    let path = |text: &str| TreePath::new(text.as_bytes()).expect("a path");
    let top = filter.top();
    let a = filter.enter(&top, &path("a"), false, &[Some(b"- /x\n# no rule\n+ keep.bak\n".to_vec())]).expect("rules");
    let deep = filter.enter(&a, &path("a/b"), false, &[None]).expect("rules");
    let cleared = filter.enter(&a, &path("a/c"), false, &[Some(b"!\n- y".to_vec())]).expect("rules");
    let says = |scope: &Scope, path: &str| {
        filter.verdict(scope, Side::Remote, Subject { path: path.as_bytes(), below: 0, is_dir: false }, false)
    };
    assert_eq!(says(&a, "a/x"), Some(false));
    assert_eq!(says(&deep, "a/b/x"), None);
    assert_eq!(says(&deep, "a/b/keep.bak"), Some(true));
    assert_eq!(says(&deep, "a/b/other.bak"), Some(false));
    assert_eq!(says(&cleared, "a/c/keep.bak"), Some(false));
    assert_eq!(says(&cleared, "a/c/y"), Some(false));
    let nested = filter.enter(&top, &path("a"), false, &[Some(b". more".to_vec())]);
    assert!(matches!(nested, Err(FilterError::Unsupported { .. })), "{nested:?}");
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
