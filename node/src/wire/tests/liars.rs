//! A client against servers that lie.

use futures::io::AsyncWriteExt;

use super::super::frame::{Frame, FrameReader, FrameWriter, MAX_FRAME};
use super::super::msg::{Code, HeadReply, Message, Parts, Refusal};
use super::*;

/// A client of a server that says hello, waits for `requests`, sends `answer` and then stays open and silent.
async fn liar(requests: usize, answer: Vec<u8>) -> PeerClient {
    let (near, mut far) = duplex();
    tokio::spawn(async move {
        for request in 0..=requests {
            FrameReader::new(&mut far, MAX_FRAME, PATIENT.silence, Arc::default()).next().await.unwrap();
            if request == 0 {
                let hello = Frame::about_stream(Message::HelloAck(Hello::ours()));
                FrameWriter::new(&mut far, PATIENT.silence, Arc::default()).send(&hello).await.unwrap();
            }
        }
        far.write_all(&answer).await.unwrap();
        std::future::pending::<()>().await;
    });
    PeerClient::start(near, Hello::ours(), QUICK)
}

/// How a request for one file of 4 bytes fails. Whatever happened, the client must then be dead.
async fn failure(answer: Vec<u8>) -> Error {
    let client = liar(1, answer).await;
    let error = client.batch(module(), &[(content(1), 4)]).await.unwrap_err();
    assert_eq!(client.ended(), Some(&error), "the client is dead");
    assert_eq!(client.have(module(), page_id(1)).await, Err(error.clone()), "and stays so");
    error
}

fn batch(request: u32, parts: &[&[u8]]) -> Vec<u8> {
    let mut answer = Parts::default();
    parts.iter().for_each(|part| answer.push(Some(part)));
    Frame { request, message: Message::Batch(answer) }.to_bytes().unwrap()
}

#[tokio::test]
async fn a_wrong_answer_is_a_lie() {
    let head = HeadReply { bundle: None, held: None, holds: Vec::new(), nominations: Vec::new(), rosters: Vec::new() };
    let mut odd_flags = batch(1, &[b"four"]);
    odd_flags[5] = 2;
    let mut not_packed = batch(1, &[b"four"]);
    not_packed[5] = 1;
    // A megabyte that says it is four bytes.
    let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 3).unwrap();
    let mut bomb = batch(1, &[&bomb]);
    let header = [0x81, 0x04];
    let length = u32::try_from(10 + header.len() + bomb.len() - 14 - usize::from(bomb[13])).unwrap();
    let bulk = bomb.split_off(14 + usize::from(bomb[13]));
    bomb.truncate(10);
    bomb[..4].copy_from_slice(&length.to_be_bytes());
    bomb[5] = 1;
    bomb.extend([0, 0, 0, 2]);
    bomb.extend(header);
    bomb.extend(bulk);
    let mut odd_type = batch(1, &[b"four"]);
    odd_type[4] = 200;
    let mut long_header = batch(1, &[b"four"]);
    long_header[10] = 255;
    let cases = [
        (batch(2, &[b"four"]), "an answer to another request"),
        (batch(0, &[b"four"]), "an answer to another request"),
        (Frame { request: 1, message: Message::Head(head) }.to_bytes().unwrap(), "an answer of another kind"),
        (batch(1, &[]), "an answer without a slot"),
        (batch(1, &[b"four", b"more"]), "more than was asked for"),
        (batch(1, &[b"fiver"]), "a file of wrong length"),
        (batch(1, &[b"fou"]), "a file of wrong length"),
        (odd_flags, "flags from another version"),
        (not_packed, "bulk bytes do not match their sizes"),
        (bomb, "bulk bytes do not match their sizes"),
        (odd_type, "bulk bytes where there are none"),
        (long_header, "a header longer than its frame"),
        (vec![255; 4], "a frame over the size cap"),
        (vec![0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0], "a frame shorter than its prefix"),
    ];
    for (answer, what) in cases {
        assert_eq!(failure(answer).await, Error::Lie { what });
    }
}

#[tokio::test]
async fn half_a_frame_and_silence_meet_the_deadline() {
    let whole = batch(1, &[b"four"]);
    for cut in [0, 1, 4, 10, whole.len() - 1] {
        assert_eq!(failure(whole[..cut].to_vec()).await, Error::Timeout, "after {cut} bytes");
    }
}

#[tokio::test]
async fn an_answer_nobody_asked_for_is_a_lie_also_while_idle() {
    let client = liar(0, batch(1, &[b"four"])).await;
    client.closed().await;
    assert_eq!(client.ended(), Some(&Error::Lie { what: "an answer nobody asked for" }));
}

#[tokio::test]
async fn a_second_answer_to_one_request_is_a_lie() {
    let client = liar(1, [batch(1, &[b"four"]), batch(1, &[b"four"])].concat()).await;
    assert_eq!(client.batch(module(), &[(content(1), 4)]).await, Ok(vec![Some(b"four".to_vec())]));
    client.closed().await;
    assert!(matches!(client.ended(), Some(Error::Lie { .. })), "{:?}", client.ended());
}

#[tokio::test]
async fn an_idle_client_outlives_the_deadline_for_answers() {
    let client = liar(0, Vec::new()).await;
    assert!(tokio::time::timeout(2 * QUICK.silence, client.closed()).await.is_err());
    assert_eq!(client.ended(), None);
}

#[tokio::test]
async fn all_who_wait_learn_the_reason() {
    let client = liar(3, batch(9, &[b"four"])).await;
    let files = [(content(1), 4)];
    let ask = || client.batch(module(), &files);
    let (first, second, third) = tokio::join!(ask(), ask(), ask());
    let lie = Err(Error::Lie { what: "an answer to another request" });
    assert_eq!([first, second, third], [lie.clone(), lie.clone(), lie]);
}

#[tokio::test]
async fn the_error_that_ends_a_stream_reaches_the_asker() {
    let refusal = Refusal { code: Code::BAD_REQUEST, text: "no".to_owned() };
    let answer = Frame::about_stream(Message::Error(refusal)).to_bytes().unwrap();
    assert_eq!(failure(answer).await, Error::Refused { code: Code::BAD_REQUEST, text: "no".to_owned() });
}

#[tokio::test]
async fn a_request_out_of_form_does_not_leave() {
    let client = liar(0, Vec::new()).await;
    let asked = client.range(module(), content(1), 100_000, 1..20).await;
    let text = "an unaligned range".to_owned();
    assert_eq!(asked, Err(Error::Refused { code: Code::BAD_REQUEST, text }), "which says nothing of the peer");
    assert_eq!(client.counters().requests, 0);
}

/// Each byte keeps the deadline of silence, and the frame would take for ever.
#[tokio::test]
async fn a_byte_now_and_then_is_no_answer() {
    let (near, mut far) = tokio::io::duplex(64);
    let mut reader = FrameReader::new(near.compat(), MAX_FRAME, Duration::from_millis(500), Arc::default());
    tokio::spawn(async move {
        let mut bytes = 1000u32.to_be_bytes().into_iter().chain(std::iter::repeat(0));
        while tokio::io::AsyncWriteExt::write_all(&mut far, &[bytes.next().unwrap()]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(reader.next().await, Err(Error::Timeout));
}
