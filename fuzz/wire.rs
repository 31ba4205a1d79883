//! Frames and every message of the byte protocol, have-maps and compressed bulk among them.

use std::sync::Arc;
use std::time::Duration;

use murmir::manifest::ContentId;
use murmir::wire::delta::Short;
use murmir::wire::frame::{Frame, FrameReader, MAX_FRAME, MAX_REQUEST};
use murmir::wire::have::Groups;
use murmir::wire::msg::{GetBatch, Message, Parts};
use murmir::wire::{Have, rules};
use tracker_less::record::ModuleId;

use super::runner::Target;

/// Golden frames of every type; the unit tests hold the page to the code.
const WIRE: &str = include_str!("../docs/WIRE.md");
/// The plain bytes of a compressed bulk, before and after they are cut into parts.
const BULK: usize = 2 * MAX_FRAME;

fn corpus() -> Vec<Vec<u8>> {
    let frames = WIRE.lines().filter_map(|line| line.split_once(": ")?.1.strip_prefix("000000"));
    let mut corpus: Vec<Vec<u8>> = frames.map(|hex| unhex(&format!("000000{hex}"))).collect();
    assert!(corpus.len() >= 20, "the golden frames of docs/WIRE.md");
    let files = (0..200u8).map(|number| (Short::from(&ContentId([number; 32])), u64::from(number))).collect();
    let batch = Parts::one(Some(b"again and again ".repeat(2000))).pack();
    let larger = [
        Message::Have(Have::of((0..3000).filter(|number| number % 7 != 0))),
        Message::Have(Have::of(0..3).with_parts((0..20).filter_map(|entry| Groups::of(entry, &(0..1 << 20), 2 << 20)))),
        Message::GetBatch(GetBatch { module: ModuleId::from_bytes([7; 32]), files }),
        Message::Batch(batch),
    ];
    corpus.extend(larger.map(|message| Frame { request: 1, message }.to_bytes().unwrap()));
    corpus
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(digit).collect()
}

fn read(runtime: &tokio::runtime::Runtime, input: &[u8], cap: usize) -> Option<Frame> {
    let mut reader = FrameReader::new(input, cap, Duration::from_secs(60), Arc::default());
    runtime.block_on(reader.next()).ok()
}

#[test]
fn frames() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let corpus = corpus();
    let requests: Vec<Message> =
        corpus.iter().filter_map(|bytes| Some(read(&runtime, bytes, MAX_FRAME)?.message)).collect();
    Target { name: "frames", corpus, words: &[], spare: BULK, slow: 1 }.run(|input| {
        if let Some(frame) = read(&runtime, input, MAX_REQUEST) {
            // What a server looks at: whether it may be asked, and what that costs.
            let _ = rules::request(&frame.message);
            assert!(rules::cost(&frame.message) <= 1 << 40 || rules::request(&frame.message).is_err());
        }
        let Some(frame) = read(&runtime, input, MAX_FRAME) else { return false };
        // What a client looks at: whether it answers what was asked.
        for request in requests.iter().filter(|request| rules::request(request).is_ok()) {
            let _ = rules::answer(request, &frame.message);
        }
        let again = Frame { request: frame.request, message: frame.message.clone() }.to_bytes();
        let length = 4 + u32::from_be_bytes([input[0], input[1], input[2], input[3]]) as usize;
        // A packed bulk reads as the plain one; everything else has one form only.
        assert!(input[5] != 0 || again.as_deref() == Ok(&input[..length]), "two forms of one frame");
        match frame.message {
            Message::Pages(parts) | Message::Batch(parts) | Message::Range(parts) => drop(parts.into_vec()),
            Message::Have(have) => {
                drop((0..100).filter(|number| have.contains_range(*number, &(0..16_384))).collect::<Vec<_>>());
            }
            _ => {}
        }
        true
    });
}
