use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::manifest::selection::Selection;
use crate::manifest::text::ByteText;

use super::*;

fn state() -> (tempfile::TempDir, State) {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(&dir.path().join("made/below")).unwrap();
    (dir, state)
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn registration() -> Registration {
    Registration {
        reference: "murmir://k51/m".into(),
        directory: "/srv/m".into(),
        role: Role::Mirror,
        selection: Selection {
            rules: vec![ByteText(b"- *.o".to_vec()), ByteText(vec![b'-', b' ', 0xff])],
            ..Selection::default()
        },
        late: vec!["Release".into()],
        http: Vec::new(),
        export: None,
        from: None,
        watch: true,
        key: None,
        withdrawn: false,
        fresh: Some(60),
    }
}

#[test]
fn the_place_depends_on_uid_and_environment() {
    let env = |set: &'static [(&str, &str)]| {
        move |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value))
    };
    let both: &[_] = &[("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
    assert_eq!(State::default_dir(0, env(both)).unwrap(), Path::new("/var/lib/murmir"));
    assert_eq!(State::default_dir(7, env(both)).unwrap(), Path::new("/x/murmir"));
    let relative: &[_] = &[("XDG_STATE_HOME", "x"), ("HOME", "/h")];
    assert_eq!(State::default_dir(7, env(relative)).unwrap(), Path::new("/h/.local/state/murmir"));
    assert_eq!(State::default_dir(7, env(&[])), None);
}

#[test]
fn made_private() {
    let (_dir, state) = state();
    state.add_key("default", &[7; 32]).unwrap();
    assert_eq!(mode(state.path()), 0o700);
    assert_eq!(mode(state.path().join("keys")), 0o700);
    assert_eq!(mode(state.path().join("keys/default.key")), 0o600);
}

#[test]
fn keys_are_never_replaced() {
    let (_dir, state) = state();
    assert_eq!(state.key("a").unwrap(), None);
    state.add_key("a", &[1; 32]).unwrap();
    assert!(matches!(state.add_key("a", &[2; 32]), Err(StateError::KeyExists { .. })));
    state.add_node_key(&[3; 32]).unwrap();
    assert!(matches!(state.add_node_key(&[4; 32]), Err(StateError::KeyExists { .. })));
    let again = State::open(state.path()).unwrap();
    assert_eq!(again.key("a").unwrap(), Some([1; 32]));
    assert_eq!(again.node_key().unwrap(), Some([3; 32]));
    assert_eq!(again.key_names().unwrap(), ["a"]);
}

#[test]
fn a_head_key_names_its_root_and_may_be_replaced() {
    let (_dir, state) = state();
    assert!(state.head_key("a").unwrap().is_none());
    state.set_head_key("a", &[1; 32], &[2; 32]).unwrap();
    state.set_head_key("a", &[1; 32], &[3; 32]).unwrap();
    assert!(state.head_key("a").unwrap() == Some(HeadKey { root: [1; 32], seed: [3; 32] }));
    assert_eq!(mode(state.path().join("keys/a.head")), 0o600);
    assert_eq!(state.key_names().unwrap(), ["a"], "also without its root key");
    fs::write(state.path().join("keys/a.head"), [1; 63]).unwrap();
    assert!(matches!(state.head_key("a"), Err(StateError::Damaged { .. })));
}

#[test]
fn a_key_name_cannot_leave_the_directory() {
    let (_dir, state) = state();
    assert!(matches!(state.add_key("../evil", &[1; 32]), Err(StateError::File(FileError::NotAName { .. }))));
    assert!(matches!(state.module("..", "m"), Err(StateError::File(FileError::NotAName { .. }))));
}

#[test]
fn a_short_key_is_damaged_not_used() {
    let (_dir, state) = state();
    fs::write(state.path().join("keys/a.key"), [1; 31]).unwrap();
    assert!(matches!(state.key("a"), Err(StateError::Damaged { .. })));
    fs::write(state.path().join("keys/a.key"), [1; 33]).unwrap();
    assert!(matches!(state.key("a"), Err(StateError::Damaged { .. })));
}

#[test]
fn newer_state_is_refused_and_left_alone() {
    let (_dir, state) = state();
    fs::write(state.path().join("version"), "2\n").unwrap();
    assert!(matches!(State::open(state.path()), Err(StateError::Newer { found: 2, .. })));
    assert_eq!(fs::read_to_string(state.path().join("version")).unwrap(), "2\n");
    fs::write(state.path().join("version"), "what").unwrap();
    assert!(matches!(State::open(state.path()), Err(StateError::Damaged { .. })));
}

#[test]
fn a_module_is_remembered() {
    let (_dir, state) = state();
    let module = state.module("k51", "m.seen").unwrap();
    assert_eq!(module.registration().unwrap(), None);
    assert_eq!(module.placed().unwrap(), None);
    let placed = Placed { epoch: 1, seq: u64::MAX, root: "bafy".into(), head: "00".into() };
    module.register(&registration()).unwrap();
    module.set_seen(b"bundle").unwrap();
    module.set_placed(&placed, b"bundle").unwrap();
    assert_eq!(module.held().unwrap().as_deref(), Some(&b"bundle"[..]));
    module.set_damaged(&[b"a/b".to_vec(), b"\xff\n".to_vec()]).unwrap();

    let again = State::open(state.path()).unwrap();
    assert_eq!(again.registered().unwrap(), [("k51".to_owned(), "m.seen".to_owned())]);
    let module = again.module("k51", "m.seen").unwrap();
    assert_eq!(module.registration().unwrap(), Some(registration()));
    assert_eq!(module.seen().unwrap().unwrap(), b"bundle");
    assert_eq!(module.placed().unwrap(), Some(placed));
    assert_eq!(module.damaged().unwrap(), [b"a/b".to_vec(), b"\xff\n".to_vec()]);

    module.unregister().unwrap();
    assert!(again.registered().unwrap().is_empty());
    assert_eq!(module.placed().unwrap(), None);
    assert_eq!(module.seen().unwrap().unwrap(), b"bundle", "the guard against rollback stays");
}

#[test]
fn a_fork_is_kept_whole_and_a_later_one_takes_its_place() {
    let (_dir, state) = state();
    let module = state.module("k51", "m").unwrap();
    assert_eq!(module.fork().unwrap(), None);
    module.set_fork(b"one", b"two").unwrap();
    module.set_fork(b"three", b"four").unwrap();
    assert_eq!(module.fork().unwrap().unwrap(), [b"three".to_vec(), b"four".to_vec()]);
}

#[test]
fn a_damaged_list_is_cut_not_refused() {
    let (_dir, state) = state();
    let module = state.module("k51", "m").unwrap();
    let paths = vec![vec![b'x'; 4000]; 2000];
    module.set_damaged(&paths).unwrap();
    let kept = module.damaged().unwrap().len();
    assert!((1..2000).contains(&kept), "{kept}");
}

#[test]
fn fetches_are_kept_by_destination() {
    let (_dir, state) = state();
    let fetched = Fetched { reference: "murmir://k51/m".into(), root: "bafy".into(), ours: true };
    state.set_fetched(Path::new("/d/1"), &fetched, Some(b"bundle")).unwrap();
    assert_eq!(state.fetched(Path::new("/d/2")).unwrap(), None);
    assert_eq!(state.fetched(Path::new("/d/1")).unwrap(), Some(fetched.clone()));
    assert_eq!(state.fetched_bundle(Path::new("/d/1")).unwrap().unwrap(), b"bundle");
    state.set_fetched(Path::new("/d/1"), &fetched, None).unwrap();
    assert_eq!(state.fetched_bundle(Path::new("/d/1")).unwrap(), None, "an old bundle vouches for another tree");
}

#[test]
fn the_peer_cache_is_bounded() {
    let (_dir, state) = state();
    let mut addresses: Vec<String> = (0..1000).map(|i| format!("/ip4/1.2.3.4/tcp/{i}")).collect();
    addresses.insert(0, "x".repeat(MAX_ADDRESS + 1));
    state.add_peers(&addresses).unwrap();
    assert_eq!(state.peers().unwrap(), addresses[1..=MAX_PEERS]);
    let met = [addresses[7].clone(), "/ip4/9.9.9.9/tcp/1".into()];
    state.add_peers(&met).unwrap();
    let kept = state.peers().unwrap();
    assert_eq!((kept.len(), &kept[..2], &kept[2..4]), (MAX_PEERS, &met[..], &addresses[1..3]), "the latest first");
}

#[test]
fn what_a_killed_write_left_is_ignored_and_swept() {
    let (_dir, state) = state();
    let module = state.module("k51", "m").unwrap();
    module.set_seen(b"old").unwrap();
    let left = ["~1-1", "keys/~1-1", "modules/k51/~1-1", "dests/~9-9"];
    for name in left {
        fs::write(state.path().join(name), "half").unwrap();
    }
    // The next temporary name of this process is taken too.
    for serial in 0..4 {
        fs::write(state.path().join(format!("~{}-{serial}", std::process::id())), "half").unwrap();
    }
    assert_eq!(module.seen().unwrap().unwrap(), b"old");
    assert!(state.key_names().unwrap().is_empty());
    let again = State::open(state.path()).unwrap();
    assert!(left.iter().all(|name| !state.path().join(name).exists()));
    again.add_peers(&["/a".into()]).unwrap();
    let rest: Vec<_> = fs::read_dir(state.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(rest.iter().all(|name| !name.to_string_lossy().starts_with('~')), "{rest:?}");
}

#[test]
fn a_write_survives_the_sweep_of_another_run() {
    let (_dir, state) = state();
    let other = State::open(state.path()).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (0..50).try_for_each(|i| state.add_peers(&[format!("/{i}")])));
        while !writer.is_finished() {
            State::open(other.path()).unwrap();
        }
        writer.join().unwrap().unwrap();
    });
    assert_eq!(state.peers().unwrap()[..2], ["/49", "/48"]);
}

#[test]
fn a_planted_link_is_not_read() {
    let (dir, state) = state();
    fs::write(dir.path().join("secret"), [9; 32]).unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret"), state.path().join("keys/a.key")).unwrap();
    assert!(matches!(state.key("a"), Err(StateError::File(_))));
}
