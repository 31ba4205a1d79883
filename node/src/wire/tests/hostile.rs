//! A server against hostile clients.

use cid::Cid;
use futures::io::{AsyncReadExt, AsyncWriteExt};

use super::super::frame::{Frame, FrameReader, MAX_FRAME};
use super::super::msg::{Code, GetBatch, GetHead, GetOutboard, GetPages, GetRange, Message, Refusal, Told};
use super::*;

type Outcome = (Result<(), Error>, Vec<Message>);

/// How a server of `shelf` ends that is sent `bytes`, and what it said until then.
async fn sent(shelf: &Arc<Shelf>, bytes: Vec<u8>) -> Outcome {
    let (near, far) = duplex();
    let (read, mut write) = near.split();
    let attack = async move {
        // The server may well hang up before it has read everything.
        let _ = write.write_all(&bytes).await;
        write
    };
    let listen = async {
        let mut reader = FrameReader::new(read, MAX_FRAME, PATIENT.silence, Arc::default());
        let mut said = Vec::new();
        while let Ok(frame) = reader.next().await {
            said.push(frame.message);
        }
        said
    };
    let serve = serve_stream(far, PeerId::random(), shelf.clone(), Limits::new(QUICK));
    let (served, said, _open) = tokio::join!(serve, listen, attack);
    (served, said)
}

fn hello() -> Vec<u8> {
    Frame::about_stream(Message::Hello(Hello::ours())).to_bytes().unwrap()
}

fn request(message: Message) -> Vec<u8> {
    Frame { request: 1, message }.to_bytes().unwrap()
}

fn range(start: u64, length: u64) -> Vec<u8> {
    request(Message::GetRange(GetRange { module: module(), id: content(1), size: 1 << 30, start, length }))
}

fn outboard(size: u64, start: u64) -> Vec<u8> {
    request(Message::GetOutboard(GetOutboard { module: module(), id: content(1), size, start }))
}

#[tokio::test]
async fn a_request_that_breaks_a_rule_is_refused_and_ends_the_stream() {
    let shelf = Arc::new(Shelf::default());
    let pages = |pages: Vec<Cid>| request(Message::GetPages(GetPages { module: module(), pages }));
    let files = |files: Vec<_>| request(Message::GetBatch(GetBatch { module: module(), files }));
    let tell = |nomination: usize, count: usize| {
        let told = Told { bundle: None, nominations: vec![vec![0; nomination].into(); count] };
        request(Message::GetHead(GetHead { module: module(), have: None, tell: Some(told), sample: 0, since: 0 }))
    };
    let mut unknown = range(0, 16_384);
    unknown[4] = 64;
    let mut trailing = range(0, 16_384);
    trailing.push(0);
    trailing[3] += 1;
    let wants = u32::try_from(1_000_000 * 41).unwrap();
    let cases = [
        (wants.to_be_bytes().to_vec(), "a frame over the size cap"),
        (vec![255; 4], "a frame over the size cap"),
        (pages(vec![page_id(1); 257]), "no pages or too many"),
        (pages(Vec::new()), "no pages or too many"),
        (files(vec![(Short::from(&content(1)), 1); 4097]), "no files or too many"),
        (files(vec![(Short::from(&content(1)), 1 << 21)]), "a file too large for a batch"),
        (range(1, 16_384), "an unaligned range"),
        (range(0, 16_385), "an unaligned range"),
        (range(0, 0), "an empty range or too long"),
        (range(0, 1 << 21), "an empty range or too long"),
        (range(1 << 30, 16_384), "a range beyond the end"),
        (range(u64::MAX - 16_383, 1 << 20), "a range that overflows"),
        (tell(1025, 1), "a nomination over the size cap"),
        (tell(10, 17), "too many nominations"),
        (request(Message::Hello(Hello::ours())), "not a request"),
        (outboard(1000, 0), "no such hash"),
        (outboard(1 << 20, 4), "no such hash"),
        (outboard(u64::MAX, 0), "no such hash"),
        (unknown, "an unknown frame type"),
        (trailing, "bulk bytes where there are none"),
        ([range(0, 16_384), range(0, 16_384)].concat(), "requests out of order"),
    ];
    for (attack, what) in cases {
        let (served, said) = sent(&shelf, [hello(), attack].concat()).await;
        assert_eq!(served, Err(Error::Lie { what }));
        let refusal = Message::Error(Refusal { code: Code::BAD_REQUEST, text: what.to_owned() });
        assert_eq!(said.last(), Some(&refusal));
    }
    assert_eq!(shelf.asked.load(Ordering::Relaxed), 1, "only the good range of the last case was looked for");
}

#[tokio::test]
async fn another_version_is_told_so() {
    let hello = Hello { version: 2, ..Hello::ours() };
    let (served, said) = sent(&Arc::default(), Frame::about_stream(Message::Hello(hello)).to_bytes().unwrap()).await;
    assert!(served.is_err());
    assert!(matches!(said.as_slice(), [Message::Error(Refusal { code: Code::VERSION, .. })]), "{said:?}");
}

#[tokio::test]
async fn no_hello_half_a_hello_half_a_request_and_idleness_meet_deadlines() {
    let half = range(0, 16_384)[..20].to_vec();
    for attack in [Vec::new(), hello()[..9].to_vec(), [hello(), half].concat(), hello()] {
        assert_eq!(sent(&Arc::default(), attack).await.0, Err(Error::Timeout));
    }
}

#[tokio::test]
async fn a_client_that_never_reads_is_left_and_makes_little_work() {
    let mut shelf = Shelf::default();
    // Noise, which no compression makes smaller.
    let mut noise = vec![0; 1 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    shelf.small.insert(content(1), noise);
    let shelf = Arc::new(shelf);
    let (near, far) = duplex();
    let (_unread, mut write) = near.split();
    let served = tokio::spawn(serve_stream(far, PeerId::random(), shelf.clone(), Limits::new(QUICK)));
    write.write_all(&hello()).await.unwrap();
    for number in 1..=20 {
        let files = vec![(Short::from(&content(1)), 1 << 20)];
        let message = Message::GetBatch(GetBatch { module: module(), files });
        write.write_all(&Frame { request: number, message }.to_bytes().unwrap()).await.unwrap();
    }
    assert_eq!(served.await.unwrap(), Err(Error::Timeout));
    assert!(shelf.asked.load(Ordering::Relaxed) <= 3, "one written, one waiting, one being made");
}
