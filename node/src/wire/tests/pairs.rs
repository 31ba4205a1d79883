//! An honest client and an honest server.

use futures::StreamExt;

use super::super::msg::{Code, Known, Told};
use super::super::rules;
use super::*;

#[tokio::test]
async fn ten_thousand_pipelined_requests_each_get_their_own_answer() {
    let mut shelf = Shelf::default();
    for number in 0..10_000 {
        shelf.small.insert(content(number), number.to_be_bytes().to_vec());
    }
    let client = served(&Arc::new(shelf), PATIENT).await;
    let ask = |number: u32| {
        let client = client.clone();
        async move { (number, client.batch(module(), &[(content(number), 4)]).await.unwrap()) }
    };
    let mut answers = futures::stream::iter((0..10_000).map(ask)).buffer_unordered(64);
    let mut count = 0;
    while let Some((number, got)) = answers.next().await {
        assert_eq!(got, [Some(number.to_be_bytes().to_vec())]);
        count += 1;
    }
    assert_eq!((count, client.counters().requests), (10_000, 10_000));
}

#[tokio::test]
async fn what_does_not_fit_into_one_answer_is_asked_for_again() {
    let mut shelf = Shelf::default();
    let mut cids: Vec<Cid> = (0..300).map(page_id).collect();
    shelf.pages.extend(cids.iter().map(|cid| (*cid, vec![cid.to_bytes()[7]; 60_000])));
    cids.push(page_id(1000));
    let files: Vec<_> = (0..5000).map(|number| (content(number), u64::from(number % 700))).collect();
    shelf.small.extend(files.iter().map(|(id, size)| (*id, vec![3; usize::try_from(*size).unwrap()])));
    let shelf = Arc::new(shelf);
    let client = served(&shelf, PATIENT).await;

    let pages = client.pages(module(), &cids).await.unwrap();
    let wanted: Vec<_> = cids.iter().map(|cid| shelf.pages.get(cid).cloned()).collect();
    assert!(pages == wanted, "300 pages in order, the last absent");
    let batch = client.batch(module(), &files).await.unwrap();
    let sizes: Vec<_> = batch.into_iter().map(|file| file.unwrap().len() as u64).collect();
    assert_eq!(sizes, files.iter().map(|(_, size)| *size).collect::<Vec<_>>());
    assert!(client.counters().requests < 40, "{:?}", client.counters());
}

#[tokio::test]
async fn ranges_and_maps_are_answered() {
    let mut shelf = Shelf::default();
    shelf.small.insert(content(1), (0..100_000u32).map(|at| at.to_be_bytes()[3]).collect());
    let shelf = Arc::new(shelf);
    let client = served(&shelf, PATIENT).await;
    let got = client.range(module(), content(1), 100_000, 65_536..100_000).await.unwrap();
    assert_eq!(got.as_deref(), shelf.small[&content(1)].get(65_536..));
    assert_eq!(client.range(module(), content(2), 100_000, 0..16_384).await.unwrap(), None);
    let have = client.have(module(), page_id(1)).await.unwrap();
    assert!(have.contains(8) && !have.contains(9));
}

#[tokio::test]
async fn an_unchanged_head_costs_under_400_bytes() {
    let client = served(&Arc::new(Shelf::default()), PATIENT).await;
    let before = client.counters();
    let reply = client.head(module(), Some(Known::of(&bundle())), None, 0, 0).await.unwrap();
    assert_eq!((reply.bundle, reply.holds.len()), (None, 1));
    let after = client.counters();
    let bytes = after.received + after.sent - before.received - before.sent;
    assert!(bytes < 400, "{bytes} bytes");
}

#[tokio::test]
async fn a_head_is_sent_to_those_who_have_another_or_a_staler_one() {
    let client = served(&Arc::new(Shelf { nominations: vec![vec![1; 300]; 20], ..Shelf::default() }), PATIENT).await;
    let known = Known::of(&bundle());
    for have in [None, Some(Known { seq: 40, ..known.clone() }), Some(Known { issued: 0, ..known })] {
        let reply = client.head(module(), have, None, 5, 0).await.unwrap();
        assert_eq!(reply.bundle.unwrap(), bundle().bytes());
        assert_eq!(reply.nominations.len(), 5);
    }
}

#[tokio::test]
async fn what_a_client_tells_is_heard() {
    let shelf = Arc::new(Shelf::default());
    let client = served(&shelf, PATIENT).await;
    let tell = Told { bundle: Some(vec![1; 10].into()), nominations: vec![vec![2; 20].into()] };
    client.head(ModuleId::from_bytes([1; 32]), None, Some(tell), 0, 0).await.unwrap();
    assert_eq!(*shelf.heard.lock().unwrap(), [vec![1; 10], vec![2; 20]]);
}

#[tokio::test]
async fn an_unknown_module_is_refused_and_the_stream_goes_on() {
    let shelf = Arc::new(Shelf::default());
    let client = served(&shelf, PATIENT).await;
    let refused = client.pages(ModuleId::from_bytes([1; 32]), &[page_id(1)]).await;
    assert!(matches!(refused, Err(Error::Refused { code: Code::UNKNOWN_MODULE, .. })), "{refused:?}");
    assert_eq!(shelf.asked.load(Ordering::Relaxed), 0);
    assert_eq!(client.pages(module(), &[page_id(1)]).await, Ok(vec![None]));
}

#[tokio::test]
async fn a_peer_over_its_allowance_is_told_when_to_come_back_and_whom_to_ask() {
    let shelf = Arc::new(Shelf { nominations: vec![vec![5; 300]], ..Shelf::default() });
    let (limits, peer, (near, far)) = (Limits::new(PATIENT), PeerId::random(), duplex());
    limits.gate(|gate, now| gate.admit(&peer, 1 << 50, now)).unwrap();
    tokio::spawn(serve_stream(far, peer, shelf, limits));
    let client = PeerClient::start(near, Hello::ours(), PATIENT);
    let busy = client.batch(module(), &[(content(1), 1)]).await;
    let Err(Error::Busy { retry_after, peers }) = busy else { panic!("{busy:?}") };
    assert!(retry_after > Duration::from_secs(60));
    assert_eq!(peers, [vec![5; 300]]);
}

#[tokio::test]
async fn a_ninth_stream_is_busy_until_another_ends() {
    let (limits, peer) = (Limits::new(PATIENT), PeerId::random());
    let open = || {
        let (near, far) = duplex();
        let served = tokio::spawn(serve_stream(far, peer, Arc::new(Shelf::default()), limits.clone()));
        let client = PeerClient::start(near, Hello::ours(), PATIENT);
        async move { (client.have(module(), page_id(1)).await.map(|_| client), served) }
    };
    let mut clients = Vec::new();
    for _ in 0..8 {
        let (client, served) = open().await;
        clients.push((client.unwrap(), served));
    }
    let ninth = open().await.0;
    assert!(matches!(ninth, Err(Error::Busy { .. })), "{ninth:?}");
    let (client, served) = clients.pop().unwrap();
    drop(client);
    assert_eq!(served.await.unwrap(), Err(Error::Closed));
    open().await.0.unwrap();
}

#[test]
fn limits_hold_a_full_batch_request_in_one_frame() {
    use super::super::frame::{Frame, MAX_REQUEST};
    use super::super::msg::{GetBatch, Message};
    let files = vec![(Short::from(&content(u32::MAX)), rules::MAX_BATCH); rules::MAX_ITEMS];
    let frame = Frame { request: u32::MAX, message: Message::GetBatch(GetBatch { module: module(), files }) };
    assert!(frame.to_bytes().unwrap().len() - 4 <= MAX_REQUEST);
}
