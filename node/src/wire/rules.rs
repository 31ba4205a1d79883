//! What may be asked, and what answers it. Pure: both sides judge each other by these rules.

use crate::store::outboard::{self, WIDE_GROUP};

use super::msg::{GetHead, GetOutboard, GetRange, HeadReply, Message, Parts, Told};

/// Pages in one request.
pub const MAX_PAGES: usize = 256;
/// Files in one batch request.
pub const MAX_ITEMS: usize = 4096;
/// Bytes in one answer, proofs not counted; also the longest range and the largest file of a batch.
pub const MAX_BATCH: u64 = 1 << 20;
/// Largest page in bytes.
pub const MAX_PAGE: u64 = 64 << 10;
/// Ranges begin and end at multiples of this, or at the end of the file.
pub const GROUP: u64 = 16 << 10;
/// Room for the proof of a range: its own parents and the way up to the root.
pub const MAX_PROOF: u64 = 64 << 10;
/// Largest bundle in bytes.
pub const MAX_BUNDLE: usize = 4 << 10;
/// Largest nomination in bytes.
pub const MAX_NOMINATION: usize = 1 << 10;
/// Nominations in one message.
pub const MAX_NOMINATIONS: usize = 16;
/// Largest roster in bytes.
pub const MAX_ROSTER: usize = tracker_less::record::roster::MAX_ROSTER;
/// Rosters in one answer.
pub const MAX_ROSTERS: usize = 4;
/// Generations in one answer.
pub const MAX_HOLDS: usize = 8;
/// Bytes of text in a hello or a refusal.
pub const MAX_TEXT: usize = 256;
/// Largest file whose inner hashes are told: they are 64 MiB then.
pub const MAX_PROVABLE: u64 = 256 << 30;
/// What an answer without content is taken to cost, in bytes.
const SMALL_ANSWER: u64 = 32 << 10;

/// Refuses a request that asks for too much or out of form; says what is wrong.
pub fn request(message: &Message) -> Result<(), &'static str> {
    let fits = |good: bool, what| if good { Ok(()) } else { Err(what) };
    match message {
        Message::GetHead(GetHead { tell, sample, .. }) => {
            fits(usize::try_from(*sample).is_ok_and(|count| count <= MAX_NOMINATIONS), "too many nominations wanted")?;
            tell.as_ref().map_or(Ok(()), told)
        }
        Message::GetPages(get) => fits((1..=MAX_PAGES).contains(&get.pages.len()), "no pages or too many"),
        Message::GetRange(get) => range(get),
        Message::GetBatch(get) => {
            fits((1..=MAX_ITEMS).contains(&get.files.len()), "no files or too many")?;
            fits(get.files.iter().all(|(_, size)| *size <= MAX_BATCH), "a file too large for a batch")
        }
        Message::GetHave(_) => Ok(()),
        Message::GetPatches(get) => get.check(),
        Message::GetSums(get) => get.check(),
        Message::GetSlices(get) => get.check(),
        Message::GetPagePatches(get) => get.check(),
        Message::GetOutboard(get) => fits(
            (WIDE_GROUP + 1..=MAX_PROVABLE).contains(&get.size) && get.start < outboard::groups(get.size),
            "no such hash",
        ),
        _ => Err("not a request"),
    }
}

fn told(told: &Told) -> Result<(), &'static str> {
    if told.bundle.as_ref().is_some_and(|bundle| bundle.len() > MAX_BUNDLE) {
        return Err("a bundle over the size cap");
    }
    nominations(&told.nominations)
}

fn nominations(records: &[serde_bytes::ByteBuf]) -> Result<(), &'static str> {
    if records.len() > MAX_NOMINATIONS {
        return Err("too many nominations");
    }
    if records.iter().any(|record| record.len() > MAX_NOMINATION) {
        return Err("a nomination over the size cap");
    }
    Ok(())
}

fn range(get: &GetRange) -> Result<(), &'static str> {
    let end = get.start.checked_add(get.length).ok_or("a range that overflows")?;
    if get.length == 0 || get.length > MAX_BATCH {
        return Err("an empty range or too long");
    }
    if end > get.size {
        return Err("a range beyond the end");
    }
    if !get.start.is_multiple_of(GROUP) || !end.is_multiple_of(GROUP) && end != get.size {
        return Err("an unaligned range");
    }
    Ok(())
}

/// Bytes of the answer: the values of all groups from the first one asked for, up to a full frame.
fn values(get: &GetOutboard) -> u64 {
    let left = outboard::groups(get.size).saturating_sub(get.start);
    left.saturating_mul(outboard::VALUE as u64).min(MAX_BATCH)
}

/// One slot that is absent or has exactly so many bytes.
fn exactly(parts: &Parts, bytes: u64) -> Result<(), &'static str> {
    slots(parts, 1)?;
    let fits = parts.sizes().iter().flatten().all(|size| u64::from(*size) == bytes);
    if fits { Ok(()) } else { Err("an answer of wrong length") }
}

/// About how many bytes the answer to `request` has, at most.
pub fn cost(request: &Message) -> u64 {
    let pages = |count: usize| u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(MAX_PAGE);
    match request {
        Message::GetPages(get) => pages(get.pages.len()).min(MAX_BATCH),
        Message::GetRange(get) => get.length.saturating_add(MAX_PROOF),
        Message::GetBatch(get) => {
            get.files.iter().fold(0u64, |sum, (_, size)| sum.saturating_add(*size)).min(MAX_BATCH)
        }
        Message::GetPatches(get) => get.cost(),
        Message::GetSums(get) => get.cost(),
        Message::GetSlices(get) => get.cost(),
        Message::GetPagePatches(get) => get.cost(),
        Message::GetOutboard(get) => values(get),
        _ => SMALL_ANSWER,
    }
}

/// Checks that `answer` is one to `request`; says what is wrong. Refusals are not answers.
pub fn answer(request: &Message, answer: &Message) -> Result<(), &'static str> {
    match (request, answer) {
        (Message::GetHead(get), Message::Head(reply)) => head(get, reply),
        (Message::GetPages(get), Message::Pages(parts)) => {
            slots(parts, get.pages.len())?;
            let sized = parts.sizes().iter().flatten().all(|size| u64::from(*size) <= MAX_PAGE);
            if sized { Ok(()) } else { Err("a page over the size cap") }
        }
        (Message::GetRange(get), Message::Range(parts)) => {
            slots(parts, 1)?;
            let least = get.length;
            let sized = |size: u32| (least..=least.saturating_add(MAX_PROOF)).contains(&u64::from(size));
            if parts.sizes().iter().flatten().all(|size| sized(*size)) {
                Ok(())
            } else {
                Err("a range of wrong length")
            }
        }
        (Message::GetBatch(get), Message::Batch(parts)) => {
            slots(parts, get.files.len())?;
            let mut pairs = parts.sizes().iter().zip(&get.files);
            let exact = pairs.all(|(sent, (_, size))| sent.is_none_or(|sent| u64::from(sent) == *size));
            if exact { Ok(()) } else { Err("a file of wrong length") }
        }
        (Message::GetHave(_), Message::Have(_)) => Ok(()),
        (Message::GetPatches(get), Message::Patches(made)) => get.judge(made),
        (Message::GetSums(get), Message::Sums(parts)) => {
            slots(parts, get.parts.len())?;
            get.judge(parts.sizes())
        }
        (Message::GetSlices(get), Message::Slices(made)) => get.judge(made),
        (Message::GetPagePatches(get), Message::PagePatches(made)) => get.judge(made),
        (Message::GetOutboard(get), Message::Outboard(parts)) => exactly(parts, values(get)),
        _ => Err("an answer of another kind"),
    }
}

fn slots(parts: &Parts, asked: usize) -> Result<(), &'static str> {
    match parts.sizes().len() {
        0 => Err("an answer without a slot"),
        count if count > asked => Err("more than was asked for"),
        _ => Ok(()),
    }
}

fn head(get: &GetHead, reply: &HeadReply) -> Result<(), &'static str> {
    if reply.bundle.iter().chain(&reply.held).any(|bundle| bundle.len() > MAX_BUNDLE) {
        return Err("a bundle over the size cap");
    }
    if reply.holds.len() > MAX_HOLDS {
        return Err("too many generations");
    }
    if u32::try_from(reply.nominations.len()).map_or(true, |count| count > get.sample) {
        return Err("more nominations than were asked for");
    }
    if reply.rosters.len() > MAX_ROSTERS || reply.rosters.iter().any(|roster| roster.len() > MAX_ROSTER) {
        return Err("too many rosters, or one over the size cap");
    }
    nominations(&reply.nominations)
}
