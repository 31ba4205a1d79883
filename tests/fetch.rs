//! Fetching from one peer: what arrives, what is printed, what is left alone.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::util::{Lab, Machine, Node, Published, Tree, assert_same, facts, noise};

/// An origin that serves one tree, and a machine that fetches from it.
struct Scene {
    lab: Lab,
    tree: Tree,
    origin: Machine,
    node: Node,
    client: Machine,
    published: Published,
}

impl Scene {
    fn new(fill: impl FnOnce(&Tree) -> &Tree) -> Self {
        let lab = Lab::new();
        let (origin, client, tree) = (lab.machine("o"), lab.machine("c"), Tree::new(lab.path("t")));
        fill(&tree);
        let node = origin.serve(&[]);
        let published = origin.publish(tree.root());
        Self { lab, tree, origin, node, client, published }
    }

    /// A reference to `path` in the module, with the origin as the peer to ask.
    fn below(&self, path: &str) -> String {
        self.node.link(&format!("{}/{path}", self.published.reference))
    }

    fn publish(&self) -> Published {
        self.origin.publish(self.tree.root())
    }

    fn fetch(&self, dest: &Path) -> Value {
        self.client.json(&[&"fetch", &self.published.link, &dest])
    }
}

fn number(row: &Value, key: &str) -> u64 {
    row[key].as_u64().unwrap_or_else(|| panic!("{key} in {row}"))
}

fn names(dir: &Path) -> Vec<String> {
    facts(dir).into_keys().map(|path| String::from_utf8_lossy(&path).into_owned()).collect()
}

#[test]
fn silence_is_success_and_nothing_of_ours_stays() {
    let scene = Scene::new(|tree| tree.sampler());
    let dest = scene.lab.path("copy");
    let run = scene.client.ok(&[&"fetch", &scene.published.link, &dest]);
    assert_eq!((run.text().as_str(), run.stderr.as_str()), ("", ""));
    assert!(!dest.join(".murmir").exists());
    assert_same(scene.tree.root(), &dest);
}

#[test]
fn the_root_itself_gets_mode_and_mtime() {
    use std::os::unix::fs::MetadataExt;
    let scene = Scene::new(|tree| tree.file("a", "a").mode("", 0o750).mtime("", 1_234_567_890, 5));
    let dest = scene.lab.path("copy");
    scene.fetch(&dest);
    let meta = fs::metadata(&dest).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.mtime_nsec()), (0o750, 1_234_567_890, 5));
}

#[test]
fn done_tells_what_was_moved_and_by_whom() {
    let scene = Scene::new(|tree| tree.many(1, 40, 5000));
    let done = scene.fetch(&scene.lab.path("copy"));
    assert_eq!(done["event"], "done");
    assert_eq!((number(&done, "seq"), number(&done, "files"), number(&done, "transferred")), (1, 40, 40));
    assert_eq!(done["root"], scene.published.root.as_str());
    assert_eq!((number(&done, "deleted"), number(&done, "reused")), (0, 0));
    let from = &done["from"];
    assert_eq!(number(from, "peers") + number(from, "web_seeds") + number(from, "classic"), 0, "{from}");
    assert!((200_000..250_000).contains(&number(from, "origin")), "the origin's id stands in the charter: {from}");
    let source = &done["sources"][0];
    assert_eq!(source["peer_id"], scene.node.peer_id());
    assert!(number(&done, "received") >= number(source, "received"));
    assert_eq!((number(source, "bad"), &source["banned"]), (0, &Value::Bool(false)));
}

#[test]
fn an_unchanged_tree_costs_one_head_and_no_page() {
    let scene = Scene::new(|tree| tree.many(1, 400, 500));
    let dest = scene.lab.path("copy");
    let first = scene.fetch(&dest);
    let again = scene.fetch(&dest);
    assert_eq!((number(&again, "transferred"), number(&again, "deleted")), (0, 0));
    assert_eq!(number(&again["from"], "origin"), 0, "neither pages nor files: {again}");
    assert!(number(&again, "received") < 16 << 10, "handshakes, hello and head: {again}");
    assert!(number(&first, "received") > number(&again, "received"));
}

#[test]
fn only_changed_content_travels() {
    let scene = Scene::new(|tree| tree.many(1, 100, 4000).file("big", noise(9, 2 << 20)));
    let dest = scene.lab.path("copy");
    scene.fetch(&dest);
    scene.tree.file("d003/f00031", noise(77, 4000));
    fs::rename(scene.tree.path("big"), scene.tree.path("d000/renamed")).unwrap();
    fs::copy(scene.tree.path("d001/f00011"), scene.tree.path("copy-of-it")).unwrap();
    fs::rename(scene.tree.path("d009"), scene.tree.path("moved")).unwrap();
    scene.publish();
    let done = scene.client.json(&[&"fetch", &"--delete", &"--adopt", &scene.published.link, &dest]);
    assert_eq!(number(&done, "transferred"), 1, "a rename, a copy and a move transfer nothing: {done}");
    assert!(number(&done["from"], "origin") < 100_000, "one file and its pages: {done}");
    assert_same(scene.tree.root(), &dest);
}

#[test]
fn without_a_destination_it_is_a_listing() {
    let scene = Scene::new(|tree| tree.sampler());
    let run = scene.client.ok(&[&"fetch", &scene.published.link]);
    assert!(
        run.lines().iter().any(|line| line.starts_with("-rw-------") && line.ends_with(" a.txt")),
        "{}",
        run.text()
    );
}

#[test]
fn a_dash_is_stdout() {
    let scene = Scene::new(|tree| tree.sampler());
    let run = scene.client.ok(&[&"fetch", &scene.below("bin/tool"), &"-"]);
    assert_eq!(run.stdout, noise(1, 300_000));
    let cat = scene.client.ok(&[&"cat", &scene.below("caf%E9")]);
    assert_eq!(cat.text(), "latin");
}

#[test]
fn the_trailing_slash_decides_as_in_rsync() {
    let scene = Scene::new(|tree| tree.sampler());
    let (with, without, file) = (scene.lab.path("with"), scene.lab.path("without"), scene.lab.path("file"));
    scene.client.ok(&[&"fetch", &scene.below("deep/"), &with]);
    assert_eq!(names(&with), ["er", "er/est", "er/est/file", "twin"]);
    scene.client.ok(&[&"fetch", &scene.below("deep"), &without]);
    assert_eq!(names(&without), ["deep", "deep/er", "deep/er/est", "deep/er/est/file", "deep/twin"]);
    fs::create_dir(&file).unwrap();
    scene.client.ok(&[&"fetch", &scene.below("bin/tool"), &file]);
    assert_eq!(names(&file), ["tool"]);
}

#[test]
fn one_file_below_costs_its_pages_only() {
    let scene = Scene::new(|tree| tree.many(1, 2000, 100).file("one/file", "x"));
    let done = scene.client.json(&[&"fetch", &scene.below("one/file"), &scene.lab.path("copy")]);
    assert!(number(&done["from"], "origin") < 32 << 10, "two directories' pages of 200: {done}");
}

#[test]
fn patterns_choose_what_comes() {
    let scene = Scene::new(|tree| {
        tree.file("a.c", "").file("a.o", "").file("doc/x.c", "").file("doc/y.txt", "").file("big/z.c", "")
    });
    let dest = scene.lab.path("copy");
    let rules: [&str; 6] = ["--exclude", "/big/", "--include", "*.txt", "--exclude", "doc/*"];
    let [a, b, c, d, e, f] = rules;
    scene.client.ok(&[&"fetch", &a, &b, &c, &d, &e, &f, &"--exclude=*.o", &scene.published.link, &dest]);
    assert_eq!(names(&dest), ["a.c", "doc", "doc/y.txt"], "the first match wins");
    let none = scene.client.ok(&[&"fetch", &"--exclude=*", &scene.published.link, &scene.lab.path("none")]);
    assert!(none.stderr.contains("nothing matches: 0 of 7 entries"), "{}", none.stderr);
    let large = format!("--exclude={}", "x".repeat(5000));
    scene.client.run(&[&"fetch", &large, &scene.published.link, &dest]).expect(1);
    scene.client.run(&[&"fetch", &"--regex=(", &scene.published.link, &dest]).expect(1);
    scene.client.run(&[&"fetch", &"--filter=x y", &scene.published.link, &dest]).expect(1);
    scene.client.run(&[&"fetch", &"--max-size=3Q", &scene.published.link, &dest]).expect(1);
    scene.client.run(&[&"fetch", &"--exclude-from=/no/such", &scene.published.link, &dest]).expect(11);
}

#[test]
fn a_dry_run_prints_the_plan_and_changes_nothing() {
    let scene = Scene::new(|tree| tree.file("a", "1").file("sub/b", "2").symlink("l", "a"));
    let dest = scene.lab.path("copy");
    let run = scene.client.ok(&[&"fetch", &"-n", &"-i", &scene.published.link, &dest]);
    for line in [">f+++++++++ a", "cd+++++++++ sub/", ">f+++++++++ sub/b", "cL+++++++++ l -> a"] {
        assert!(run.lines().iter().any(|one| one == line), "{line} in {}", run.text());
    }
    assert!(!dest.exists());
    scene.fetch(&dest);
    scene.tree.file("a", "other");
    scene.publish();
    let before = facts(&dest);
    let run = scene.client.ok(&[&"fetch", &"--dry-run", &"-i", &scene.published.link, &dest]);
    assert!(run.lines().iter().any(|line| line.starts_with(">fcs") && line.ends_with(" a")), "{}", run.text());
    assert_eq!(facts(&dest), before);
}

#[test]
fn what_is_not_in_the_module_stays_without_delete() {
    let scene = Scene::new(|tree| tree.file("a", "new"));
    let dest = Tree::new(scene.lab.path("copy"));
    dest.file("a", "old").file("mine", "mine");
    scene.fetch(dest.root());
    assert_eq!(fs::read(dest.path("a")).unwrap(), b"new", "overwritten, as rsync does");
    assert_eq!(fs::read(dest.path("mine")).unwrap(), b"mine");
}

#[test]
fn delete_in_a_directory_that_is_not_ours_needs_adopt() {
    let scene = Scene::new(|tree| tree.file("a", "a"));
    let dest = Tree::new(scene.lab.path("copy"));
    dest.file("mine", "mine");
    scene.client.run(&[&"fetch", &"--delete", &scene.published.link, &dest.root()]).expect(1);
    assert_eq!(names(dest.root()), ["mine"], "refused before anything was done");
    scene.client.ok(&[&"fetch", &"--delete", &"--adopt", &scene.published.link, &dest.root()]);
    assert_eq!(names(dest.root()), ["a"]);
}

#[test]
fn home_is_never_a_replica() {
    let scene = Scene::new(|tree| tree.file("a", "a"));
    // A dry run: whatever becomes of the guard, no test deletes a machine.
    let home = scene.lab.path("c");
    let link = scene.lab.path("way-home");
    std::os::unix::fs::symlink(&home, &link).expect("symlink");
    for dest in [&home as &dyn AsRef<std::ffi::OsStr>, &link, &"/"] {
        scene.client.run(&[&"mirror", &"-n", &"--adopt", &scene.published.link, dest]).expect(1);
        scene.client.run(&[&"fetch", &"-n", &"--delete", &"--adopt", &scene.published.link, dest]).expect(1);
        scene.client.run(&[&"rsync", &"-an", &"--delete", &scene.published.link, dest]).expect(1);
    }
    // The home itself may be the symlink.
    let mut command = scene.client.command(&[&"mirror", &"-n", &"--adopt", &scene.published.link, &home]);
    assert_eq!(command.env("HOME", &link).output().expect("murmir").status.code(), Some(1));
}

/// 400 files in the destination, 160 of which have gone from the module.
fn shrunken() -> (Scene, std::path::PathBuf) {
    let scene = Scene::new(|tree| tree.many(1, 400, 10));
    let dest = scene.lab.path("copy");
    scene.fetch(&dest);
    for directory in 0..16 {
        fs::remove_dir_all(scene.tree.path(format!("d{directory:03}"))).unwrap();
    }
    scene.origin.publish_with(scene.tree.root(), &[&"--allow-shrink"]);
    (scene, dest)
}

#[test]
fn a_plan_that_deletes_over_a_quarter_stops_before_any_change() {
    let (scene, dest) = shrunken();
    let before = facts(&dest);
    let flags: [&dyn AsRef<std::ffi::OsStr>; 4] = [&"fetch", &"--delete", &"--adopt", &scene.published.link];
    let with = |more: &str| scene.client.run(&[flags[0], flags[1], flags[2], &more, flags[3], &dest]);
    with("--json").expect(25);
    assert_eq!(facts(&dest), before);
    with("--force-delete").expect(0);
    assert_same(scene.tree.root(), &dest);
}

#[test]
fn max_delete_is_rsyncs_and_lifts_the_guard() {
    let (scene, dest) = shrunken();
    let fetch =
        |limit: &str| scene.client.run(&[&"fetch", &"--delete", &"--adopt", &limit, &scene.published.link, &dest]);
    fetch("--max-delete=10").expect(25);
    assert!(names(&dest).len() > 400, "of 176 paths at most ten have gone");
    fetch("--max-delete=1000").expect(0);
    assert_same(scene.tree.root(), &dest);
}

#[test]
fn missing_parents_are_11_without_mkpath() {
    let scene = Scene::new(|tree| tree.file("a", "a"));
    let dest = scene.lab.path("not/there/copy");
    scene.client.run(&[&"fetch", &scene.published.link, &dest]).expect(11);
    assert!(!scene.lab.path("not").exists());
    scene.client.ok(&[&"fetch", &"--mkpath", &scene.published.link, &dest]);
    assert_same(scene.tree.root(), &dest);
}

#[test]
fn a_symlink_below_the_destination_is_never_followed() {
    let scene = Scene::new(|tree| tree.file("sub/secret", "published"));
    let (dest, outside) = (Tree::new(scene.lab.path("copy")), Tree::new(scene.lab.path("outside")));
    outside.file("secret", "untouched");
    dest.symlink("sub", outside.root().to_str().unwrap());
    scene.fetch(dest.root());
    assert_eq!(fs::read(outside.path("secret")).unwrap(), b"untouched");
    assert_same(scene.tree.root(), dest.root());
}

#[test]
fn the_destination_itself_may_be_a_symlink() {
    let scene = Scene::new(|tree| tree.file("a", "a"));
    let real = Tree::new(scene.lab.path("real"));
    std::os::unix::fs::symlink(real.root(), scene.lab.path("name")).unwrap();
    scene.fetch(&scene.lab.path("name"));
    assert_same(scene.tree.root(), real.root());
    assert!(fs::symlink_metadata(scene.lab.path("name")).unwrap().is_symlink());
}

#[test]
fn unknown_things_have_codes_of_their_own() {
    let scene = Scene::new(|tree| tree.file("a", "a"));
    let (client, dest) = (&scene.client, scene.lab.path("copy"));
    for path in ["nothing/here", "nothing"] {
        client.run(&[&"fetch", &scene.below(path), &dest]).expect(23);
    }
    let other = scene.node.link(&scene.published.reference.replace("/tree", "/other"));
    client.run(&[&"fetch", &other, &dest]).expect(40);
    let no_id = "murmir://k51nonsense/tree";
    client.run(&[&"fetch", &no_id, &dest]).expect(1);
    // One letter off an id that is known here.
    client.ok(&[&"resolve", &scene.published.link]);
    let id = scene.published.reference.trim_start_matches("murmir://").split('/').next().unwrap().to_owned();
    let last = if id.ends_with('a') { "b" } else { "a" };
    let slip = format!("murmir://{}{last}/tree", &id[..id.len() - 1]);
    let refused = client.run(&[&"fetch", &slip, &dest]).expect(1);
    assert!(refused.stderr.contains(&id), "the near one is named: {}", refused.stderr);
    client.run(&[&"fetch", &scene.published.link, &dest, &"--no-such-flag"]).expect(1);
    client.run(&[&"fetch", &"--owner", &scene.published.link, &dest]).expect(4);
    client.run(&[&"fetch", &"-A", &scene.published.link, &dest]).expect(4);
    assert!(!dest.exists());
}

#[test]
fn when_nobody_answers_the_error_lists_who_was_asked() {
    let scene = Scene::new(|tree| tree.file("a", "a"));
    let link = scene.published.link.clone();
    let address = scene.node.address().to_owned();
    scene.node.kill();
    let dest = scene.lab.path("copy");
    let run = scene.client.run(&[&"--json", &"--no-dht", &"fetch", &link, &dest]).expect(10);
    assert_eq!((&run.last()["event"], &run.last()["code"]), (&Value::from("error"), &Value::from(10)));
    let port = address.split('/').nth(4).unwrap();
    assert!(run.stderr.contains(port), "{}", run.stderr);
    let bare = scene.client.run(&[&"fetch", &scene.published.reference, &dest]).expect(10);
    assert!(bare.stderr.contains("--peer") || bare.stderr.contains("bootstrap"), "{}", bare.stderr);
}

#[test]
fn a_bad_port_is_named() {
    let scene = Scene::new(|tree| tree.file("a", "a"));
    let taken = format!("/ip4/127.0.0.1/tcp/{}", scene.node.port());
    let mut command = scene.client.command(&[]);
    command.args(["--listen", &taken, "serve"]);
    let run = crate::util::Running::start(command).finish().expect(10);
    assert!(run.stderr.contains(&scene.node.port().to_string()), "{}", run.stderr);
}
