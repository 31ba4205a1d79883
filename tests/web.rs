//! Plain web servers as sources: what they send is used where it is right, and nothing else.

use crate::util::{Lab, Machine, Manner, Node, Proxy, Server, Tree, Web, assert_same, noise, until};

struct Scene {
    lab: Lab,
    tree: Tree,
    publisher: Machine,
    reference: String,
}

impl Scene {
    /// A tree that is published and exported, and the node that still serves it.
    fn new() -> (Self, Node) {
        let lab = Lab::new();
        let (publisher, tree) = (lab.machine("p"), Tree::new(lab.path("t")));
        tree.file("large", noise(1, 9_500_001)).file("dir/a b%c", "text").file("dir/empty", "").many(3, 60, 3000);
        tree.file("middle", noise(2, 300_000)).symlink("link", "large");
        let node = publisher.serve(&[]);
        let export = tree.path(".murmir");
        let reference = publisher.publish_with(tree.root(), &[&"--export", &export]).reference;
        (Self { lab, tree, publisher, reference }, node)
    }

    /// Fetches from the seeds and this peer; gives the last row.
    fn fetch(&self, name: &str, seeds: &[&Web], peer: Option<&Node>) -> serde_json::Value {
        let urls: Vec<String> = seeds.iter().map(|seed| seed.url()).collect();
        self.fetch_from(name, &urls, &peer.map_or(self.reference.clone(), |node| node.link(&self.reference)))
    }

    /// Fetches from web servers and whoever the link names; gives the last row.
    fn fetch_from(&self, name: &str, urls: &[String], link: &str) -> serde_json::Value {
        let mut words = vec!["--no-dht".to_owned(), "fetch".to_owned()];
        words.extend(urls.iter().map(|url| format!("--web-seed={url}")));
        words.extend([link.to_owned(), self.lab.path(name).display().to_string()]);
        let words: Vec<&dyn AsRef<std::ffi::OsStr>> =
            words.iter().map(|word| word as &dyn AsRef<std::ffi::OsStr>).collect();
        let row = self.lab.machine(&format!("machine {name}")).json(&words);
        assert_same_tree(&self.tree, &self.lab.path(name));
        row
    }
}

/// The published tree without its export.
fn assert_same_tree(tree: &Tree, copy: &std::path::Path) {
    let aside = tree.root().with_extension("export");
    std::fs::rename(tree.path(".murmir"), &aside).unwrap();
    assert_same(tree.root(), copy);
    std::fs::rename(&aside, tree.path(".murmir")).unwrap();
}

#[test]
fn plain_web_servers_alone_serve_a_newcomer_by_the_static_export() {
    let (scene, node) = Scene::new();
    node.kill();
    let (one, two) = (Web::start(scene.tree.root(), Manner::Good), Web::start(scene.tree.root(), Manner::Moved));
    let done = scene.fetch("copy", &[&one, &two], None);
    assert!(one.sent() > 1 << 20 && two.sent() > 1 << 20, "both within one large file: {done}");
    assert_eq!(done["from"]["peers"], 0, "{done}");
    assert!(done["sources"][0]["url"].as_str().unwrap().starts_with("http://"), "{done}");
    // Once more there is nothing to do, and next to nothing is asked for.
    let before = one.requests() + two.requests();
    scene.fetch("copy", &[&one, &two], None);
    assert!(one.requests() + two.requests() <= before + 4);
    // The next generation: the export goes with it, and of the old one nothing stays behind.
    scene.tree.file("middle", noise(7, 300_000));
    scene.publisher.publish(scene.tree.root());
    scene.fetch("next", &[&one], None);
    assert_eq!(std::fs::read_dir(scene.tree.path(".murmir/proofs")).unwrap().count(), 2);
}

#[test]
fn a_web_server_without_an_export_helps_a_peer() {
    let (scene, node) = Scene::new();
    node.kill();
    // Not done before the busy one may be asked again.
    let node = scene.publisher.serve(&[&"--bwlimit=4096:"]);
    let plain = scene.lab.path("plain");
    assert!(std::process::Command::new("cp").arg("-a").arg(scene.tree.root()).arg(&plain).status().unwrap().success());
    std::fs::remove_dir_all(plain.join(".murmir")).unwrap();
    for (name, manner) in [("good", Manner::Good), ("whole", Manner::Whole), ("busy", Manner::Busy)] {
        let web = Web::start(&plain, manner);
        // The peer answers for head, pages and hashes too.
        let done = scene.fetch(name, &[&web], Some(&node));
        assert!(done["from"]["web_seeds"].as_u64().unwrap() > 0, "{name}: {done}");
    }
}

#[test]
fn what_a_bad_server_sends_does_no_harm() {
    let (scene, node) = Scene::new();
    for (name, manner) in [
        ("wrong", Manner::Wrong),
        ("short", Manner::Short),
        ("shifted", Manner::Shifted),
        ("no range", Manner::NoRange),
        ("gzip", Manner::Gzip),
        ("changes", Manner::Changes),
        ("circle", Manner::Circle),
        ("refuses", Manner::Refuses),
        ("endless", Manner::Endless),
        ("trickles", Manner::Trickles),
        ("garbage", Manner::Garbage),
        ("silent", Manner::Silent),
    ] {
        let (web, good) = (Web::start(scene.tree.root(), manner), Web::start(scene.tree.root(), Manner::Good));
        scene.fetch(name, &[&web, &good], Some(&node));
    }
    // A server of something else altogether, and one that is not there.
    let other = Tree::new(scene.lab.path("other"));
    other.file("large", noise(9, 9_500_001)).file("dir/a b%c", "test");
    let web = Web::start(other.root(), Manner::Good);
    let done = scene.fetch("other", &[&web], Some(&node));
    assert_eq!(done["from"]["web_seeds"], 0, "{done}");
}

#[test]
fn a_bad_server_alone_is_named_with_its_fault() {
    let (scene, node) = Scene::new();
    node.kill();
    for (name, manner, fault) in [
        ("endless", Manner::Endless, "too large"),
        ("garbage", Manner::Garbage, "invalid HTTP"),
        ("circle", Manner::Circle, "302"),
        ("refuses", Manner::Refuses, "busy"),
    ] {
        let web = Web::start(scene.tree.root(), manner);
        let (seed, dest) = (format!("--web-seed={}", web.url()), scene.lab.path(name));
        let run = scene.lab.machine(&format!("m {name}")).run(&[&"--no-dht", &"fetch", &seed, &scene.reference, &dest]);
        let run = run.expect(10);
        assert!(run.stderr.contains(&web.url()) && run.stderr.contains(fault), "{name}: {}", run.stderr);
    }
}

/// Everything at once: real servers, one that lies, one that is slow, and a peer that stands still.
#[test]
fn real_servers_share_one_large_file_beside_a_slow_peer() {
    let (scene, node) = Scene::new();
    let dir = scene.tree.root();
    let Some(nginx) = Server::nginx(&scene.lab, dir, "") else { return };
    let Some(python) = Server::python(&scene.lab, dir) else { return };
    let (wrong, slow) = (Web::start(dir, Manner::Wrong), Web::start(dir, Manner::Slow(300_000)));
    let relay = Proxy::start(node.port());
    relay.hold_at(400_000);
    let urls = [nginx.url(), python.url(), wrong.url(), slow.url()];
    let link = format!("{}?peer={}", scene.reference, relay.address(node.address()));
    let done = scene.fetch_from("all", &urls, &link);
    let gave = |url: &str| {
        let rows = done["sources"].as_array().unwrap();
        rows.iter().find(|row| row["url"] == url).and_then(|row| row["received"].as_u64()).unwrap_or(0)
    };
    assert!(gave(&nginx.url()) > 0 && gave(&python.url()) > 0, "{done}");
    // With all peers gone, nginx and the static export are enough.
    drop(relay);
    node.kill();
    let done = scene.fetch_from("alone", &[nginx.url()], &scene.reference);
    assert!(done["from"]["web_seeds"].as_u64() > Some(9_500_000), "{done}");
    let behind = Server::nginx(&scene.lab, dir, "gzip on; gzip_types *; location /pub/ { return 302 /; }").unwrap();
    scene.fetch_from("gzip", &[behind.url()], &scene.reference);
    scene.fetch_from("python", &[python.url()], &scene.reference);
}

#[test]
fn an_older_copy_gives_what_has_not_changed() {
    let (scene, node) = Scene::new();
    let older = scene.lab.path("older");
    assert!(std::process::Command::new("cp").arg("-a").arg(scene.tree.root()).arg(&older).status().unwrap().success());
    scene.tree.file("middle", noise(5, 300_000));
    scene.publisher.publish_with(scene.tree.root(), &[&"--export", &scene.tree.path(".murmir")]);
    let web = Web::start(&older, Manner::Good);
    let done = scene.fetch("copy", &[&web], Some(&node));
    assert!(done["from"]["web_seeds"].as_u64().unwrap() > 0, "{done}");
}

#[test]
fn a_web_seed_that_is_no_address_is_refused() {
    let lab = Lab::new();
    let reference = "murmir://k51/x";
    lab.machine("c").run(&[&"fetch", &"--web-seed=ftp://host/", &reference, &lab.path("d")]).expect(1);
}

#[test]
fn a_web_address_leads_into_the_swarm() {
    let (scene, node) = Scene::new();
    let (site, client) = (Tree::new(scene.lab.path("site")), scene.lab.machine("c"));
    let modules = serde_json::json!({ "modules": [{ "reference": node.link(&scene.reference), "path": "/pub/" }] });
    site.file(".well-known/murmir.json", modules.to_string());
    let web = Web::start(site.root(), Manner::Good);
    let url = format!("{}/pub/dir/", web.url());
    client.run(&[&"--no-dht", &"fetch", &url, &scene.lab.path("x")]).expect(41);
    client.ok(&[&"--no-dht", &"fetch", &"--accept-new", &url, &scene.lab.path("copy")]);
    assert_same(&scene.tree.path("dir"), &scene.lab.path("copy"));
    let nothing =
        client.run(&[&"--no-dht", &"fetch", &format!("{}/else/", web.url()), &scene.lab.path("x")]).expect(10);
    assert!(nothing.stderr.contains("no module stands at /else/"), "{}", nothing.stderr);
    // The address itself may say so in its answer.
    let linked =
        Web::start_with(site.root(), Manner::Good, &format!("Link: <{}/dir>; rel=\"alternate\"", scene.reference));
    std::fs::write(site.path("page"), "x").unwrap();
    let page = format!("{}/page", linked.url());
    let via = format!("--peer={}", node.address());
    std::fs::rename(site.path(".well-known"), site.path("aside")).unwrap();
    client.ok(&[&"--no-dht", &via, &"fetch", &page, &scene.lab.path("linked")]);
    assert_same(&scene.tree.path("dir"), &scene.lab.path("linked/dir"));
    std::fs::rename(site.path("aside"), site.path(".well-known")).unwrap();
    // Garbage in its place is one clear line.
    for garbage in ["[", "{\"modules\":1}", &"x".repeat(70_000)] {
        site.file(".well-known/murmir.json", garbage);
        let run = client.run(&[&"--no-dht", &"fetch", &format!("{}/pub/x/", web.url()), &scene.lab.path("x")]);
        assert!(run.expect(10).stderr.contains("murmir.json"));
    }
}

#[test]
fn a_publisher_tells_of_the_web_servers_of_its_tree() {
    let (scene, node) = Scene::new();
    let web = Web::start(scene.tree.root(), Manner::Good);
    let url = web.url();
    scene.publisher.publish_with(scene.tree.root(), &[&"--url", &url]);
    // Without a word the next publication keeps them.
    scene.publisher.publish_with(scene.tree.root(), &[]);
    // What the book has is shared every few seconds.
    let mut number = 0;
    until("the word goes round", || {
        number += 1;
        let (machine, dest) = (scene.lab.machine(&format!("m {number}")), scene.lab.path(&format!("copy {number}")));
        let run = machine.run(&[&"--json", &"--no-dht", &"fetch", &node.link(&scene.reference), &dest]);
        // A port of loopback may be in use for a moment when there are many tests: 10.
        (run.code == 0 && run.last()["from"]["web_seeds"].as_u64() > Some(0)).then_some(())
    });
    assert!(web.requests() > 0);
}

#[test]
fn a_running_node_keeps_its_export_fresh() {
    let lab = Lab::new();
    let (publisher, tree) = (lab.machine("p"), Tree::new(lab.path("t")));
    tree.file("a", "text");
    publisher.publish_with(tree.root(), &[&"--export", &tree.path(".murmir"), &"--fresh", &"1s"]);
    let until = || {
        let bytes = std::fs::read(tree.path(".murmir/bundle")).unwrap();
        tracker_less::record::CheckedBundle::verify(&bytes).unwrap().fresh().unwrap().until
    };
    let first = until();
    self::until("its Fresh record is over", || (murmir::sync::unix_now() > first).then_some(()));
    let _node = publisher.serve(&[]);
    self::until("it is renewed, in the export too", || (until() > first).then_some(()));
}
