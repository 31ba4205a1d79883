//! One web seed: files by ranges or whole, heads and pages where the publisher's static export stands beside them. Each range is
//! proven by itself, so that a file which changes meanwhile shows at once: `If-Range` would add nothing.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use cid::Cid;
use futures::StreamExt;
use futures::stream;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, RANGE, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::client::why;
use super::status::{Body, judge};
use crate::manifest::ContentId;
use crate::manifest::path::TreePath;
use crate::reference::quoted;
use crate::store::outboard::{Outboard, PAIR, WIDE_GROUP, file_name, parents};
use crate::store::proof;
use crate::wire::Error;
use crate::wire::msg::Code;
use crate::wire::pulse::Pulse;
use crate::wire::rules::{MAX_BUNDLE, MAX_PAGE, MAX_PROVABLE};

/// Requests to one server at once: one at first, one more with each answer, so that those of a slow server do not all come late.
const AT_ONCE: usize = 6;
/// Largest file that is taken whole, where nobody has its hashes or the server has no ranges; held in memory.
const MAX_WHOLE: u64 = 64 << 20;
/// So many files that are missing or others, and none right: a server of something else, which is asked no more.
const MAX_STALE: usize = 16;
/// Where a static export stands below the seed's address (FORMAT.md).
const EXPORT: &str = ".murmir";
/// Failures in a row after which a server is left alone.
const MAX_FAILURES: u32 = 5;
/// The wait after one.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for the head of an answer, however much of it trickles in.
const HEAD: Duration = Duration::from_secs(20);

/// Where each content stands in a tree.
type Places = HashMap<ContentId, TreePath>;

/// The same for all seeds of a run, found out when the first file is asked for; before there is a way to, none is.
pub type Paths = Arc<OnceLock<LazyLock<Places, Box<dyn FnOnce() -> Places + Send + Sync>>>>;

/// A plain HTTP server of a tree.
pub struct WebSeed {
    /// Without a slash at its end.
    url: String,
    client: Client,
    room: Semaphore,
    /// Where each content stands in the tree.
    paths: Paths,
    /// A static export was found there.
    exports: OnceLock<bool>,
    standing: Mutex<Standing>,
    /// Told of every byte of a body.
    pulse: Pulse,
    /// The last file that was taken whole.
    whole: tokio::sync::Mutex<Option<(ContentId, Arc<Vec<u8>>)>>,
}

#[derive(Default)]
struct Standing {
    /// Files that stand there with other content.
    stale: HashSet<ContentId>,
    /// Some file was right.
    was_right: bool,
    /// It answers requests for ranges with the whole file.
    no_ranges: bool,
    /// Failures since the last answer.
    failures: u32,
    /// Requests at once beyond the first.
    more: usize,
}

/// What came for a request.
enum Came {
    Bytes(Vec<u8>),
    /// The server sends whole files only.
    Whole(Response),
    Nothing,
}

impl fmt::Debug for WebSeed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("WebSeed").field("url", &self.url).finish_non_exhaustive()
    }
}

impl WebSeed {
    /// The tree stands at `url`, its contents at `paths` below it.
    pub fn new(client: Client, url: &str, paths: Paths, pulse: Pulse) -> Self {
        Self {
            url: url.trim_end_matches('/').to_owned(),
            client,
            room: Semaphore::new(1),
            paths,
            exports: OnceLock::new(),
            standing: Mutex::default(),
            pulse,
            whole: tokio::sync::Mutex::new(None),
        }
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The bundle of its static export, not verified; none where there is no export.
    ///
    /// # Errors
    /// The server does not answer, or with nonsense.
    pub async fn bundle(&self) -> Result<Option<Vec<u8>>, Error> {
        let bytes = self.small_file(&format!("{EXPORT}/bundle"), MAX_BUNDLE as u64).await?;
        let _ = self.exports.set(bytes.is_some());
        Ok(bytes)
    }

    /// Pages of its static export, not verified.
    ///
    /// # Errors
    /// As [`WebSeed::bundle`].
    pub async fn pages(&self, pages: &[Cid]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        if self.exports.get() != Some(&true) {
            return Ok(vec![None; pages.len()]);
        }
        let ask = |page: &Cid| {
            let name = format!("{EXPORT}/pages/{page}");
            async move { self.small_file(&name, MAX_PAGE).await }
        };
        let asks: Vec<_> = pages.iter().map(ask).collect();
        collect(asks).await
    }

    /// The outboard of a large file, from the static export.
    ///
    /// # Errors
    /// As [`WebSeed::bundle`].
    pub async fn outboard(&self, id: &ContentId, size: u64) -> Result<Option<Outboard>, Error> {
        if self.exports.get() != Some(&true) || size > MAX_PROVABLE {
            return Ok(None);
        }
        let length = parents(size, WIDE_GROUP).saturating_mul(PAIR as u64);
        let bytes = self.small_file(&format!("{EXPORT}/proofs/{}", file_name(id)), length).await?;
        Ok(bytes.and_then(|bytes| Outboard::decode(id, size, &bytes)))
    }

    /// Whole files, verified; none where one is missing or another.
    ///
    /// # Errors
    /// As [`WebSeed::bundle`].
    pub async fn batch(&self, files: &[(ContentId, u64)]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let asks: Vec<_> = files.iter().map(|(id, size)| self.file(*id, *size)).collect();
        self.patient(collect(asks).await)
    }

    /// A range of a large file with its proof; none where the file is missing or another. Without an outboard files of up to
    /// 64 MiB are taken whole.
    ///
    /// # Errors
    /// As [`WebSeed::bundle`].
    pub async fn range(
        &self,
        id: ContentId,
        size: u64,
        range: Range<u64>,
        outboard: Option<Arc<Outboard>>,
    ) -> Result<Option<Vec<u8>>, Error> {
        self.patient(self.any_range(id, size, range, outboard).await)
    }

    async fn any_range(
        &self,
        id: ContentId,
        size: u64,
        range: Range<u64>,
        outboard: Option<Arc<Outboard>>,
    ) -> Result<Option<Vec<u8>>, Error> {
        if self.is_stale(&id) || !self.knows(&id) {
            return Ok(None);
        }
        let ranges = !self.standing().no_ranges;
        let Some(outboard) = outboard.filter(|_| ranges) else { return self.range_of_whole(id, size, range).await };
        let wide = proof::widened(&range, size);
        match self.get(&id, wide.clone(), size).await? {
            Came::Bytes(data) => {
                let work = move || proof::encode_bytes((wide.start, &data), &id, &outboard, range).ok();
                let encoded = tokio::task::spawn_blocking(work).await.unwrap_or_default();
                self.learn(id, encoded.is_some());
                Ok(encoded)
            }
            Came::Whole(_) => {
                self.standing().no_ranges = true;
                self.range_of_whole(id, size, range).await
            }
            Came::Nothing => self.lacks(id),
        }
    }

    /// A range of a file that is taken whole once, and kept until another is.
    async fn range_of_whole(&self, id: ContentId, size: u64, range: Range<u64>) -> Result<Option<Vec<u8>>, Error> {
        if size > MAX_WHOLE {
            return Ok(None);
        }
        let mut kept = self.whole.lock().await;
        let known = kept.as_ref().filter(|(known, _)| *known == id).map(|(_, bytes)| Arc::clone(bytes));
        let bytes = match known {
            Some(bytes) => bytes,
            None => {
                let Some(bytes) = self.file(id, size).await? else { return Ok(None) };
                let bytes = Arc::new(bytes);
                *kept = Some((id, Arc::clone(&bytes)));
                bytes
            }
        };
        drop(kept);
        let work = move || {
            let outboard = proof::outboard_of(&id, &bytes)?;
            proof::encode_bytes((0, &bytes), &id, &outboard, range).ok()
        };
        Ok(tokio::task::spawn_blocking(work).await.unwrap_or_default())
    }

    /// A whole file, verified.
    async fn file(&self, id: ContentId, size: u64) -> Result<Option<Vec<u8>>, Error> {
        if self.is_stale(&id) || !self.knows(&id) {
            return Ok(None);
        }
        let bytes = match self.get(&id, 0..size, size).await? {
            Came::Bytes(bytes) => bytes,
            Came::Whole(answer) => {
                let bytes = read(answer, size, &self.pulse).await?.unwrap_or_default();
                self.widen();
                bytes
            }
            Came::Nothing => return self.lacks(id),
        };
        let work = move || proof::verify_small(&id, &bytes).then_some(bytes);
        let verified = tokio::task::spawn_blocking(work).await.unwrap_or_default();
        self.learn(id, verified.is_some());
        Ok(verified)
    }

    /// Asks for a range of a file of the tree.
    async fn get(&self, id: &ContentId, range: Range<u64>, size: u64) -> Result<Came, Error> {
        let Some(path) = self.paths.get().and_then(|paths| paths.get(id)) else { return Ok(Came::Nothing) };
        if range.is_empty() {
            return Ok(Came::Bytes(Vec::new()));
        }
        let _room = self.room.acquire().await.map_err(|_| Error::Closed)?;
        let url = format!("{}/{}", self.url, quoted(path.as_bytes()));
        let mut request = self.client.get(url);
        if range != (0..size) {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        let answer = send(request).await?;
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        match judge(answer.status().as_u16(), header(CONTENT_RANGE), header(RETRY_AFTER), &range, size) {
            Body::Part => {
                let came = read(answer, range.end - range.start, &self.pulse).await?;
                self.widen();
                Ok(came.map_or(Came::Nothing, Came::Bytes))
            }
            Body::Whole => Ok(Came::Whole(answer)),
            Body::Missing => Ok(Came::Nothing),
            Body::Busy(retry_after) => Err(Error::Busy { retry_after, peers: Vec::new() }),
            Body::Nonsense(text) => Err(refused(text)),
        }
    }

    /// Makes room for one more request at a time.
    fn widen(&self) {
        let mut standing = self.standing();
        if standing.more + 1 < AT_ONCE {
            standing.more += 1;
            self.room.add_permits(1);
        }
    }

    /// A file of the static export, of at most `max` bytes.
    async fn small_file(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>, Error> {
        let _room = self.room.acquire().await.map_err(|_| Error::Closed)?;
        let answer = send(self.client.get(format!("{}/{name}", self.url))).await?;
        let retry = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        match judge(answer.status().as_u16(), None, retry, &(0..max), max) {
            Body::Whole => {
                // A body that trickles in is given up as well: 64 KiB a second is slow enough.
                let patience = HEAD + Duration::from_secs(max >> 16);
                let came =
                    timeout(patience, read_up_to(answer, max, &self.pulse)).await.unwrap_or(Err(Error::Timeout))?;
                self.widen();
                Ok(came)
            }
            Body::Busy(retry_after) => Err(Error::Busy { retry_after, peers: Vec::new() }),
            Body::Missing | Body::Part => Ok(None),
            Body::Nonsense(text) => Err(refused(text)),
        }
    }

    /// A server that stumbles is asked again a little later, and given up when it does nothing else.
    fn patient<T>(&self, came: Result<T, Error>) -> Result<T, Error> {
        let mut standing = self.standing();
        standing.failures = if came.is_err() { standing.failures.saturating_add(1) } else { 0 };
        match came {
            Err(Error::Refused { .. }) if standing.failures < MAX_FAILURES => {
                Err(Error::Busy { retry_after: PAUSE, peers: Vec::new() })
            }
            other => other,
        }
    }

    /// A file that is not there is not asked for again.
    fn lacks<T>(&self, id: ContentId) -> Result<Option<T>, Error> {
        self.learn(id, false);
        Ok(None)
    }

    /// Whether it is known where a content should stand.
    fn knows(&self, id: &ContentId) -> bool {
        self.paths.get().is_some_and(|paths| paths.contains_key(id))
    }

    fn is_stale(&self, id: &ContentId) -> bool {
        let standing = self.standing();
        standing.stale.contains(id) || (!standing.was_right && standing.stale.len() >= MAX_STALE)
    }

    /// A file that is another one is stale there; that says nothing about the rest.
    fn learn(&self, id: ContentId, is_right: bool) {
        let mut standing = self.standing();
        if is_right {
            standing.was_right = true;
        } else if standing.stale.insert(id) {
            tracing::info!(url = self.url, content = %id, "missing or another at a web seed");
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The head of an answer. Bodies are taken as they are: what a server compresses by itself is not the file.
async fn send(request: RequestBuilder) -> Result<Response, Error> {
    match timeout(HEAD, request.header(ACCEPT_ENCODING, "identity").send()).await {
        Ok(answer) => answer.map_err(|error| failed(&error)),
        Err(_) => Err(Error::Timeout),
    }
}

/// All answers in order, a few at once.
async fn collect<T>(asks: Vec<impl Future<Output = Result<T, Error>>>) -> Result<Vec<T>, Error> {
    let answers: Vec<Result<T, Error>> = stream::iter(asks).buffered(AT_ONCE).collect().await;
    answers.into_iter().collect()
}

/// A body of exactly `length` bytes; none if it has more or fewer.
async fn read(answer: Response, length: u64, pulse: &Pulse) -> Result<Option<Vec<u8>>, Error> {
    Ok(read_up_to(answer, length, pulse).await?.filter(|bytes| bytes.len() as u64 == length))
}

/// A body; none if it has more than `max` bytes.
async fn read_up_to(answer: Response, max: u64, pulse: &Pulse) -> Result<Option<Vec<u8>>, Error> {
    let mut bytes = Vec::new();
    let mut parts = answer.bytes_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| failed(&error))?;
        pulse.beat(part.len());
        bytes.extend_from_slice(&part);
        if bytes.len() as u64 > max {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}

fn failed(error: &reqwest::Error) -> Error {
    if error.is_timeout() { Error::Timeout } else { refused(why(error)) }
}

fn refused(text: String) -> Error {
    Error::Refused { code: Code::INTERNAL, text }
}
