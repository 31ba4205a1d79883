use super::*;

#[test]
fn itemized() {
    let changes = |content, size, time, perms| Some(Changes { content, size, time, now: false, perms });
    let lines = [
        item(Update::Receive, Kind::File, changes(false, true, false, false)),
        item(Update::Receive, Kind::File, None),
        item(Update::Receive, Kind::File, changes(true, false, false, false)),
        item(Update::Attributes, Kind::File, changes(false, false, true, false)),
        item(Update::Attributes, Kind::File, changes(false, false, false, true)),
        item(Update::Create, Kind::Symlink, None),
        item(Update::HardLink, Kind::File, None),
        item(Update::Attributes, Kind::Dir, Some(Changes::default())),
        item(Update::Create, Kind::Dir, None),
        item(Update::Receive, Kind::File, Some(Changes { now: true, content: true, ..Changes::default() })),
    ];
    let expected = [
        ">f.s.......",
        ">f+++++++++",
        ">fc........",
        ".f..t......",
        ".f...p.....",
        "cL+++++++++",
        "hf+++++++++",
        ".d         ",
        "cd+++++++++",
        ">fc.T......",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn listed() {
    let at = 1_795_402_323_000_000_000; // 2026-11-23 02:52:03 UTC
    let line = |kind, mode, size, target| {
        Listed { kind, mode, size, mtime: at, path: "a.txt", target }.line(Numbers::Commas, &TimeZone::UTC)
    };
    assert_eq!(line(Kind::File, 0o644, 6, None), "-rw-r--r--              6 2026/11/23 02:52:03 a.txt");
    assert_eq!(line(Kind::Dir, 0o1777, 4096, None), "drwxrwxrwt          4,096 2026/11/23 02:52:03 a.txt");
    assert_eq!(line(Kind::Symlink, 0o777, 1, Some("b")), "lrwxrwxrwx              1 2026/11/23 02:52:03 a.txt -> b");
}

#[test]
fn summed_up() {
    let summary = Summary { sent: 92, received: 307_541, seconds: 1.0, total: 307_217, numbers: Numbers::Commas };
    assert_eq!(
        summary.lines(),
        ["sent 92 bytes  received 307,541 bytes  205,088.67 bytes/sec", "total size is 307,217  speedup is 1.00"]
    );
    let human = Summary { numbers: Numbers::Thousands, ..summary }.lines();
    assert_eq!(human[0], "sent 92 bytes  received 307.54K bytes  205.09K bytes/sec");
    let idle = Summary { sent: 0, received: 0, seconds: 0.0, total: 0, numbers: Numbers::Commas };
    assert_eq!(idle.lines()[1], "total size is 0  speedup is 0.00");
}

#[test]
fn numbers() {
    for (value, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
        assert_eq!(commas(value), text);
    }
    for (value, text) in [(999, "999"), (1230, "1.23K"), (1_230_000_000, "1.23G"), (u64::MAX, "18446.74P")] {
        assert_eq!(Numbers::Thousands.show(value), text);
    }
}
