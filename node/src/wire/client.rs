//! The asking side: one stream, many requests under way.
//!
//! A writer and a reader run side by side, since writing everything before reading would deadlock on a full window. The
//! writer hands each request to the reader before its bytes leave, so the reader always knows what is owed next; it waits
//! with a deadline only then. Answers come in the order of the requests.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use cid::Cid;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use futures::{StreamExt, TryStreamExt, stream};
use serde_bytes::ByteBuf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::delta::{GetPagePatches, GetPatches, GetSlices, GetSums, Lacking, Made, PagePatches, Pair, Part, Short};
use super::frame::{Frame, FrameReader, FrameWriter, MAX_FRAME, within};
use super::fuse::Fuse;
use super::msg::{
    Code, GetBatch, GetHave, GetHead, GetOutboard, GetPages, GetRange, HeadReply, Hello, Known, Message, Parts, Told,
    VERSION,
};
use super::pulse::Pulse;
use super::spares::Spares;
use super::{ContentId, Deadlines, Error, Have, ModuleId, rules};
use crate::store::outboard::{self, Outboard};

/// Bytes asked for and not yet received, in KiB.
const IN_FLIGHT_KIB: u32 = 16 << 10;
/// Requests sent and not yet answered; as many again may wait to be sent.
const IN_FLIGHT: usize = 32;
/// Requests of one call that is too large for one request, at once.
const SPLIT: usize = 4;

/// One stream to one peer. Clones share it; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct PeerClient {
    asks: mpsc::Sender<Ask>,
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
}

/// What the handles and the two loops share.
#[derive(Debug, Default)]
struct Shared {
    end: OnceLock<Error>,
    received: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    requests: AtomicU64,
    spares: Arc<Spares>,
    pulse: Arc<Mutex<Pulse>>,
}

/// Traffic of one stream so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes of whole frames received.
    pub received: u64,
    /// Bytes of whole frames sent.
    pub sent: u64,
    /// Requests sent.
    pub requests: u64,
}

/// A request on its way, with where its answer goes. The permit returns when the answer is in.
#[derive(Debug)]
struct Ask {
    request: Message,
    reply: oneshot::Sender<Result<Message, Error>>,
    permit: OwnedSemaphorePermit,
}

impl PeerClient {
    /// Says hello on `stream` and keeps it going in a task of its own. Requests follow the hello without waiting for its answer:
    /// what is wrong with that ends the stream, and so all that was asked.
    pub fn start<S>(stream: S, hello: Hello, deadlines: Deadlines) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let shared = Arc::new(Shared::default());
        let (read, write) = Fuse::new(stream).split();
        let mut reader = FrameReader::new(read, MAX_FRAME, deadlines.silence, shared.received.clone())
            .reusing(shared.spares.clone())
            .told(shared.pulse.clone());
        let mut writer = FrameWriter::new(write, deadlines.silence, shared.sent.clone());
        let (asks, mut asked) = mpsc::channel(IN_FLIGHT);
        let room = Arc::new(Semaphore::new(usize::try_from(IN_FLIGHT_KIB).unwrap_or(usize::MAX)));
        let client = Self { asks, room, shared: shared.clone() };
        tokio::spawn(async move {
            let (owe, owed) = mpsc::channel(IN_FLIGHT);
            let reading = async {
                within(deadlines.hello, greeted(&mut reader)).await?;
                read_answers(&mut reader, owed).await
            };
            let writing = async {
                writer.send(&Frame::about_stream(Message::Hello(hello))).await?;
                write_requests(&mut writer, &mut asked, owe, &shared).await
            };
            let end = tokio::select! {
                // What the other side said last tells more than that it is gone.
                biased;
                end = reading => end,
                end = writing => end,
            };
            // Set before the channel closes: that is what those who wait go by.
            let _ = shared.end.set(end.err().unwrap_or(Error::Closed));
            drop(asked);
            let _ = writer.close().await;
        });
        client
    }

    /// From now on `pulse` is told of every byte that comes.
    pub fn tell(&self, pulse: Pulse) {
        *self.shared.pulse.lock().unwrap_or_else(PoisonError::into_inner) = pulse;
    }

    /// Whether somebody else has a handle to it.
    pub fn is_shared(&self) -> bool {
        self.asks.strong_count() > 1
    }

    /// Returns when the stream has ended.
    pub async fn closed(&self) {
        self.asks.closed().await;
    }

    /// Why the stream ended, if it did.
    pub fn ended(&self) -> Option<&Error> {
        self.shared.end.get()
    }

    /// Traffic so far.
    pub fn counters(&self) -> Counters {
        Counters {
            received: self.shared.received.load(Ordering::Relaxed),
            sent: self.shared.sent.load(Ordering::Relaxed),
            requests: self.shared.requests.load(Ordering::Relaxed),
        }
    }

    /// What is new in `module` beyond `have`, with up to `sample` nominations and the rosters issued after `since` (Unix
    /// seconds); `tell` is passed on to the other side.
    pub async fn head(
        &self,
        module: ModuleId,
        have: Option<Known>,
        tell: Option<Told>,
        sample: u32,
        since: u64,
    ) -> Result<HeadReply, Error> {
        match self.ask(Message::GetHead(GetHead { module, have, tell, sample, since })).await? {
            Message::Head(reply) => Ok(reply),
            _ => Err(Error::Closed),
        }
    }

    /// The bytes of `pages`, in order, absent where the other side has none. Not yet checked against their ids.
    pub async fn pages(&self, module: ModuleId, pages: &[Cid]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let request = |pages: &[Cid]| Message::GetPages(GetPages { module, pages: pages.to_vec() });
        self.split(pages.chunks(rules::MAX_PAGES), request).await
    }

    /// New pages made from former ones, as many from the first on as one answer holds. Not yet applied nor verified.
    pub async fn page_patches(&self, module: ModuleId, pages: Vec<(Short, Short)>) -> Result<PagePatches, Error> {
        match self.ask(Message::GetPagePatches(GetPagePatches { module, pages })).await? {
            Message::PagePatches(made) => Ok(made),
            _ => Err(Error::Closed),
        }
    }

    /// Small files (id, size in bytes), in order, absent where the other side has none. Not yet checked against their ids.
    pub async fn batch(&self, module: ModuleId, files: &[(ContentId, u64)]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let request = |files: &[(ContentId, u64)]| {
            let files = files.iter().map(|(id, size)| (Short::from(id), *size)).collect();
            Message::GetBatch(GetBatch { module, files })
        };
        self.split(batches(files), request).await
    }

    /// The proven encoding of `range` (bytes, 16 KiB aligned, at most 1 MiB) of a file of `size` bytes. Not yet verified.
    pub async fn range(
        &self,
        module: ModuleId,
        id: ContentId,
        size: u64,
        range: Range<u64>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let length = range.end.saturating_sub(range.start);
        let request = Message::GetRange(GetRange { module, id, size, start: range.start, length });
        self.one(request).await
    }

    /// Takes back the bytes of a range that nobody reads any more.
    pub fn recycle(&self, bytes: Vec<u8>) {
        self.shared.spares.give(bytes);
    }

    /// What makes new files from old ones. Not yet applied nor verified.
    pub async fn patches(&self, module: ModuleId, pairs: Vec<Pair>) -> Result<Made, Error> {
        match self.ask(Message::GetPatches(GetPatches { module, pairs })).await? {
            Message::Patches(made) => Ok(made),
            _ => Err(Error::Closed),
        }
    }

    /// The sums of all blocks of parts of files, in order; fewer where an answer does not hold all.
    pub async fn sums(&self, module: ModuleId, asked: Vec<Part>) -> Result<Vec<Option<Vec<u8>>>, Error> {
        Ok(parts(self.ask(Message::GetSums(GetSums { module, parts: asked })).await?)?.into_vec())
    }

    /// What is lacking of files. Not yet applied nor verified.
    pub async fn slices(&self, module: ModuleId, parts: Vec<Lacking>) -> Result<Made, Error> {
        match self.ask(Message::GetSlices(GetSlices { module, parts })).await? {
            Message::Slices(made) => Ok(made),
            _ => Err(Error::Closed),
        }
    }

    /// The inner hashes of a file over 256 KiB, verified.
    pub async fn hashes(&self, module: ModuleId, id: ContentId, size: u64) -> Result<Option<Outboard>, Error> {
        let groups = outboard::groups(size);
        let (mut bytes, mut start) = (Vec::new(), 0);
        while start < groups {
            let part = self.one(Message::GetOutboard(GetOutboard { module, id, size, start })).await?;
            let Some(part) = part else { return Ok(None) };
            bytes.extend(part);
            start = u64::try_from(bytes.len() / outboard::VALUE).unwrap_or(groups);
        }
        let outboard = Outboard::from_values(&id, size, &bytes);
        outboard.map(Some).ok_or(Error::Lie { what: "hashes of another file" })
    }

    async fn one(&self, request: Message) -> Result<Option<Vec<u8>>, Error> {
        Ok(parts(self.ask(request).await?)?.into_vec().pop().flatten())
    }

    /// Which entries of the tree under `root` the other side holds.
    pub async fn have(&self, module: ModuleId, root: Cid) -> Result<Have, Error> {
        match self.ask(Message::GetHave(GetHave { module, root })).await? {
            Message::Have(have) => Ok(have),
            _ => Err(Error::Closed),
        }
    }

    /// Asks chunk by chunk, several at once.
    async fn split<'a, T: Sync + 'a>(
        &self,
        chunks: impl Iterator<Item = &'a [T]>,
        request: impl Fn(&[T]) -> Message + Sync,
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let mut asks = Vec::new();
        for chunk in chunks {
            asks.push(self.whole(chunk, &request));
        }
        stream::iter(asks).buffered(SPLIT).try_concat().await
    }

    /// Asks for one chunk, and again for what did not fit into an answer.
    async fn whole<T: Sync>(
        &self,
        mut rest: &[T],
        request: &(impl Fn(&[T]) -> Message + Sync),
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let mut got = Vec::with_capacity(rest.len());
        while !rest.is_empty() {
            let some = parts(self.ask(request(rest)).await?)?.into_vec();
            rest = rest.get(some.len()..).unwrap_or_default();
            got.extend(some);
        }
        Ok(got)
    }

    /// One request, its checked answer. A request out of form is refused here and does not leave.
    async fn ask(&self, request: Message) -> Result<Message, Error> {
        rules::request(&request).map_err(|what| Error::Refused { code: Code::BAD_REQUEST, text: what.to_owned() })?;
        let kib = u32::try_from(rules::cost(&request).div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, IN_FLIGHT_KIB);
        let permit = self.room.clone().acquire_many_owned(kib).await.map_err(|_| Error::Closed)?;
        let (reply, answer) = oneshot::channel();
        let ask = Ask { request, reply, permit };
        if self.asks.send(ask).await.is_ok()
            && let Ok(answer) = answer.await
        {
            return answer;
        }
        self.closed().await;
        Err(self.ended().cloned().unwrap_or(Error::Closed))
    }
}

/// Cuts a list of files where a full answer would end.
fn batches(mut files: &[(ContentId, u64)]) -> impl Iterator<Item = &[(ContentId, u64)]> {
    std::iter::from_fn(move || {
        let mut bytes = 0u64;
        let fits = files.iter().take(rules::MAX_ITEMS).take_while(|(_, size)| {
            bytes = bytes.saturating_add(*size);
            bytes <= rules::MAX_BATCH
        });
        // A file too large for any batch stands alone, and is refused.
        let count = fits.count().max(1);
        let (batch, rest) = files.split_at_checked(count)?;
        files = rest;
        Some(batch)
    })
}

fn parts(answer: Message) -> Result<Parts, Error> {
    match answer {
        Message::Pages(parts)
        | Message::Range(parts)
        | Message::Batch(parts)
        | Message::Sums(parts)
        | Message::Outboard(parts) => Ok(parts),
        _ => Err(Error::Closed),
    }
}

/// The error in a message, if it is one.
fn refusal(message: Message) -> Option<Error> {
    match message {
        Message::Error(refusal) => {
            let mut text = refusal.text;
            text.truncate(text.floor_char_boundary(rules::MAX_TEXT));
            Some(Error::Refused { code: refusal.code, text })
        }
        Message::Busy(busy) => {
            let peers =
                busy.peers.into_iter().map(ByteBuf::into_vec).filter(|peer| peer.len() <= rules::MAX_NOMINATION);
            Some(Error::Busy {
                retry_after: Duration::from_millis(busy.retry_after.into()),
                peers: peers.take(rules::MAX_NOMINATIONS).collect(),
            })
        }
        _ => None,
    }
}

/// Reads the answer to our hello.
async fn greeted<R: AsyncRead + Unpin>(reader: &mut FrameReader<R>) -> Result<(), Error> {
    match reader.next().await?.message {
        Message::HelloAck(hello) if hello.version == VERSION && hello.agent.len() <= rules::MAX_TEXT => Ok(()),
        other => Err(refusal(other).unwrap_or(Error::Lie { what: "no hello" })),
    }
}

/// Sends requests until no handle is left.
async fn write_requests<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    asked: &mut mpsc::Receiver<Ask>,
    owe: mpsc::Sender<(u32, Ask)>,
    shared: &Shared,
) -> Result<(), Error> {
    let mut number = 0u32;
    while let Some(ask) = asked.recv().await {
        number = number.checked_add(1).ok_or(Error::Closed)?;
        let frame = Frame { request: number, message: ask.request.clone() };
        owe.send((number, ask)).await.map_err(|_| Error::Closed)?;
        shared.requests.fetch_add(1, Ordering::Relaxed);
        writer.send(&frame).await?;
    }
    Ok(())
}

/// Reads what is owed, in order. A byte that comes when nothing is owed is a lie.
async fn read_answers<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    mut owed: mpsc::Receiver<(u32, Ask)>,
) -> Result<(), Error> {
    loop {
        let next = tokio::select! {
            biased;
            next = owed.recv() => next.ok_or(Error::Closed)?,
            begun = reader.begun() => {
                begun?;
                owed.try_recv().map_err(|_| Error::Lie { what: "an answer nobody asked for" })?
            }
        };
        let (number, Ask { request, reply, permit }) = next;
        let frame = reader.next().await?;
        let refused = matches!(frame.message, Message::Error(_) | Message::Busy(_));
        if frame.request == 0 && refused {
            return Err(refusal(frame.message).unwrap_or(Error::Closed));
        }
        if frame.request != number {
            return Err(Error::Lie { what: "an answer to another request" });
        }
        let answer = if refused {
            Err(refusal(frame.message).unwrap_or(Error::Closed))
        } else {
            rules::answer(&request, &frame.message).map_err(|what| Error::Lie { what })?;
            Ok(frame.message)
        };
        drop(permit);
        // Whoever asked may have gone: the answer is then dropped.
        let _ = reply.send(answer);
    }
}
