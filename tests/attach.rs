//! From the name of an rsync daemon into the swarm, and back to rsync.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::util::{
    Daemon, Lab, Machine, Node, Proxy, Running, Tree, assert_same, connect_proxy, free_port, name_server, noise,
    receiver, speaker, until,
};

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
    assert_eq!((&run["transferred"], &run["from"]["origin"]), (&3.into(), &0.into()), "{run}");
    // 3 MiB came from the mirror.
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
    let caught = client.run(&[&"--no-dht", &"mirror", &url, &scene.dest("bad replica")]).expect(44);
    assert_eq!(caught.lines(), ["damaged dir/c"]);
    assert!(scene.dest("bad replica/large").exists(), "what is right stays");
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
    // Silence is listened to for a while.
    let client = lab.machine("silent");
    let run = client.run(&[&"--no-dht", &"fetch", &"--no-classic", &url(speaker(b"", b"")), &lab.path("d")]).expect(10);
    assert!(run.stderr.contains("not an rsync server"), "{}", run.stderr);
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

#[test]
fn dns_leads_into_the_swarm_where_nothing_else_does() {
    let scene = Scene::new();
    let reference = scene.line["murmir: ".len()..].trim();
    let (near, long) =
        (format!("murmir={reference}&peer=/ip4/192.0.2.7/tcp/4741"), format!("murmir={}", "x".repeat(1000)));
    let names = name_server(&[
        ("_murmir.archive.test.", &["v=spf1 -all", "murmir=", "murmir=murmir://k51/tree", &near]),
        ("_murmir.long.test.", &[&long]),
        ("_murmir.empty.test.", &["v=spf1 -all"]),
    ]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ask = |word: &str| {
        let origin = murmir::attach::origin::Origin::parse(word, None).unwrap().unwrap();
        runtime.block_on(murmir::attach::ask_by(&origin, Some(names)))
    };
    let found = ask("rsync://archive.test/tree/dir/");
    let found = found.reference.unwrap_or_else(|| panic!("{:?}", found.tried));
    // Who is near to whoever wrote that need not be near to us.
    let plain = reference.split('?').next().unwrap();
    assert_eq!(found.to_string(), format!("{plain}/dir/?peer=/ip4/192.0.2.7/tcp/4741"));
    let found = ask("https://archive.test/tree/dir/a%20b").reference.unwrap();
    assert_eq!(found.to_string(), format!("{plain}/dir/a%20b?peer=/ip4/192.0.2.7/tcp/4741"));
    for (word, why) in [
        ("rsync://archive.test/other", "_murmir.archive.test: not for this module"),
        ("https://archive.test/else", "_murmir.archive.test: no module for /else"),
        ("rsync://empty.test/tree", "has no murmir= record"),
        ("rsync://long.test/tree", "has no murmir= record"),
        ("rsync://nosuch.test/tree", "_murmir.nosuch.test"),
    ] {
        let found = ask(word);
        assert!(
            found.reference.is_none() && found.tried.iter().any(|one| one.contains(why)),
            "{word}: {:?}",
            found.tried
        );
    }
}

/// Runs with these variables.
fn with(client: &Machine, variables: &[(&str, String)], args: crate::util::Args) -> crate::util::Run {
    let mut command = client.command(args);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    Running::start(command).finish()
}

#[test]
fn a_proxy_leads_to_the_daemon_in_both_ways() {
    let scene = Scene::new();
    let port = connect_proxy("Authorization: Basic bWU6c2VjcmV0");
    let client = scene.lab.machine("c");
    let daemon = Daemon::start(&scene.lab, scene.tree.root(), &scene.line, "");
    // The name leads nowhere but for the proxy; so does the line to whoever is near to it.
    let place = url(daemon.port());
    let proxied = |name: &str| vec![("RSYNC_PROXY", format!("{name}127.0.0.1:{port}"))];
    let words: crate::util::Args = &[&"--no-dht", &"fetch", &"--accept-new", &place, &scene.dest("one")];
    let via = format!("--peer={}", scene.mirror.address());
    with(&client, &proxied("me:secret@"), &[&[&via as &dyn AsRef<std::ffi::OsStr>], words].concat()).expect(0);
    assert_same(scene.tree.root(), &scene.dest("one"));
    let refused = with(
        &scene.lab.machine("x"),
        &proxied(""),
        &[&"--no-dht", &"fetch", &"--no-classic", &place, &scene.dest("x")],
    );
    assert!(refused.expect(10).stderr.contains("407 Who are you"));
    let classic = [&"--no-dht" as &dyn AsRef<std::ffi::OsStr>, &"fetch", &"--classic-only", &place];
    let two = scene.dest("two");
    with(&client, &proxied("me:secret@"), &[&classic[..], &[&two]].concat()).expect(0);
    assert_same(scene.tree.root(), &two);
}

#[test]
fn a_module_with_a_password_goes_the_classic_way() {
    let lab = Lab::new();
    let tree = Tree::new(lab.path("t"));
    tree.file("a", "one").mtime("a", 1_000_000_000, 0).mtime("", 1_000_000_000, 0);
    let (secrets, password) = (lab.path("secrets"), lab.path("password"));
    for (file, text) in [(&secrets, "me:open sesame\n"), (&password, "open sesame\n")] {
        std::fs::write(file, text).unwrap();
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let settings = format!("auth users = me\nsecrets file = {}", secrets.display());
    let daemon = Daemon::start(&lab, tree.root(), "Welcome.\n", &settings);
    let (client, url) = (lab.machine("c"), url(daemon.port()).replace("//", "//me@"));
    let secret = [("RSYNC_PASSWORD", "open sesame".to_owned())];
    with(&client, &secret, &[&"--no-dht", &"fetch", &url, &lab.path("one")]).expect(0);
    assert_same(tree.root(), &lab.path("one"));
    let file = format!("--password-file={}", password.display());
    client.ok(&[&"--no-dht", &"rsync", &"-a", &file, &format!("{url}/"), &lab.path("two")]);
    assert_same(tree.root(), &lab.path("two"));
    let wrong = [("RSYNC_PASSWORD", "guess".to_owned())];
    with(&client, &wrong, &[&"--no-dht", &"fetch", &url, &lab.path("three")]).expect(5);
    let never = client.run(&[&"--no-dht", &"fetch", &"--no-classic", &url, &lab.path("x")]).expect(10);
    assert!(never.stderr.contains("it asks for a password"), "{}", never.stderr);
}

#[test]
fn a_new_publisher_is_asked_for_on_a_terminal() {
    let scene = Scene::new();
    let daemon = Daemon::start(&scene.lab, scene.tree.root(), &scene.line, "");
    let (client, url) = (scene.lab.machine("c"), url(daemon.port()));
    for (answer, code, name) in [("no\n", 41, "no"), ("yes\n", 0, "yes")] {
        let dest = scene.dest(name);
        let command = client.command(&[&"--no-dht", &"fetch", &url, &dest]);
        let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_str().unwrap());
        let words: Vec<String> = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
        // script(1) makes a terminal.
        let mut terminal = Command::new("script");
        terminal.args(["-qec", &words.join(" "), "/dev/null"]).env("HOME", scene.dest("c"));
        terminal.stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut child) = terminal.spawn() else { return eprintln!("skipped: script is not installed") };
        child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        let run = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(said.contains("Trust it for") && said.contains("(yes/no)?"), "{said}");
        assert_eq!((run.status.code(), dest.exists()), (Some(code), code == 0), "{said}");
    }
}
