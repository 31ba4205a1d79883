//! From the name of an rsync daemon into the swarm, and back to rsync.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::util::{Daemon, Lab, Machine, Node, Proxy, Tree, assert_same, free_port, noise, receiver, speaker, until};

/// A publisher's tree, a mirror that holds it, and the line that leads there.
struct Scene {
    lab: Lab,
    tree: Tree,
    publisher: Machine,
    mirror: Node,
    line: String,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new();
        let (publisher, machine, tree) = (lab.machine("p"), lab.machine("m"), Tree::new(lab.path("t")));
        tree.file("large", noise(1, 3 << 20))
            .file("dir/a b", "text")
            .file("dir/c", noise(2, 5000))
            .symlink("link", "large");
        // rsync leaves times alone that differ by less than a second.
        for name in ["large", "dir/a b", "dir/c", "link", "dir", ""] {
            tree.mtime(name, 1_000_000_000, 0);
        }
        let node = publisher.serve(&[]);
        let published = publisher.publish(tree.root());
        machine.ok(&[&"mirror", &published.link, &lab.path("replica")]);
        node.kill();
        let mirror = machine.serve(&[]);
        let line = format!("murmir: {}\n", mirror.link(&published.reference));
        Self { lab, tree, publisher, mirror, line }
    }

    fn dest(&self, name: &str) -> PathBuf {
        self.lab.path(name)
    }
}

fn rsync(args: &[&str], dest: &Path) -> std::process::Output {
    Command::new("rsync").args(args).arg(dest).output().expect("rsync is installed")
}

fn url(port: u16) -> String {
    format!("rsync://127.0.0.1:{port}/tree")
}

#[test]
fn a_client_attaches_to_a_stock_daemon_and_switches_to_the_swarm() {
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.lab, scene.tree.root(), &format!("Welcome.\n{}", scene.line), "");
    let relay = Proxy::start(daemon.port());
    let (client, url) = (scene.lab.machine("c"), url(relay.port()));
    let run = client.json(&[&"--no-dht", &"fetch", &"--accept-new", &url, &scene.dest("one")]);
    assert_same(scene.tree.root(), &scene.dest("one"));
    assert_eq!(run["transferred"], 3, "{run}");
    assert!(relay.down() < 2000, "{} bytes from the origin", relay.down());
    // A path in the module, by rsync's own notation and rule; the key is known now.
    let place = "127.0.0.1::tree/dir";
    client.ok(&[&"--no-dht", &"rsync", &"-a", &format!("--port={}", relay.port()), &place, &scene.dest("two")]);
    assert_same(&scene.tree.path("dir"), &scene.dest("two").join("dir"));
    let listed = client.ok(&[&"--no-dht", &"ls", &format!("{url}/dir/")]).lines();
    assert_eq!(listed, ["a b", "c"]);
    assert_eq!(daemon.named(), 0, "the daemon looked at its tree");
    // Stock clients see what they always saw.
    let stock = rsync(&["-a", &format!("{url}/")], &scene.dest("stock"));
    assert!(stock.status.success() && String::from_utf8_lossy(&stock.stdout).starts_with("Welcome.\nmurmir: "));
    assert_same(scene.tree.root(), &scene.dest("stock"));
    drop(daemon);
    client.ok(&[&"--no-dht", &"fetch", &url, &scene.dest("three")]);
    assert_same(scene.tree.root(), &scene.dest("three"));
}

#[test]
fn a_module_that_is_full_or_closed_still_hands_its_clients_over() {
    let scene = Scene::new();
    for (name, settings) in
        [("full", "max connections = -1"), ("closed", "hosts deny = *"), ("secret", "auth users = me")]
    {
        let daemon = Daemon::start(&scene.lab, scene.tree.root(), &scene.line, settings);
        let client = scene.lab.machine(name);
        client.ok(&[&"--no-dht", &"fetch", &"--accept-new", &url(daemon.port()), &scene.dest(&format!("to {name}"))]);
        assert_same(scene.tree.root(), &scene.dest(&format!("to {name}")));
    }
    // Some speak only once they are told the module.
    let late = speaker(b"@RSYNCD: 31.0 md5\n", format!("{}@ERROR: go away\n", scene.line).as_bytes());
    let client = scene.lab.machine("late");
    client.ok(&[&"--no-dht", &"fetch", &"--accept-new", &url(late), &scene.dest("late copy")]);
    assert_same(scene.tree.root(), &scene.dest("late copy"));
}

#[test]
fn a_thousand_attaches_do_not_touch_the_tree() {
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.lab, scene.tree.root(), &scene.line, "");
    let client = scene.lab.machine("c");
    // The whole way a few times, the daemon's part of it often.
    client.ok(&[&"--no-dht", &"ls", &scene.line["murmir: ".len()..].trim()]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for _ in 0..1000 {
        let origin = murmir::attach::origin::Origin::parse(&url(daemon.port()), None).unwrap().unwrap();
        let found = runtime.block_on(murmir::attach::ask(&origin));
        assert!(found.reference.is_some(), "{:?}", found.tried);
    }
    assert_eq!(daemon.named(), 0);
}

#[test]
fn a_new_publisher_is_accepted_on_purpose_and_another_one_never() {
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.lab, scene.tree.root(), &scene.line, "");
    let (client, url) = (scene.lab.machine("c"), url(daemon.port()));
    let refused = client.run(&[&"--no-dht", &"fetch", &url, &scene.dest("d")]).expect(41);
    assert!(refused.stderr.ends_with("(code 41)\n") && refused.stderr.contains("--accept-new"), "{}", refused.stderr);
    assert!(!scene.dest("d").exists());
    client.ok(&[&"--no-dht", &"fetch", &"--accept-new", &url, &scene.dest("d")]);
    assert!(client.ok(&[&"trust"]).text().starts_with(&format!("{url}  murmir://")));
    drop(daemon);
    // Somebody in between, or a new key: the pinned one stays.
    let other = scene.lab.machine("other");
    let node = other.serve(&[]);
    let theirs = other.publish(scene.tree.root());
    let daemon =
        Daemon::start(&scene.lab, scene.tree.root(), &format!("murmir: {}\n", node.link(&theirs.reference)), "");
    let moved = self::url(daemon.port());
    let kept = client.ok(&[&"trust"]).lines();
    let pinned = kept[0].split("  ").nth(1).unwrap().to_owned();
    client.ok(&[&"trust", &moved, &pinned]);
    let changed = client.run(&[&"--no-dht", &"fetch", &"--accept-new", &moved, &scene.dest("e")]).expect(42);
    assert!(changed.stderr.contains("another publisher"), "{}", changed.stderr);
    client.ok(&[&"trust", &"--remove", &moved]);
    client.run(&[&"trust", &"--remove", &moved]).expect(1);
    client.ok(&[&"--no-dht", &"fetch", &"--accept-new", &moved, &scene.dest("e")]);
    drop(scene.mirror);
    drop(scene.publisher);
}

#[test]
fn without_a_swarm_rsync_does_it() {
    let lab = Lab::new();
    let tree = Tree::new(lab.path("t"));
    tree.file("a", "one").file("dir/b", noise(1, 70_000)).file("dir/c.iso", "big").symlink("l", "a");
    // rsync leaves alone what differs by less than a second.
    for name in ["a", "dir/b", "dir/c.iso", "l", "dir", ""] {
        tree.mtime(name, 1_000_000_000, 0);
    }
    let daemon = Daemon::start(&lab, tree.root(), "Welcome.\n", "");
    let (client, url) = (lab.machine("c"), url(daemon.port()));
    client.ok(&[&"--no-dht", &"fetch", &url, &lab.path("one")]);
    assert_same(tree.root(), &lab.path("one"));
    // Flags and filters come through, in their order.
    let filtered =
        client.ok(&[&"--no-dht", &"rsync", &"-ai", &"--exclude=*.iso", &format!("{url}/dir/"), &lab.path("two")]);
    assert!(filtered.text().contains(">f+++++++++ b"), "{}", filtered.text());
    assert_eq!(std::fs::read_dir(lab.path("two")).unwrap().count(), 1);
    // A replica: nothing of it is lost to the next run, and what is not ours is guarded.
    client.ok(&[&"--no-dht", &"mirror", &url, &lab.path("replica")]);
    tree.file("a", "three").mtime("a", 1_100_000_000, 0);
    std::fs::remove_file(tree.path("l")).unwrap();
    tree.mtime("", 1_100_000_000, 0);
    client.ok(&[&"--no-dht", &"mirror", &url, &lab.path("replica")]);
    assert_same(tree.root(), &lab.path("replica"));
    std::fs::create_dir(lab.path("mine")).unwrap();
    std::fs::write(lab.path("mine/precious"), "x").unwrap();
    client.run(&[&"--no-dht", &"mirror", &url, &lab.path("mine")]).expect(1);
    assert!(lab.path("mine/precious").exists());
    // rsync's own codes, and nothing where rsync is not wanted.
    let unknown = client.run(&[&"--no-dht", &"fetch", &url.replace("/tree", "/nosuch"), &lab.path("x")]).expect(5);
    assert!(unknown.stderr.ends_with("murmir error: rsync failed (code 5)\n"), "{}", unknown.stderr);
    client.run(&[&"--no-dht", &"rsync", &"-a", &format!("{url}/nothing"), &lab.path("x")]).expect(23);
    let never = client.run(&[&"--no-dht", &"fetch", &"--no-classic", &url, &lab.path("x")]).expect(10);
    assert!(never.stderr.contains("no line for this module"), "{}", never.stderr);
    // The modules of a daemon, as rsync lists them.
    let host = url.trim_end_matches("tree");
    assert!(client.ok(&[&"--no-dht", &"rsync", &host]).text().contains("tree"));
}

#[test]
fn what_rsync_brought_is_checked_where_a_head_is_known() {
    let scene = Scene::new();
    let copy = scene.dest("classic");
    assert!(rsync(&["-a", &format!("{}/", scene.tree.root().display())], &copy).status.success());
    // The mirror still tells head and pages, but has lost its files.
    for lost in ["large", "dir/a b", "dir/c"] {
        std::fs::remove_file(scene.dest("replica").join(lost)).unwrap();
    }
    let daemon = Daemon::start(&scene.lab, &copy, &scene.line, "");
    let (client, url) = (scene.lab.machine("c"), url(daemon.port()));
    client.ok(&[&"--no-dht", &"fetch", &"--accept-new", &url, &scene.dest("good")]);
    assert_same(scene.tree.root(), &scene.dest("good"));
    std::fs::write(copy.join("dir/c"), noise(3, 5000)).unwrap();
    let caught = client.run(&[&"--no-dht", &"fetch", &url, &scene.dest("bad")]).expect(44);
    assert_eq!(caught.lines(), ["damaged dir/c"]);
    assert!(scene.dest("bad/large").exists(), "what is right stays");
}

#[test]
fn what_is_no_daemon_gets_one_clear_line() {
    let lab = Lab::new();
    let endless = [b"@RSYNCD: 31.0\n".to_vec(), b"on and on\n".repeat(10_000)].concat();
    for (number, (said, expected)) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], "SSH answers there"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a web server answers there"),
        (&[b'x'; 9000], "not an rsync server"),
        (&endless, "a greeting without end"),
        (b"@RSYNCD: 31.0\n@ERROR: \x1b[31mno\n", "\\#033[31mno"),
    ]
    .into_iter()
    .enumerate()
    {
        let port = speaker(said, b"");
        let client = lab.machine(&format!("c{number}"));
        let run = client.run(&[&"--no-dht", &"fetch", &"--no-classic", &url(port), &lab.path("d")]).expect(10);
        assert!(run.stderr.contains(expected), "{expected}: {}", run.stderr);
        assert!(!run.stderr.contains('\x1b') && !lab.path("d").exists());
    }
    let nobody = lab.machine("n").run(&[&"--no-dht", &"fetch", &"--no-classic", &url(free_port()), &lab.path("d")]);
    assert!(nobody.expect(10).stderr.contains("refused"));
}

#[test]
fn the_example_of_a_daemon_works_with_the_lines_of_motd() {
    let lab = Lab::new();
    let (publisher, tree) = (lab.machine("p"), Tree::new(lab.path("t")));
    tree.file("a", "one").file("dir/b", noise(1, 70_000));
    publisher.run(&[&"motd"]).expect(1);
    let node = publisher.serve(&[]);
    publisher.json(&[&"publish", &tree.root(), &"--module", &"pub"]);
    let lines = publisher.json(&[&"motd", &"--nominate"]);
    let blocks = publisher.ok(&[&"motd"]).lines();
    assert_eq!(blocks.iter().filter(|line| line.starts_with('#')).count(), 3, "{blocks:?}");
    assert_eq!(lines["well_known"]["modules"][0]["path"], "/");
    std::fs::write(lab.path("motd"), format!("Welcome.\n{}\n", lines["motd"].as_str().unwrap())).unwrap();
    let example = include_str!("../examples/rsyncd/rsyncd.conf");
    let config = example
        .replace("/srv/pub", &tree.root().display().to_string())
        .replace("/etc/rsyncd.motd", &lab.path("motd").display().to_string())
        .replace("murmir --state-dir /var/lib/murmir", &receiver(&publisher))
        .replace("/var/log/rsyncd.log", &lab.path("log").display().to_string())
        .replace("use chroot = yes\nuid = nobody\ngid = nogroup\n", "use chroot = no\n");
    let daemon = Daemon::with_config(&lab, &config);
    let url = format!("rsync://127.0.0.1:{}/pub", daemon.port());
    lab.machine("c").ok(&[&"--no-dht", &"fetch", &"--accept-new", &"--no-classic", &url, &lab.path("copy")]);
    assert_same(tree.root(), &lab.path("copy"));
    assert!(rsync(&["-a", &url], &lab.path("stock")).status.success());
    drop(node);
}

#[test]
fn a_node_serves_stock_clients() {
    let Scene { lab, tree, mirror, .. } = Scene::new();
    mirror.kill();
    let machine = lab.machine("m");
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let node = machine.node(&[&"serve", &"--rsyncd", &address]);
    until("the daemon listens", || std::net::TcpStream::connect(&address).ok());
    let url = format!("rsync://{address}/tree/");
    assert!(rsync(&["-aH", &url], &lab.path("stock")).status.success());
    assert_same(tree.root(), &lab.path("stock"));
    let listed = Command::new("rsync").arg("-r").arg(&url).output().unwrap();
    assert!(!String::from_utf8_lossy(&listed.stdout).contains(".murmir"), "its own directory is hidden");
    let hidden = rsync(&["-a", &format!("{url}.murmir/")], &lab.path("hidden"));
    assert!(!hidden.status.success());
    // Nothing can be written.
    let pushed = Command::new("rsync").args(["-a", "/etc/hostname", &url]).output().unwrap();
    assert!(!pushed.status.success() && !lab.path("replica/hostname").exists());
    // And the line is in it.
    lab.machine("c").ok(&[&"--no-dht", &"fetch", &"--accept-new", &"--no-classic", &url, &lab.path("by murmir")]);
    assert_same(tree.root(), &lab.path("by murmir"));
    assert_eq!(node.terminate().code(), Some(0));
    machine.run(&[&"serve", &"--rsyncd", &"nonsense"]).expect(1);
}
