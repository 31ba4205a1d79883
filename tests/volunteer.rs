//! `publish --from`: an unofficial module of a tree whose origin does not cooperate.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::util::{Daemon, Lab, Machine, Manner, Server, Tree, Web, assert_same, noise, until};

/// A tree as its origin has it, with times that all ways of copying keep.
fn origin(lab: &Lab) -> Tree {
    let tree = Tree::new(lab.path("origin"));
    tree.file("large", noise(1, 9_500_001)).file("dir/a b&c%.txt", "text").many(2, 40, 3000).file("dir/deep/x", "x");
    date(&tree);
    tree
}

fn date(tree: &Tree) {
    let mut all = Command::new("find");
    all.arg(tree.root()).args(["-exec", "touch", "-h", "-d", "@1000000000", "{}", "+"]);
    assert!(all.status().unwrap().success());
}

/// What was brought, without our own directory.
fn brought(lab: &Lab, dir: &Path) -> PathBuf {
    let copy = lab.path("brought");
    let _ = std::fs::remove_dir_all(&copy);
    let run = Command::new("rsync").args(["-a", "--exclude=/.murmir/"]).arg(dir.join("")).arg(&copy).status();
    assert!(run.unwrap().success());
    copy
}

fn newcomer(lab: &Lab, link: &str, webs: &[&Web], origin: &Tree) {
    let mut number = 0;
    // What the book has is shared every few seconds.
    until("a newcomer gets it from all of the origin's mirrors", || {
        number += 1;
        let (machine, dest) = (lab.machine(&format!("new {number}")), lab.path(&format!("copy {number}")));
        let run = machine.run(&[&"--json", &"--no-dht", &"fetch", &link, &dest]);
        if run.code != 0 {
            // A port of loopback may be in use for a moment when there are many tests.
            return None;
        }
        let done = run.last();
        assert_same(origin.root(), &dest);
        let sources = done["sources"].as_array().unwrap();
        let gave = |web: &&Web| sources.iter().any(|row| row["url"] == web.url() && row["received"].as_u64() > Some(0));
        webs.iter().all(gave).then_some(())
    });
}

#[test]
fn an_rsync_mirror_is_published_unofficially_and_its_web_mirrors_serve_newcomers() {
    let lab = Lab::new();
    let (origin, volunteer, dir) = (origin(&lab), lab.machine("v"), lab.path("pub"));
    origin.symlink("link", "large");
    date(&origin);
    let daemon = Daemon::start(&lab, origin.root(), "Welcome.\n", "");
    let url = format!("rsync://127.0.0.1:{}/tree", daemon.port());
    let webs: Vec<Web> = (0..3).map(|_| Web::start(origin.root(), Manner::Good)).collect();
    let urls: Vec<String> = webs.iter().map(|web| format!("--url={}", web.url())).collect();
    let node = volunteer.serve(&[]);
    let published = volunteer.json(&[&"publish", &dir, &"--from", &url, &urls[0], &urls[1], &urls[2]]);
    assert_same(origin.root(), &brought(&lab, &dir));
    let link = published["link"].as_str().unwrap();
    newcomer(&lab, link, &webs.iter().collect::<Vec<_>>(), &origin);
    // It is told from what the origin itself would publish.
    let reader = lab.machine("reader");
    assert_eq!(reader.json(&[&"--no-dht", &"resolve", &link])["unofficial"], url);
    assert!(reader.ok(&[&"--no-dht", &"ls", &link]).stderr.contains("unofficial"));
    // The next day.
    std::fs::remove_file(origin.path("dir/deep/x")).unwrap();
    origin.file("dir/new", "new");
    date(&origin);
    let again = volunteer.json(&[&"publish", &dir, &"--from", &url]);
    assert_eq!(again["seq"], 2);
    assert_same(origin.root(), &brought(&lab, &dir));
    // Still unofficial when only looked at again; and where the origin does not answer nothing is signed.
    volunteer.json(&[&"publish", &dir]);
    assert_eq!(reader.json(&[&"--no-dht", &"resolve", &link])["unofficial"], url);
    drop(daemon);
    let failed = volunteer.run(&[&"publish", &dir, &"--from", &url]).expect(10);
    assert!(failed.stderr.ends_with("rsync failed (code 10)\n"), "{}", failed.stderr);
    drop(node);
}

/// Publishes what `url` lists, and again after changes.
fn publish_listing(lab: &Lab, origin: &Tree, volunteer: &Machine, url: &str) {
    let dir = lab.path("pub");
    let first = volunteer.json(&[&"publish", &dir, &"--from", &url]);
    assert_same(origin.root(), &brought(lab, &dir));
    let same = volunteer.json(&[&"publish", &dir, &"--from", &url]);
    assert_eq!((&same["seq"], &same["root"]), (&first["seq"], &first["root"]));
    std::fs::remove_dir_all(origin.path("dir/deep")).unwrap();
    std::fs::remove_file(origin.path("large")).unwrap();
    origin.file("large/is a directory", "now").file("dir/new", "new");
    date(origin);
    origin
        .file("dir/a b&c%.txt", "TEXT")
        .mtime("dir/a b&c%.txt", 1_000_000_007, 0)
        .mtime("dir", 1_000_000_007, 0)
        .mtime("", 1_000_000_007, 0);
    assert_eq!(volunteer.json(&[&"publish", &dir, &"--from", &url])["seq"], 2);
    assert_same(origin.root(), &brought(lab, &dir));
    // Nothing is deleted for a server that lists no more.
    let before = std::fs::read_dir(&dir).unwrap().count();
    std::fs::write(origin.path("index.html"), "<title>Welcome</title>").unwrap();
    let refused = volunteer.run(&[&"publish", &dir, &"--from", &url]).expect(5);
    assert!(refused.stderr.contains("no listing of a directory"), "{}", refused.stderr);
    std::fs::remove_file(origin.path("index.html")).unwrap();
    let gone = format!("{url}/nothing");
    volunteer.run(&[&"publish", &dir, &"--from", &gone]).expect(10);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), before);
}

#[test]
fn a_listing_of_nginx_is_published() {
    let lab = Lab::new();
    let (origin, volunteer) = (origin(&lab), lab.machine("v"));
    let Some(server) = Server::nginx(&lab, origin.root(), "") else { return };
    publish_listing(&lab, &origin, &volunteer, &server.url());
    // A newcomer asks the server for what the volunteer publishes, and the volunteer for the rest.
    let node = volunteer.serve(&[]);
    let link = node.link(volunteer.json(&[&"status"])["modules"][0]["reference"].as_str().unwrap());
    let done = lab.machine("new").json(&[&"--no-dht", &"fetch", &link, &lab.path("copy")]);
    assert_same(origin.root(), &lab.path("copy"));
    assert_eq!(done["seq"], 2);
}

#[test]
fn a_listing_of_python_is_published() {
    let lab = Lab::new();
    let (origin, volunteer) = (origin(&lab), lab.machine("v"));
    let Some(server) = Server::python(&lab, origin.root()) else { return };
    publish_listing(&lab, &origin, &volunteer, &server.url());
}

#[test]
fn what_the_volunteer_has_is_guarded() {
    let lab = Lab::new();
    let (volunteer, dir) = (lab.machine("v"), lab.path("mine"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("precious"), "x").unwrap();
    let url = "http://127.0.0.1:1/";
    let refused = volunteer.run(&[&"publish", &dir, &"--from", &url]).expect(1);
    assert!(refused.stderr.contains("--adopt"), "{}", refused.stderr);
    volunteer.run(&[&"publish", &dir, &"--adopt", &"--from", &url]).expect(10);
    assert!(dir.join("precious").exists());
    for nonsense in ["murmir://k51/x", "/srv/pub", "http://me:secret@host/", "rsync://host/"] {
        volunteer.run(&[&"publish", &lab.path("new"), &"--from", &nonsense]).expect(1);
    }
    // An origin that lost nearly all takes nothing away here.
    let tree = Tree::new(lab.path("many"));
    tree.many(4, 400, 10);
    let Some(server) = Server::python(&lab, tree.root()) else { return };
    let copy = lab.path("copy");
    volunteer.json(&[&"publish", &copy, &"--from", &server.url()]);
    for name in std::fs::read_dir(tree.root()).unwrap().map(|entry| entry.unwrap().path()).take(20) {
        std::fs::remove_dir_all(name).unwrap();
    }
    let before = std::fs::read_dir(&copy).unwrap().count();
    volunteer.run(&[&"publish", &copy, &"--from", &server.url()]).expect(25);
    assert_eq!(std::fs::read_dir(&copy).unwrap().count(), before);
    volunteer.json(&[&"publish", &copy, &"--allow-shrink", &"--from", &server.url()]);
    assert!(std::fs::read_dir(&copy).unwrap().count() < before);
}
