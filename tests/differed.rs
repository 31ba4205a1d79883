//! Where we once differed from rsync: found by generated cases, kept as small ones.

use std::os::unix::fs::PermissionsExt;

use crate::rsync::{Case, Scene};
use crate::util::{Tree, facts};

/// Name, flags, what stands there, what is to come, sources. An entry is `path`, `path text`, `path text mode`, `path -> target`
/// or `path/ mode`.
type Row = (&'static str, &'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);

const ROWS: [Row; 28] = [
    (
        "a file whose old name is protected is copied, not moved",
        "-a --delete --filter=-p_core",
        &["core/a x1", "core/b x1"],
        &["b x1"],
        &[""],
    ),
    (
        "a file keeps its permissions, whoever's content it gets",
        "-a --no-p --delete",
        &["a x1 755", "b old"],
        &["b x1"],
        &[""],
    ),
    ("X asks what was executable at first", "-a --chmod=F664,ugo=rwX", &[], &["a x1 755", "b x1"], &[""]),
    (
        "dots in the middle of a target are not safe",
        "-a --safe-links",
        &[],
        &["a/", "b x", "x -> a/../b", "y -> b", "c/z -> ../b", "c/w -> ../.."],
        &[""],
    ),
    (
        "so many deletions, in rsync's order",
        "-a --delete --max-delete=3",
        &["core/sub/c", "core/a", "core/b", "z/q", "top", "kept/x", "kept/y"],
        &["kept/x"],
        &[""],
    ),
    ("no deletion at all", "-a --delete --max-delete=0", &["core/sub/c", "core/a", "z/q", "top"], &["new"], &[""]),
    (
        "a directory for backups means backups, with the permissions of what was there",
        "-a --delete --backup-dir=.old --filter=P_.old",
        &["a/ 700", "a/b old", "c old", "gone/x old"],
        &["a/ 700", "a/b newer", "c newer"],
        &[""],
    ),
    (
        "backups of symlinks",
        "-a -b --delete",
        &["g~ -> x", "h -> x", "i~ old"],
        &["g~ file", "h -> y", "i~ new one"],
        &[""],
    ),
    ("backups elsewhere", "-a --delete --backup-dir=../kept/deep", &["a old", "b/c old"], &["a newer"], &[""]),
    (
        "rules of one side in files of directories, with --delete-excluded",
        "-a -FF --delete --delete-excluded",
        &["c old", ".rsync-filter hide_c", "d/x old"],
        &["a new", "c new", ".rsync-filter hide_c"],
        &[""],
    ),
    (
        "an excluded name of a list brings no directory",
        "-a --exclude=core --files-from=LIST",
        &[],
        &["core/d/core x", "a/b x"],
        &[""],
    ),
    (
        "a link to what the other directory has takes the place of what is the same",
        "-a --link-dest=BASE",
        &["a x1", "b old"],
        &["a x1", "b x1", "c x1"],
        &[""],
    ),
    (
        "copies are told against the other directory",
        "-a --copy-dest=BASE",
        &[],
        &["a x1 600", "b x1", "c other"],
        &[""],
    ),
    (
        "symlinks stand for what they point at",
        "-a -L",
        &["x old"],
        &["a/b x1", "x -> a", "y -> a/b", "z -> x/b"],
        &[""],
    ),
    (
        "symlinks to nothing are left out, and nothing is deleted",
        "-a -L --delete",
        &["old"],
        &["a x1", "x -> nowhere"],
        &[""],
    ),
    ("symlinks to directories alone", "-a -k", &[], &["a/b x1", "x -> a", "y -> a/b", "z -> nowhere"], &[""]),
    ("hard links by way of symlinks", "-a -L -H", &[], &["a x1", "d/b -> ../a"], &[""]),
    (
        "of several sources the first counts, and a directory more",
        "-a",
        &[],
        &["a/x one", "a/y one", "b/x two", "b/y/z two", "c three"],
        &["a/", "b/", "c"],
    ),
    (
        "deletion with several sources",
        "-a --delete",
        &["x old", "a/old", "c/old"],
        &["a/x 1", "b/x 2", "c/y"],
        &["a", "b/"],
    ),
    ("a source by way of a symlink", "-a", &[], &["real/x one", "link -> real"], &["link/"]),
    ("directories make room by force", "-a --force", &["a/b/c old", "d/x old"], &["a file", "d/y new"], &[""]),
    (
        "a file that makes room for a directory is backed up as it was",
        "-a -b",
        &["core old 600"],
        &["core/a new"],
        &[""],
    ),
    ("of several sources one is missing", "-a", &[], &["a x", "b y"], &["a", "none", "b"]),
    (
        "a protected directory is not pruned",
        "-a -m --filter=P_keep",
        &[],
        &["keep/", "a/keep/", "other/", "b x"],
        &[""],
    ),
    (
        "an excluded directory on the way to a name of a list is not pruned",
        "-a -m --exclude=a/ --files-from=LIST",
        &[],
        &["core/d/core x", "a/b/"],
        &[""],
    ),
    (
        "what is copied from another directory does not take after it",
        "-a --no-p --chmod=ugo=rwX --copy-dest=BASE",
        &[],
        &["d x1 444", "c new 444"],
        &[""],
    ),
    ("a directory of directories is in the way", "-a", &["a/b/c old"], &["d/a file"], &["d/a"]),
    ("directories are passed over", "-lpt", &[], &["a/b x", "c x"], &["a", "c", ""]),
];

fn fill(tree: &Tree, entries: &[&str]) {
    for entry in entries {
        if let Some((path, target)) = entry.split_once(" -> ") {
            let path = tree.path(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            std::os::unix::fs::symlink(target, path).expect("symlink");
            continue;
        }
        let mut words = entry.split(' ');
        let (path, rest): (_, Vec<&str>) = (words.next().expect("a path"), words.collect());
        let mode = rest.iter().find_map(|word| u32::from_str_radix(word, 8).ok().filter(|mode| *mode > 0o77));
        match path.strip_suffix('/') {
            Some(dir) => drop(tree.dir(dir)),
            None => drop(tree.file(path, rest.first().map_or("text", |text| text).replace("hide_", "hide ") + "\n")),
        }
        let mode = std::fs::Permissions::from_mode(mode.unwrap_or(if path.ends_with('/') { 0o755 } else { 0o644 }));
        std::fs::set_permissions(tree.path(path), mode).expect("mode");
    }
    for path in facts(tree.root()).into_keys().chain([b".".to_vec()]) {
        tree.mtime(std::str::from_utf8(&path).expect("a text"), 1_000_000_000, 0);
    }
}

#[test]
fn what_once_differed_is_the_same() {
    let scene = Scene::new();
    let (list, base) = (scene.lab.path("list"), Tree::new(scene.lab.path("base")));
    std::fs::write(&list, "core/d/core\na/b\n").expect("list");
    fill(&base, &["a x1", "b x1", "c old", "d x1 444"]);
    let mut failures = Vec::new();
    for (number, (name, flags, before, after, sources)) in ROWS.iter().enumerate() {
        let (new, old) =
            (Tree::new(scene.lab.path(&format!("new{number}"))), Tree::new(scene.lab.path(&format!("d{number}/old"))));
        fill(&new, after);
        fill(&old, before);
        let word = |word: &str| {
            let word =
                word.replace("LIST", &list.display().to_string()).replace("BASE", &base.root().display().to_string());
            if word.starts_with("--filter") { word.replace('_', " ") } else { word }
        };
        let flags = flags.split(' ').map(word).chain(["-c".to_owned(), "-i".to_owned()]).collect();
        let sources = sources.iter().map(|source| (*source).to_owned()).collect();
        let case = Case { flags, sources, new, old };
        if let Some(difference) = case.compare(&scene, &format!("m{number}")) {
            failures.push(format!("{name}: {difference}"));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), ROWS.len(), failures.join("\n"));
}
