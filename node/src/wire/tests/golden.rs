//! Golden vectors of docs/WIRE.md: one frame of each type, byte for byte.

use std::fmt::Write;

use super::super::delta::{
    GetPagePatches, GetPatches, GetSlices, GetSums, Lacking, Made, PagePatches, Pair, Part, Short,
};
use super::super::frame::{Frame, FrameReader, MAX_FRAME};
use super::super::have::Groups;
use super::super::msg::*;
use super::*;
use crate::delta::blocks::Form;

const WIRE: &str = include_str!("../../../../docs/WIRE.md");

fn frames() -> Vec<(&'static str, Frame)> {
    let about = Frame::about_stream;
    let ask = |message| Frame { request: 5, message };
    let hello = Hello { version: 1, agent: "murmir/0.1.0".to_owned(), features: 0 };
    let mut parts = Parts::default();
    parts.push(Some(b"ab"));
    parts.push(None);
    parts.push(Some(b"c"));
    let packed = Parts::one(Some(b"again and ".repeat(50))).pack();
    let nominations = vec![b"nomination".to_vec().into()];
    let get_head = GetHead {
        module: module(),
        have: Some(Known::of(&bundle())),
        tell: Some(Told { bundle: Some(b"bundle".to_vec().into()), nominations: nominations.clone() }),
        sample: 16,
        since: 1_700_000_000,
    };
    let holds = vec![Held { epoch: 1, seq: 41, root: page_id(1), whole: true }];
    let head = HeadReply {
        bundle: Some(b"bundle".to_vec().into()),
        held: None,
        holds,
        nominations: nominations.clone(),
        rosters: vec![b"roster".to_vec().into()],
    };
    let get_range = GetRange { module: module(), id: content(1), size: 100_000, start: 65_536, length: 34_464 };
    let (old, id) = (Short::from(&content(1)), Short::from(&content(2)));
    let pair = Pair { old, old_size: 3 << 20, id, size: 2 << 20, window: 1 };
    let made = Made { slots: vec![None, Some(vec![(0, 65_536), (1 << 20, 70_000)])], frame: b"frame".to_vec() };
    let part = Part { id, size: 5000, start: 1024, length: 1000, form: Form { block: 512, width: 4 } };
    let lacking = Lacking { id, size: 5000, window: 0, gaps: vec![(0, 10), (20, 5)] };
    vec![
        ("Hello", about(Message::Hello(hello.clone()))),
        ("HelloAck", about(Message::HelloAck(hello))),
        ("Error", ask(Message::Error(Refusal { code: Code::UNKNOWN_MODULE, text: "no such module here".to_owned() }))),
        ("Busy", ask(Message::Busy(Busy { retry_after: 1500, peers: nominations }))),
        ("GetHead", ask(Message::GetHead(get_head))),
        ("Head", ask(Message::Head(head))),
        ("GetPages", ask(Message::GetPages(GetPages { module: module(), pages: vec![page_id(1), page_id(2)] }))),
        ("Pages", ask(Message::Pages(parts.clone()))),
        ("GetRange", ask(Message::GetRange(get_range))),
        ("Range", ask(Message::Range(Parts::one(Some(b"proof".to_vec()))))),
        ("GetBatch", ask(Message::GetBatch(GetBatch { module: module(), files: vec![(old, 2)] }))),
        ("Batch", ask(Message::Batch(parts))),
        ("BatchPacked", ask(Message::Batch(packed))),
        ("GetPagePatches", ask(Message::GetPagePatches(GetPagePatches { module: module(), pages: vec![(old, id)] }))),
        (
            "PagePatches",
            ask(Message::PagePatches(PagePatches { sizes: vec![Some(900), None], frame: b"frame".to_vec() })),
        ),
        ("GetPatches", ask(Message::GetPatches(GetPatches { module: module(), pairs: vec![pair] }))),
        ("Patches", ask(Message::Patches(made))),
        ("GetSums", ask(Message::GetSums(GetSums { module: module(), parts: vec![part] }))),
        ("Sums", ask(Message::Sums(Parts::one(Some(vec![7; 8]))))),
        ("GetSlices", ask(Message::GetSlices(GetSlices { module: module(), parts: vec![lacking] }))),
        ("Slices", ask(Message::Slices(Made { slots: vec![Some(Vec::new())], frame: b"frame".to_vec() }))),
        (
            "GetOutboard",
            ask(Message::GetOutboard(GetOutboard { module: module(), id: content(1), size: 1 << 20, start: 1 })),
        ),
        ("Outboard", ask(Message::Outboard(Parts::one(Some(vec![7; 64]))))),
        ("GetHave", ask(Message::GetHave(GetHave { module: module(), root: page_id(1) }))),
        ("Have", ask(Message::Have(Have::Runs(vec![(0, 3), (7, 1)])))),
        ("HaveParts", ask(Message::Have(Have::of(0..3).with_parts(Groups::of(9, &(0..32_768), 100_000))))),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[tokio::test]
async fn every_frame_is_as_documented_and_reads_back() {
    let mut missing = String::new();
    for (name, frame) in frames() {
        let bytes = frame.to_bytes().unwrap();
        let line = format!("{name}: {}\n", hex(&bytes));
        if !WIRE.contains(&line) {
            missing += &line;
        }
        let read = FrameReader::new(bytes.as_slice(), MAX_FRAME, PATIENT.silence, Arc::default()).next().await;
        // How a frame was packed does not show in what was read.
        let same = read.as_ref().is_ok_and(|read| read.message.header() == frame.message.header());
        assert!(same && (frame.message.is_packed() || read == Ok(frame)), "{name}");
    }
    assert!(missing.is_empty(), "docs/WIRE.md lacks\n{missing}");
}

#[test]
fn a_header_in_another_form_is_refused() {
    // {"code": 3, "text": ""}, then with 3 in two bytes, an unknown field, and a byte too many.
    let good = b"\xa2\x64code\x03\x64text\x60".to_vec();
    assert!(Message::decode(3, false, &good, Vec::new()).is_ok());
    let wide = b"\xa2\x64code\x18\x03\x64text\x60".to_vec();
    let unknown = b"\xa3\x64code\x03\x64more\x01\x64text\x60".to_vec();
    let unsorted = b"\xa2\x64text\x60\x64code\x03".to_vec();
    let trailing = [good, vec![0]].concat();
    for bad in [wide, unknown, unsorted, trailing] {
        assert!(Message::decode(3, false, &bad, Vec::new()).is_err(), "{}", hex(&bad));
    }
}
