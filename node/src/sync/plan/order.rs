//! The order of rsync's file list, and directories that are not worth a place in it.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::Remote;
use crate::manifest::path::TreePath;

/// The order of two entries.
pub(super) fn in_rsyncs_order(a: &Remote, b: &Remote) -> Ordering {
    rsyncs_order((&a.path, a.entry.is_dir()), (&b.path, b.entry.is_dir()))
}

/// In a directory what is no directory comes first; directories sort as if their names ended with a slash.
pub fn rsyncs_order((a, a_is_dir): (&TreePath, bool), (b, b_is_dir): (&TreePath, bool)) -> Ordering {
    let (left, right) = (a.as_bytes(), b.as_bytes());
    let common = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    let start = left[..common].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let is_dir = |is_dir: bool, rest: &[u8]| is_dir || rest.contains(&b'/');
    let (left, right) = (&left[start..], &right[start..]);
    is_dir(a_is_dir, left).cmp(&is_dir(b_is_dir, right)).then_with(|| {
        let name = |rest: &'_ [u8]| -> Vec<u8> { rest.split(|byte| *byte == b'/').next().unwrap_or_default().to_vec() };
        let (mut first, mut second) = (name(left), name(right));
        if is_dir(a_is_dir, left) {
            first.push(b'/');
            second.push(b'/');
        }
        first.cmp(&second).then_with(|| left.len().cmp(&right.len()))
    })
}

/// Leaves out directories without anything but directories below them, unless rules protect one: as in rsync, that stays, and
/// those above it.
pub(super) fn prune(remote: &mut Vec<&Remote>, protects: impl Fn(&TreePath) -> bool) {
    let mut needed: HashSet<TreePath> = HashSet::new();
    for item in remote.iter().filter(|item| !item.entry.is_dir() || protects(&item.path)) {
        let mut above = if item.entry.is_dir() { Some(item.path.clone()) } else { item.path.parent() };
        while let Some(dir) = above {
            above = dir.parent();
            if !needed.insert(dir) {
                break;
            }
        }
    }
    remote.retain(|item| !item.entry.is_dir() || needed.contains(&item.path));
}
