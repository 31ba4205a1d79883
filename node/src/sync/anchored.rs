//! The anchors of large old files, made in the background: whoever asks waits a little, and does without them if they are not
//! ready by then.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rayon::prelude::*;

use crate::delta::anchors::Anchors;
use crate::manifest::ContentId;

/// Old files whose anchors are kept in memory, some MiB each.
const KEPT: usize = 2;
/// How long one request waits: well below the silence that a client bears.
const PATIENCE: Duration = Duration::from_secs(2);
/// Read at once.
const PART: u64 = 4 << 20;

/// Anchors on their way.
#[derive(Default)]
struct Making {
    made: Mutex<Option<Arc<Anchors>>>,
    is_made: Condvar,
}

/// The anchors of the old files last asked for.
#[derive(Default)]
pub struct Anchored {
    files: Mutex<VecDeque<(ContentId, Arc<Making>)>>,
}

impl Anchored {
    /// The anchors of the file `id` of `size` bytes, unless they take too long this time. `open` gives the file.
    pub fn get(&self, id: &ContentId, size: u64, open: impl FnOnce() -> Option<File>) -> Option<Arc<Anchors>> {
        let making = self.making(id, size, open)?;
        let made = making.made.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = making.is_made.wait_timeout_while(made, PATIENCE, |made| made.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    fn making(&self, id: &ContentId, size: u64, open: impl FnOnce() -> Option<File>) -> Option<Arc<Making>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, making)) = files.iter().find(|(known, _)| known == id) {
            return Some(Arc::clone(making));
        }
        let (file, making) = (open()?, Arc::<Making>::default());
        files.push_front((*id, Arc::clone(&making)));
        files.truncate(KEPT);
        let to = Arc::clone(&making);
        rayon::spawn(move || {
            let made = read(&file, size).unwrap_or_else(|| Anchors::new(size));
            *to.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(made));
            to.is_made.notify_all();
        });
        Some(making)
    }
}

/// Reads a file for its anchors, on all processors. What is made with them is verified elsewhere.
fn read(file: &File, size: u64) -> Option<Anchors> {
    let part = |number: u64| {
        let start = number * PART;
        let mut bytes = vec![0; usize::try_from(PART.min(size - start)).ok()?];
        file.read_exact_at(&mut bytes, start).ok()?;
        let mut anchors = Anchors::new(size);
        anchors.add(start, &bytes);
        Some(anchors)
    };
    let join = |mut all: Anchors, other: Anchors| {
        all.join(other);
        Some(all)
    };
    (0..size.div_ceil(PART)).into_par_iter().map(part).try_reduce(|| Anchors::new(size), join)
}
