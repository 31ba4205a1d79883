//! A whole tree brought from a plain web server by its listings: for those who publish what an origin does not. Files whose size
//! and time are as here are not brought again; symlinks, modes and times of directories cannot be told over HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use reqwest::header::{CONTENT_LENGTH, IF_MODIFIED_SINCE, LAST_MODIFIED};
use reqwest::{Client, Response, StatusCode, Url};
use thiserror::Error;
use tokio::io::AsyncWriteExt;

use super::client::why;
use super::listing;
use crate::manifest::path::TreePath;
use crate::reference::quoted;
use crate::store::files::{Dir, FileError, Kind};
use crate::store::locate::locate;

/// Requests at once.
const AT_ONCE: usize = 6;
/// Longest listing, bytes.
const MAX_LISTING: usize = 16 << 20;
/// Most entries of a tree.
const MAX_ENTRIES: usize = 500_000;
/// Deepest directory: a link in a tree may lead in circles.
const MAX_DEPTH: usize = 64;
/// A quarter of the entries, and more than this many, are not deleted without a word from the user.
const SHRINK_ENTRIES: usize = 100;
/// The directory of our own at the root of the tree.
const OWN: &str = ".murmir";
/// Dates of HTTP (RFC 9110).
const DATE: &str = "%a, %d %b %Y %H:%M:%S GMT";
/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;

/// Why a tree was not brought.
#[derive(Debug, Error)]
pub enum CopyError {
    /// No answer that makes sense.
    #[error("{url}: {what}")]
    Web {
        /// The address.
        url: String,
        /// One line.
        what: String,
    },
    /// A page, but no listing.
    #[error("{url} is no listing of a directory (those of nginx, Apache, lighttpd and python's http.server are read)")]
    NoListing {
        /// The address.
        url: String,
    },
    /// Too large, or a circle.
    #[error("{url}: over {MAX_ENTRIES} entries or {MAX_DEPTH} levels")]
    TooMuch {
        /// The address.
        url: String,
    },
    /// Much would be deleted.
    #[error("{gone} of {all} entries are not there any more")]
    Shrunk {
        /// To be deleted.
        gone: usize,
        /// All that are here.
        all: usize,
    },
    /// A local file.
    #[error(transparent)]
    File(#[from] FileError),
}

/// What was done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Files of the tree.
    pub files: u64,
    /// Those that were brought.
    pub fetched: u64,
    /// Entries deleted.
    pub deleted: u64,
}

/// A remote tree as its listings tell it: paths, and whether each is a directory.
type Tree = BTreeMap<TreePath, bool>;

/// One run.
struct Run<'a> {
    client: &'a Client,
    /// Ends with a slash.
    base: Url,
    dest: &'a Dir,
    stage: Dir,
    fetched: AtomicU64,
}

/// Makes `dest` what stands at `url`, as far as it is `wanted`. Deletes last, and only if all was brought; more than a quarter of
/// what is here only if it `may_shrink`.
///
/// # Errors
/// [`CopyError`]; what was brought stays, and is not brought again by the next run.
pub async fn copy(
    client: &Client,
    url: &str,
    dest: &Dir,
    wanted: &(dyn Fn(&TreePath, bool) -> bool + Sync),
    may_shrink: bool,
) -> Result<Copied, CopyError> {
    let base = format!("{}/", url.trim_end_matches('/'));
    let base = Url::parse(&base).map_err(|error| CopyError::Web { url: url.to_owned(), what: error.to_string() })?;
    let stage = dest.child_or_make(OWN)?.child_or_make("from")?;
    for (name, _) in stage.entries()? {
        stage.unlink(&name)?;
    }
    let run = Run { client, base, dest, stage, fetched: AtomicU64::new(0) };
    let tree = run.listings(wanted).await?;
    let gone = run.gone(&tree, wanted, may_shrink)?;
    let files: Vec<(usize, &TreePath)> =
        tree.iter().filter(|(_, is_dir)| !**is_dir).map(|(path, _)| path).enumerate().collect();
    for (path, _) in tree.iter().filter(|(_, is_dir)| **is_dir) {
        run.make_dir(path)?;
    }
    let run = &run;
    let times: Vec<(TreePath, i64)> = stream::iter(&files)
        .map(|(number, path)| async move { Ok::<_, CopyError>(((*path).clone(), run.file(*number, path).await?)) })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    for path in gone.iter().rev() {
        remove(dest, path)?;
    }
    run.date(&tree, &times)?;
    let fetched = run.fetched.load(Ordering::Relaxed);
    Ok(Copied { files: files.len() as u64, fetched, deleted: gone.len() as u64 })
}

impl Run<'_> {
    /// All listings, a level at a time.
    async fn listings(&self, wanted: &(dyn Fn(&TreePath, bool) -> bool + Sync)) -> Result<Tree, CopyError> {
        let (mut tree, mut level) = (Tree::new(), vec![TreePath::root()]);
        for _ in 0..MAX_DEPTH {
            let here = std::mem::take(&mut level);
            let asks =
                stream::iter(&here).map(|dir| async move { self.listing(dir).await.map(|listed| (dir, listed)) });
            let mut asks = pin!(asks.buffered(AT_ONCE));
            let mut below = Vec::new();
            while let Some((dir, listed)) = asks.try_next().await? {
                for one in listed {
                    let Ok(path) = dir.join(&one.name) else { return Err(self.too_much(dir)) };
                    if path.as_bytes() == OWN.as_bytes() || !wanted(&path, one.is_dir) {
                        continue;
                    }
                    below.extend(one.is_dir.then(|| path.clone()));
                    tree.insert(path, one.is_dir);
                }
                if tree.len() > MAX_ENTRIES {
                    return Err(self.too_much(&TreePath::root()));
                }
            }
            if below.is_empty() {
                return Ok(tree);
            }
            level = below;
        }
        Err(self.too_much(&TreePath::root()))
    }

    async fn listing(&self, dir: &TreePath) -> Result<Vec<listing::Listed>, CopyError> {
        let url = self.url(dir, true);
        let answer = self.client.get(url.clone()).send().await.map_err(|error| web(&url, why(&error)))?;
        if !answer.status().is_success() {
            return Err(web(&url, answer.status().to_string()));
        }
        let (at, mut body, mut parts) = (answer.url().clone(), Vec::new(), answer.bytes_stream());
        while let Some(part) = parts.next().await {
            body.extend_from_slice(&part.map_err(|error| web(&url, why(&error)))?);
            if body.len() > MAX_LISTING {
                return Err(self.too_much(dir));
            }
        }
        let listed = listing::read(&String::from_utf8_lossy(&body), &at);
        listed.ok_or_else(|| CopyError::NoListing { url: url.to_string() })
    }

    /// Brings a file unless it is here; gives its time.
    async fn file(&self, number: usize, path: &TreePath) -> Result<i64, CopyError> {
        let url = self.url(path, false);
        let here = locate(self.dest, path).and_then(|(dir, name)| dir.stat(&name)).ok();
        let here = here.filter(|stat| stat.kind == Kind::File).map(|stat| stat.stamp);
        let mut request = self.client.get(url.clone());
        if let Some(date) = here.and_then(|stamp| to_date(stamp.mtime)) {
            request = request.header(IF_MODIFIED_SINCE, date);
        }
        let answer = request.send().await.map_err(|error| web(&url, why(&error)))?;
        if let Some(stamp) = here.filter(|_| answer.status() == StatusCode::NOT_MODIFIED) {
            return Ok(stamp.mtime);
        }
        if answer.status() != StatusCode::OK {
            return Err(web(&url, answer.status().to_string()));
        }
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let size: Option<u64> = header(CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let time = header(LAST_MODIFIED).and_then(from_date);
        let same = here.filter(|stamp| Some(stamp.size) == size && Some(stamp.mtime) == time);
        if let Some(stamp) = same {
            return Ok(stamp.mtime);
        }
        self.bring(&number.to_string(), path, &url, answer).await?;
        let (dir, name) = locate(self.dest, path)?;
        if let Some(time) = time {
            dir.set_mtime(&name, time)?;
        }
        self.fetched.fetch_add(1, Ordering::Relaxed);
        Ok(dir.stat(&name)?.stamp.mtime)
    }

    /// Writes a body aside, and gives it its place when it is whole.
    async fn bring(&self, aside: &str, path: &TreePath, url: &Url, answer: Response) -> Result<(), CopyError> {
        let failed = |error| FileError::new("write", &self.stage.path().join(aside), error);
        let mut file = tokio::fs::File::from_std(self.stage.create_new(aside)?);
        let mut parts = answer.bytes_stream();
        while let Some(part) = parts.next().await {
            file.write_all(&part.map_err(|error| web(url, why(&error)))?).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        self.stage.set_mode(aside, 0o644)?;
        let (dir, name) = locate(self.dest, path)?;
        if dir.stat(&name).is_ok_and(|stat| stat.kind == Kind::Dir) {
            remove_all(&dir, name.as_bytes())?;
        }
        Ok(self.stage.rename(aside, &dir, &name)?)
    }

    fn make_dir(&self, path: &TreePath) -> Result<(), CopyError> {
        let (dir, name) = locate(self.dest, path)?;
        match dir.stat(&name) {
            Ok(stat) if stat.kind == Kind::Dir => return Ok(()),
            Ok(_) => dir.unlink(&name)?,
            Err(_) => {}
        }
        dir.make_dir(&name)?;
        Ok(dir.set_mode(&name, 0o755)?)
    }

    /// What is here and wanted, and not there any more; parents before what they hold.
    fn gone(
        &self,
        tree: &Tree,
        wanted: &(dyn Fn(&TreePath, bool) -> bool + Sync),
        may_shrink: bool,
    ) -> Result<BTreeSet<TreePath>, CopyError> {
        let (mut gone, mut all, mut dirs) = (BTreeSet::new(), 0, vec![(TreePath::root(), self.dest.clone())]);
        while let Some((at, dir)) = dirs.pop() {
            for (name, kind) in dir.entries()? {
                let Some(path) = crate::manifest::path::Name::new(&name).ok().and_then(|name| at.join(&name).ok())
                else {
                    continue;
                };
                if path.as_bytes() == OWN.as_bytes() || !wanted(&path, kind == Kind::Dir) {
                    continue;
                }
                all += 1;
                if kind == Kind::Dir {
                    dirs.push((path.clone(), dir.child(&name)?));
                }
                // What has become another kind is replaced where its successor comes.
                if !tree.contains_key(&path) {
                    gone.insert(path);
                }
            }
        }
        if gone.len() > SHRINK_ENTRIES && gone.len() * 4 > all && !may_shrink {
            return Err(CopyError::Shrunk { gone: gone.len(), all });
        }
        Ok(gone)
    }

    /// A directory is as old as the newest file below it: the same tree is the same for everybody who brings it.
    fn date(&self, tree: &Tree, times: &[(TreePath, i64)]) -> Result<(), CopyError> {
        let dirs = tree.iter().filter(|(_, is_dir)| **is_dir).map(|(path, _)| path.clone());
        let mut newest: BTreeMap<TreePath, i64> = dirs.chain([TreePath::root()]).map(|dir| (dir, 0)).collect();
        for (path, time) in times {
            let mut above = path.parent();
            while let Some(dir) = above {
                let of = newest.entry(dir.clone()).or_insert(*time);
                *of = (*of).max(*time);
                above = dir.parent();
            }
        }
        for (path, time) in newest.iter().rev() {
            if path.is_root() {
                self.dest.set_own_mtime(*time)?;
            } else {
                let (dir, name) = locate(self.dest, path)?;
                dir.set_mtime(&name, *time)?;
            }
        }
        Ok(())
    }

    fn url(&self, path: &TreePath, is_dir: bool) -> Url {
        let mut url = self.base.clone();
        let slash = if is_dir && !path.is_root() { "/" } else { "" };
        url.set_path(&format!("{}{}{slash}", self.base.path(), quoted(path.as_bytes())));
        url
    }

    fn too_much(&self, at: &TreePath) -> CopyError {
        CopyError::TooMuch { url: self.url(at, true).to_string() }
    }
}

fn web(url: &Url, what: String) -> CopyError {
    CopyError::Web { url: url.to_string(), what }
}

/// Removes what stands at `path`, with what is in it.
fn remove(root: &Dir, path: &TreePath) -> Result<(), FileError> {
    let (dir, name) = match locate(root, path) {
        // What it was in has become a file.
        Err(error) if error.is_missing() || error.is_other_kind() => return Ok(()),
        found => found?,
    };
    match dir.stat(&name) {
        Ok(stat) if stat.kind == Kind::Dir => remove_all(&dir, name.as_bytes()),
        Ok(_) => dir.unlink(&name),
        Err(error) if error.is_missing() => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove_all(dir: &Dir, name: &[u8]) -> Result<(), FileError> {
    let below = dir.child(name)?;
    for (inner, kind) in below.entries()? {
        if kind == Kind::Dir { remove_all(&below, &inner)? } else { below.unlink(&inner)? }
    }
    dir.remove_dir(name)
}

fn to_date(nanos: i64) -> Option<String> {
    let at = Timestamp::from_second(nanos.div_euclid(SECOND)).ok()?.to_zoned(TimeZone::UTC);
    Some(at.strftime(DATE).to_string())
}

fn from_date(text: &str) -> Option<i64> {
    let at = DateTime::strptime(DATE, text.trim()).ok()?.to_zoned(TimeZone::UTC).ok()?;
    at.timestamp().as_second().checked_mul(SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_there_and_back() {
        let text = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(from_date(text), Some(784_111_777 * SECOND));
        assert_eq!(to_date(784_111_777 * SECOND + 5).as_deref(), Some(text));
        assert_eq!(from_date("yesterday"), None);
    }
}
