//! The answering side of one stream.
//!
//! Three loops run side by side, joined by bounded queues: one reads requests, one works on them (blocking, off the
//! runtime), one writes answers. So the disk is one answer ahead of the network, and a client that does not read its
//! answers holds up nobody but itself.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use libp2p::PeerId;
use serde_bytes::ByteBuf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::delta::Made;
use super::frame::{Frame, FrameReader, FrameWriter, MAX_REQUEST, within};
use super::fuse::Fuse;
use super::limit::{Full, Gate};
use super::msg::{Busy, Code, GetHead, HeadReply, Hello, Known, Message, Parts, Refusal, Told, VERSION};
use super::throttle::Pace;
use super::{Deadlines, Error, ModuleId, Provider, rules};

/// Requests read and not yet worked on.
const QUEUE: usize = 32;
/// A request for a patch waits for its turn this long; then there is none.
const TURN: Duration = Duration::from_secs(2);
/// Patches made at once where it is not known how many processors there are.
const CRAFTS: usize = 2;
/// What a peer without a place is told.
const COME_BACK: Duration = Duration::from_secs(30);

/// Deadlines and the counters all streams of a node share.
#[derive(Clone, Debug)]
pub struct Limits {
    deadlines: Deadlines,
    gate: Arc<Mutex<Gate>>,
    /// Patches, slices and sums made at once for all peers together: each takes a processor, and tens of MiB.
    crafts: Arc<Semaphore>,
    start: Instant,
    /// What all streams together may send.
    pace: Option<Pace>,
}

impl Limits {
    /// Fresh counters.
    pub fn new(deadlines: Deadlines) -> Self {
        let crafts = std::thread::available_parallelism().map_or(CRAFTS, usize::from);
        Self::with_crafts(deadlines, crafts)
    }

    /// The same, with so many patches made at once.
    pub fn with_crafts(deadlines: Deadlines, crafts: usize) -> Self {
        let crafts = Arc::new(Semaphore::new(crafts));
        Self { deadlines, gate: Arc::default(), crafts, start: Instant::now(), pace: None }
    }

    /// Waits until the request may be worked on: at once, unless that is much work.
    async fn turn(&self, request: &Message) -> Result<Option<OwnedSemaphorePermit>, Full> {
        if !matches!(request, Message::GetPatches(_) | Message::GetSlices(_) | Message::GetSums(_)) {
            return Ok(None);
        }
        match tokio::time::timeout(TURN, Arc::clone(&self.crafts).acquire_owned()).await {
            Ok(Ok(turn)) => Ok(Some(turn)),
            _ => Err(Full),
        }
    }

    /// With a limit of bytes per second for all answers together, if any.
    #[must_use]
    pub fn with_rate(self, rate: Option<u64>) -> Self {
        Self { pace: rate.map(Pace::new), ..self }
    }

    /// Looks at the counters; never blocks for long.
    pub fn gate<T>(&self, look: impl FnOnce(&mut Gate, Duration) -> T) -> T {
        let now = self.start.elapsed();
        // Counters stay usable whatever happened to the holder of the lock.
        look(&mut self.gate.lock().unwrap_or_else(PoisonError::into_inner), now)
    }
}

/// One stream's place among those its peer may have; gives it back at the end.
struct Place {
    limits: Limits,
    peer: PeerId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limits.gate(|gate, _| gate.close_stream(&self.peer));
    }
}

impl Place {
    fn take(limits: &Limits, peer: PeerId) -> Result<Self, Full> {
        limits.gate(|gate, now| gate.open_stream(peer, now))?;
        Ok(Self { limits: limits.clone(), peer })
    }
}

/// A request as the worker gets it: to be answered, to be put off, or already settled by its refusal.
enum Job {
    Answer(Message),
    Busy(Message, Duration),
    Refused(Message),
}

/// Answers `peer` on `stream` until it leaves ([`Error::Closed`] is the normal end), is silent too long or breaks a rule.
pub async fn serve_stream<S>(stream: S, peer: PeerId, provider: Arc<dyn Provider>, limits: Limits) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let deadlines = limits.deadlines;
    let (read, write) = Fuse::new(stream).split();
    let mut reader = FrameReader::new(read, MAX_REQUEST, deadlines.silence, Arc::default());
    let writer = FrameWriter::new(write, deadlines.silence, Arc::<AtomicU64>::default());
    let mut writer = writer.paced(limits.pace.clone());
    let Ok(place) = Place::take(&limits, peer) else {
        return writer.send(&Frame::about_stream(busy(COME_BACK, Vec::new()))).await;
    };
    within(deadlines.hello, greet(&mut reader, &mut writer)).await?;

    let owed = AtomicUsize::new(0);
    let (ask, asked) = mpsc::channel(QUEUE);
    let (answer, answered) = mpsc::channel(1);
    let reading = read_requests(&mut reader, ask, &owed, &place);
    let answering = async {
        tokio::join!(work(asked, answer, provider, (peer, &limits)), write_answers(&mut writer, answered, &owed)).1
    };
    tokio::pin!(answering);
    tokio::select! {
        written = &mut answering => written,
        // What was read before, the last word on a broken rule included, is still answered.
        read = reading => answering.await.and(read),
    }
}

/// Reads the hello, sends ours.
async fn greet<R, W>(reader: &mut FrameReader<R>, writer: &mut FrameWriter<W>) -> Result<(), Error>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let refused = match reader.next().await {
        Ok(Frame { request: 0, message: Message::Hello(Hello { version: VERSION, agent, .. }) })
            if agent.len() <= rules::MAX_TEXT =>
        {
            return writer.send(&Frame::about_stream(Message::HelloAck(Hello::ours()))).await;
        }
        Ok(Frame { message: Message::Hello(Hello { version, .. }), .. }) if version != VERSION => {
            refuse(Code::VERSION, "version 1 is spoken here")
        }
        Ok(_) | Err(Error::Lie { .. }) => refuse(Code::BAD_REQUEST, "no hello"),
        Err(error) => return Err(error),
    };
    writer.send(&Frame::about_stream(refused)).await?;
    writer.close().await?;
    Err(Error::Lie { what: "no hello" })
}

/// Reads and judges requests. Ends at the first that breaks a rule, after queueing its refusal.
async fn read_requests<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    ask: mpsc::Sender<(u32, Job)>,
    owed: &AtomicUsize,
    place: &Place,
) -> Result<(), Error> {
    let mut expected = 1u32;
    loop {
        let frame = match next_request(reader, owed, place.limits.deadlines.idle).await {
            Err(Error::Lie { what }) => Err(what),
            other => Ok(other?),
        };
        let request = frame.and_then(|frame| {
            rules::request(&frame.message)?;
            if frame.request == expected { Ok(frame.message) } else { Err("requests out of order") }
        });
        owed.fetch_add(1, Ordering::Relaxed);
        match request {
            Ok(request) => {
                let room = place.limits.gate(|gate, now| gate.admit(&place.peer, rules::cost(&request), now));
                let job = match room {
                    Ok(()) => Job::Answer(request),
                    Err(wait) => Job::Busy(request, wait),
                };
                ask.send((expected, job)).await.map_err(|_| Error::Closed)?;
            }
            Err(what) => {
                let job = Job::Refused(refuse(Code::BAD_REQUEST, what));
                ask.send((0, job)).await.map_err(|_| Error::Closed)?;
                return Err(Error::Lie { what });
            }
        }
        expected = expected.checked_add(1).ok_or(Error::Closed)?;
    }
}

/// The next request; waiting for it is idleness only while no answer is owed.
async fn next_request<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    owed: &AtomicUsize,
    idle: Duration,
) -> Result<Frame, Error> {
    loop {
        match within(idle, reader.begun()).await {
            Err(Error::Timeout) if owed.load(Ordering::Relaxed) > 0 => {}
            begun => break begun?,
        }
    }
    reader.next().await
}

/// Works on one request after the other where blocking is allowed.
async fn work(
    mut asked: mpsc::Receiver<(u32, Job)>,
    answer: mpsc::Sender<Frame>,
    provider: Arc<dyn Provider>,
    (peer, limits): (PeerId, &Limits),
) {
    while let Some((request, job)) = asked.recv().await {
        let message = settle(job, &provider, (peer, limits)).await;
        if answer.send(Frame { request, message }).await.is_err() {
            return;
        }
    }
}

/// Answers when its turn has come, or at once what was made lately.
async fn settle(job: Job, provider: &Arc<dyn Provider>, (peer, limits): (PeerId, &Limits)) -> Message {
    let turn = match &job {
        Job::Answer(request) => match provider.made_lately(request) {
            Some(made) => return made,
            None => limits.turn(request).await,
        },
        _ => Ok(None),
    };
    match (turn, job) {
        // Whoever has no patch asks for the bytes.
        (Err(Full), Job::Answer(request)) => nothing(&request),
        (turn, job) => {
            let provider = Arc::clone(provider);
            let work = move || {
                let _turn = turn;
                reply(job, &*provider, peer)
            };
            tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| refuse(Code::INTERNAL, "failed here"))
        }
    }
}

async fn write_answers<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    mut answered: mpsc::Receiver<Frame>,
    owed: &AtomicUsize,
) -> Result<(), Error> {
    while let Some(frame) = answered.recv().await {
        writer.send(&frame).await?;
        owed.fetch_sub(1, Ordering::Relaxed);
    }
    writer.close().await
}

/// The message that settles a job.
fn reply(job: Job, provider: &dyn Provider, peer: PeerId) -> Message {
    match job {
        Job::Answer(request) => answer(request, provider, peer),
        Job::Busy(request, wait) => {
            let others = module_of(&request).map(|module| sample(provider, &module, rules::MAX_NOMINATIONS));
            busy(wait, others.unwrap_or_default())
        }
        Job::Refused(message) => message,
    }
}

/// The answer that has nothing of what would be much work.
fn nothing(request: &Message) -> Message {
    match request {
        Message::GetPatches(get) => Message::Patches(Made::none(get.pairs.len())),
        Message::GetSlices(get) => Message::Slices(Made::none(get.parts.len())),
        Message::GetSums(get) => Message::Sums(fitting(get.parts.iter().map(|_| None))),
        _ => refuse(Code::BAD_REQUEST, "not a request"),
    }
}

/// The answer to a request that obeys the rules.
fn answer(request: Message, provider: &dyn Provider, peer: PeerId) -> Message {
    if let Message::GetHead(get) = request {
        return Message::Head(head(get, provider, peer));
    }
    let Some(module) = module_of(&request).filter(|module| provider.bundle(module).is_some()) else {
        return refuse(Code::UNKNOWN_MODULE, "no such module here");
    };
    match request {
        Message::GetPages(get) => {
            Message::Pages(fitting(get.pages.iter().map(|cid| provider.page(&module, cid))).pack())
        }
        Message::GetRange(get) => {
            let range = get.start..get.start.saturating_add(get.length);
            Message::Range(Parts::one(provider.range(&module, &get.id, get.size, range)).pack())
        }
        Message::GetBatch(get) => {
            let total = get.files.iter().fold(0u64, |total, (_, size)| total.saturating_add(*size));
            let files = get.files.iter().map(|(id, size)| provider.small(&module, id, *size));
            Message::Batch(fitting_into(Parts::with_room(total.min(rules::MAX_BATCH)), files).pack())
        }
        Message::GetHave(get) => Message::Have(provider.have(&module, &get.root).bounded()),
        Message::GetPagePatches(get) => Message::PagePatches(provider.page_patches(&module, &get.pages)),
        Message::GetPatches(get) => Message::Patches(provider.patches(&module, &get.pairs)),
        // Sums are noise.
        Message::GetSums(get) => Message::Sums(fitting(get.parts.iter().map(|part| provider.sums(&module, part)))),
        Message::GetSlices(get) => Message::Slices(provider.slices(&module, &get.parts)),
        // Hashes are noise.
        Message::GetOutboard(get) => {
            Message::Outboard(Parts::one(provider.outboard(&module, &get.id, get.size, get.start)))
        }
        _ => refuse(Code::BAD_REQUEST, "not a request"),
    }
}

fn module_of(request: &Message) -> Option<ModuleId> {
    match request {
        Message::GetHead(get) => Some(get.module),
        Message::GetPages(get) => Some(get.module),
        Message::GetRange(get) => Some(get.module),
        Message::GetBatch(get) => Some(get.module),
        Message::GetHave(get) => Some(get.module),
        Message::GetPagePatches(get) => Some(get.module),
        Message::GetPatches(get) => Some(get.module),
        Message::GetSums(get) => Some(get.module),
        Message::GetSlices(get) => Some(get.module),
        Message::GetOutboard(get) => Some(get.module),
        _ => None,
    }
}

/// As many parts, from the first on, as one answer holds.
fn fitting(parts: impl Iterator<Item = Option<Vec<u8>>>) -> Parts {
    fitting_into(Parts::default(), parts)
}

fn fitting_into(mut fitting: Parts, parts: impl Iterator<Item = Option<Vec<u8>>>) -> Parts {
    let cap = usize::try_from(rules::MAX_BATCH).unwrap_or(usize::MAX);
    for part in parts {
        let size = part.as_ref().map_or(0, Vec::len);
        if !fitting.sizes().is_empty() && fitting.bytes().saturating_add(size) > cap {
            break;
        }
        fitting.push(part.as_deref());
    }
    fitting
}

/// Takes in what is told, then says what is new.
fn head(get: GetHead, provider: &dyn Provider, peer: PeerId) -> HeadReply {
    if let Some(Told { bundle, nominations }) = get.tell.clone() {
        let records = nominations.into_iter().map(ByteBuf::into_vec).collect();
        provider.heard(peer, bundle.into_iter().map(ByteBuf::into_vec).collect(), records);
    }
    let newest = provider.bundle(&get.module);
    let held = provider.held(&get.module).filter(|held| newest.as_ref().map(Known::of) != Some(Known::of(held)));
    let bundle = newest.filter(|bundle| get.have != Some(Known::of(bundle)));
    let mut holds = provider.holds(&get.module);
    holds.truncate(rules::MAX_HOLDS);
    let wanted = usize::try_from(get.sample).unwrap_or(0);
    HeadReply {
        bundle: bundle.map(|bundle| ByteBuf::from(bundle.bytes())),
        held: held.map(|bundle| ByteBuf::from(bundle.bytes())),
        holds,
        nominations: sample(provider, &get.module, wanted),
        rosters: rosters(provider, &get),
    }
}

fn rosters(provider: &dyn Provider, get: &GetHead) -> Vec<ByteBuf> {
    let rosters = provider.rosters(&get.module, get.since).into_iter();
    rosters.filter(|roster| roster.len() <= rules::MAX_ROSTER).take(rules::MAX_ROSTERS).map(ByteBuf::from).collect()
}

fn sample(provider: &dyn Provider, module: &ModuleId, count: usize) -> Vec<ByteBuf> {
    let records = provider.nominations(module).into_iter().filter(|record| record.len() <= rules::MAX_NOMINATION);
    records.take(count.min(rules::MAX_NOMINATIONS)).map(ByteBuf::from).collect()
}

fn refuse(code: Code, text: &str) -> Message {
    Message::Error(Refusal { code, text: text.to_owned() })
}

fn busy(wait: Duration, peers: Vec<ByteBuf>) -> Message {
    Message::Busy(Busy { retry_after: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX), peers })
}
