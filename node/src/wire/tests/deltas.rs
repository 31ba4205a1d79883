//! Requests and answers about old and new versions: honest, and out of bounds.

use proptest::prelude::*;

use super::super::delta::{GetPagePatches, GetPatches, GetSlices, GetSums, MAX_SLICES};
use super::super::msg::Message;
use super::super::rules;
use super::*;
use crate::delta::blocks::Form;

const MIB: u64 = 1 << 20;

fn short(number: u32) -> Short {
    Short::from(&content(number))
}

fn pair(old_size: u64, size: u64, window: u64) -> Pair {
    Pair { old: short(1), old_size, id: short(2), size, window }
}

fn patches(pairs: Vec<Pair>) -> Message {
    Message::GetPatches(GetPatches { module: module(), pairs })
}

fn sums(size: u64, start: u64, length: u64, block: u32, width: u8) -> Message {
    let part = Part { id: short(1), size, start, length, form: Form { block, width } };
    Message::GetSums(GetSums { module: module(), parts: vec![part] })
}

fn slices(size: u64, window: u64, gaps: Vec<(u32, u32)>) -> Message {
    let part = Lacking { id: short(1), size, window, gaps };
    Message::GetSlices(GetSlices { module: module(), parts: vec![part] })
}

#[test]
fn what_asks_for_too_much_or_out_of_form_is_refused() {
    let whole = u32::try_from(MIB).unwrap();
    let many = vec![Lacking { id: short(1), size: MIB, window: 0, gaps: vec![(1, 1); MAX_SLICES / 2 + 1] }; 2];
    // A byte of each: all of the file is read every time.
    let crumb = Part { id: short(1), size: MIB, start: 0, length: 1, form: Form { block: 512, width: 4 } };
    let crumbs = vec![crumb; 100];
    let cases = [
        (patches(Vec::new()), "no files or too many"),
        (patches(vec![pair(1, 1, 0); 4097]), "no files or too many"),
        (patches(vec![pair(1, 1, 1)]), "no such window"),
        (patches(vec![pair(1, 0, 0)]), "no such window"),
        (patches(vec![pair(1, u64::MAX, u64::MAX)]), "no such window"),
        (patches(vec![pair(u64::MAX, 1, 0)]), "no such window"),
        (patches(vec![pair(1, MIB, 0); 9]), "too many bytes for one patch"),
        (patches(vec![pair(2 * MIB, 1, 0); 9]), "too many bytes for one patch"),
        (sums(1000, 0, 1000, 0, 4), "sums out of form"),
        (sums(1000, 0, 1000, 513, 4), "sums out of form"),
        (sums(1000, 0, 1000, 512, 0), "sums out of form"),
        (sums(1000, 0, 1000, 512, 9), "sums out of form"),
        (sums(1000, 0, 0, 512, 4), "sums out of form"),
        (sums(1000, 1, 1000, 512, 4), "sums out of form"),
        (sums(1000, u64::MAX, 2, 512, 4), "sums out of form"),
        (sums(u64::MAX, 0, 1000, 512, 4), "sums out of form"),
        (sums(100 * MIB, 0, 65 * MIB, 65_536, 3), "too many sums"),
        (sums(64 * MIB, 0, 64 * MIB, 256, 8), "too many sums"),
        (Message::GetSums(GetSums { module: module(), parts: crumbs }), "too many sums"),
        (slices(MIB, 1, Vec::new()), "slices out of order or beyond the end"),
        (slices(MIB, 0, vec![(0, 0)]), "slices out of order or beyond the end"),
        (slices(MIB, 0, vec![(0, 10), (0, 10)]), "slices out of order or beyond the end"),
        (slices(MIB, 0, vec![(0, whole), (1, 1)]), "slices out of order or beyond the end"),
        (slices(MIB, 0, vec![(u32::MAX, u32::MAX); 3]), "slices out of order or beyond the end"),
        (slices(MIB + 5, 1, vec![(0, 6)]), "slices out of order or beyond the end"),
        (Message::GetSlices(GetSlices { module: module(), parts: many }), "too many slices"),
    ];
    for (request, what) in cases {
        assert_eq!(rules::request(&request), Err(what), "{request:?}");
    }
    let pages = |count: usize| {
        Message::GetPagePatches(GetPagePatches { module: module(), pages: vec![(short(1), short(2)); count] })
    };
    assert_eq!(rules::request(&pages(0)), Err("no pages or too many"));
    assert_eq!(rules::request(&pages(257)), Err("no pages or too many"));
    let sized = |sizes: Vec<Option<u32>>| Message::PagePatches(PagePatches { sizes, frame: Vec::new() });
    assert_eq!(rules::answer(&pages(2), &sized(vec![Some(65_537)])), Err("a page over the size cap"));
    assert_eq!(rules::answer(&pages(64), &sized(vec![Some(65_536); 33])), Err("too many pages"));
    assert_eq!(rules::answer(&pages(1), &sized(vec![None; 2])), Err("an answer without a slot or with too many"));
    assert_eq!(rules::answer(&pages(2), &sized(vec![None; 2])), Ok(()));
    let good = [
        pages(256),
        patches(vec![pair(2 * MIB, MIB, 0); 2]),
        sums(1000, 512, 488, 512, 4),
        slices(MIB + 5, 1, vec![(0, 5)]),
        slices(MIB, 0, Vec::new()),
    ];
    for request in good {
        assert_eq!(rules::request(&request), Ok(()), "{request:?}");
        assert!(rules::cost(&request) < MIB * 4);
    }
}

#[test]
fn copies_out_of_range_tiny_ones_and_bombs_are_lies() {
    let made = |slots: Vec<Option<Vec<(u64, u64)>>>| Message::Patches(Made { slots, frame: Vec::new() });
    let one = patches(vec![pair(3 * MIB, MIB, 0)]);
    let ranges = "ranges of an old file that cannot be";
    let slots = "an answer without a slot or with too many";
    let cases = [
        (made(vec![Some(vec![(3 * MIB - 1, 2)])]), ranges),
        (made(vec![Some(vec![(u64::MAX, 2)])]), ranges),
        (made(vec![Some(vec![(0, 0)])]), ranges),
        (made(vec![Some(vec![(5, 10), (10, 10)])]), ranges),
        (made(vec![Some(vec![(0, 2 * MIB + 1)])]), ranges),
        (made(vec![Some((0..10_000_000u64).map(|at| (2 * at, 1)).collect())]), ranges),
        (made(vec![Some((0..65u64).map(|at| (2 * at, 1)).collect())]), ranges),
        (made(Vec::new()), slots),
        (made(vec![None, None]), slots),
        (
            Message::Patches(Made { slots: vec![None], frame: vec![0; (1 << 20) + (64 << 10) + 1] }),
            "a frame over the size cap",
        ),
        (Message::Sums(msg::Parts::one(None)), "an answer of another kind"),
    ];
    for (answer, what) in cases {
        assert_eq!(rules::answer(&one, &answer), Err(what));
    }
    assert_eq!(rules::answer(&one, &made(vec![Some(vec![(0, 10), (10, 10)])])), Ok(()));
    let small = patches(vec![pair(MIB, MIB, 0)]);
    assert_eq!(rules::answer(&small, &made(vec![Some(vec![(0, 10)])])), Err(ranges), "of a small file all is taken");
    let parts = |bytes: usize| Message::Sums(msg::Parts::one(Some(vec![0; bytes])));
    assert_eq!(rules::answer(&sums(1000, 0, 1000, 512, 4), &parts(9)), Err("sums of wrong length"));
    assert_eq!(rules::answer(&sums(1000, 0, 1000, 512, 4), &parts(8)), Ok(()));
    let told = Message::Slices(Made { slots: vec![Some(vec![(0, 1)])], frame: Vec::new() });
    let what = "ranges of an old file where there is none";
    assert_eq!(rules::answer(&slices(MIB, 0, vec![(0, 5)]), &told), Err(what));
}

#[tokio::test]
async fn they_are_answered() {
    let mut shelf = Shelf::default();
    let new: Vec<u8> = (0..100_000u32).map(|at| at.to_be_bytes()[2]).collect();
    shelf.small.insert(content(1), b"old".to_vec());
    shelf.small.insert(content(2), new.clone());
    let client = served(&Arc::new(shelf), PATIENT).await;
    let unknown = Pair { old: short(3), ..pair(3, 100_000, 0) };
    let made = client.patches(module(), vec![pair(3, 100_000, 0), unknown]).await.unwrap();
    assert_eq!(made, Made { slots: vec![Some(Vec::new()), None], frame: b"frame".to_vec() });
    let form = Form { block: 512, width: 5 };
    let part = Part { id: short(2), size: 100_000, start: 0, length: 100_000, form };
    let answer = client.sums(module(), vec![part, Part { id: short(9), ..part }]).await.unwrap();
    assert_eq!(answer, [Some(form.sums(&new)), None]);
    let lacking = Lacking { id: short(2), size: 100_000, window: 0, gaps: vec![(5, 5)] };
    let made = client.slices(module(), vec![lacking]).await.unwrap();
    assert_eq!(made.slots, [Some(Vec::new())]);
}

proptest! {
    #[test]
    fn gaps_say_the_ranges(cuts in proptest::collection::btree_set(0u64..MIB, 0..40)) {
        let cuts: Vec<u64> = cuts.into_iter().collect();
        let ranges: Vec<Range<u64>> = cuts.as_chunks::<2>().0.iter().map(|[start, end]| *start..*end).collect();
        let part = Lacking { id: short(1), size: MIB, window: 0, gaps: Lacking::gaps(&ranges) };
        prop_assert_eq!(part.ranges(), Some(ranges));
    }
}

#[tokio::test]
async fn who_gets_no_turn_for_a_patch_is_told_that_there_is_none_but_for_one_made_lately() {
    let patch = |crafts: usize, lately: Option<Made>| async move {
        let (near, far) = duplex();
        let limits = Limits::with_crafts(PATIENT, crafts);
        let small = [1, 2].map(|number| (content(number), vec![1; 10])).into();
        let shelf = Arc::new(Shelf { small, lately, ..Shelf::default() });
        tokio::spawn(serve_stream(far, PeerId::random(), shelf, limits));
        let client = PeerClient::start(near, Hello::ours(), PATIENT);
        let made = client.patches(module(), vec![pair(10, 10, 0)]).await.unwrap();
        // Nothing else waits.
        client.have(module(), page_id(1)).await.unwrap();
        made
    };
    assert_eq!(patch(0, None).await, Made::none(1));
    assert_ne!(patch(1, None).await, Made::none(1));
    let lately = Made { slots: vec![Some(Vec::new())], frame: b"made before".to_vec() };
    assert_eq!(patch(0, Some(lately.clone())).await, lately);
}
