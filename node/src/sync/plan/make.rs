//! From what the module has and what stands here to the changes between them.

use std::collections::{HashMap, HashSet};
use std::mem::discriminant;

use super::delete::{Doom, Guard};
use super::links::{Lead, LinkGroup, Links};
use super::order::{in_rsyncs_order, prune};
use super::{BasisKind, Change, Local, LocalKind, LocalTree, Origin, PassedOver, Plan, Remote, Rules, Step, leads_out};
use crate::manifest::ContentId;
use crate::manifest::entry::Node;
use crate::manifest::filter::{Side, Subject};
use crate::manifest::path::TreePath;

/// What is as it should be.
const KEEP: Change = Change::Keep { linked: false };

/// Makes the plan that turns `local` into what `remote` says.
///
/// `remote` holds parents before what is in them. `bases` are further directories to take files from. `guard` says what
/// deletion must spare.
pub fn make(
    remote: &[Remote],
    local: &LocalTree,
    bases: &[(BasisKind, &LocalTree)],
    rules: &Rules,
    guard: &Guard<'_>,
) -> Plan {
    let mut remote: Vec<&Remote> = remote.iter().collect();
    remote.sort_by(|a, b| in_rsyncs_order(a, b));
    if rules.prune_empty {
        let top = guard.filter.top();
        let protects = |dir: &TreePath| {
            let subject = Subject { path: dir.as_bytes(), below: 0, is_dir: true };
            guard.filter.verdict(&top, Side::Local, subject, false) == Some(false)
        };
        prune(&mut remote, protects);
    }
    let mut planner = Planner::new(&remote, local, bases, rules);
    planner.links = Links::choose(remote.iter().filter_map(|item| planner.linked_name(item)));
    for item in &remote {
        planner.visit(item);
    }
    let rest = std::mem::take(&mut planner.links).rest();
    planner.plan.steps.extend(rest);
    if rules.delete || rules.force {
        let listed = remote.iter().filter(|item| item.listed && rules.delete).map(|item| &item.path).collect();
        let dirs = remote.iter().filter(|item| item.entry.is_dir()).map(|item| &item.path).collect();
        let backup = rules.backup.as_ref();
        let steps = planner.plan.steps.iter();
        let giving_way = steps.filter(|step| takes_a_directorys_place(step)).map(|step| &step.path).collect();
        let compared = rules.delete && guard.root_listed;
        let doom = Doom { local, wanted: &planner.wanted, dirs, giving_way, listed, compared, guard, backup };
        let (steps, kept) = doom.steps();
        planner.plan.steps.extend(steps);
        planner.plan.kept_dirs = kept;
    }
    let mut plan = planner.plan;
    drop_blocked(&mut plan, local);
    plan.settle_moves();
    plan
}

fn takes_a_directorys_place(step: &Step) -> bool {
    let places = matches!(step.change, Change::File { .. } | Change::Symlink(_) | Change::Link { .. });
    places && step.replaces.as_ref().is_some_and(|old| old.kind == LocalKind::Dir)
}

/// Files cannot take the place of directories that are not empty: those steps go, and are remembered.
fn drop_blocked(plan: &mut Plan, local: &LocalTree) {
    let doomed = plan.steps.iter().filter(|step| step.change == Change::Delete);
    let going: HashSet<TreePath> = doomed.map(|step| step.path.clone()).collect();
    let (kept, blocked) = (&mut plan.kept_dirs, &mut plan.blocked);
    plan.steps.retain(|step| {
        let mut below = local.range(&step.path..).skip(1).map(|(path, _)| path);
        let mut below = std::iter::from_fn(|| below.next().filter(|path| path.relative_to(&step.path).is_some()));
        let is_blocked = takes_a_directorys_place(step) && below.any(|path| !going.contains(path));
        if is_blocked {
            kept.push(step.path.clone());
            blocked.push(step.path.clone());
        }
        !is_blocked
    });
    plan.steps.shrink_to_fit();
}

/// True for a file of this content.
fn is_file_of(there: &Local, size: u64, wanted: ContentId) -> bool {
    matches!(&there.kind, LocalKind::File { size: known, id, .. } if *known == size && *id == Some(wanted))
}

/// What the entry would be here, as far as its kind goes.
fn kind_of(item: &Remote) -> LocalKind {
    match &item.entry.node {
        Node::Dir(_) => LocalKind::Dir,
        Node::Symlink { target } => LocalKind::Symlink(target.clone()),
        Node::File { size, .. } => LocalKind::File { size: *size, id: None, inode: 0 },
    }
}

/// Where the contents of the directories of `--reuse` are.
fn elsewhere<'a>(bases: &'a [(BasisKind, &'a LocalTree)]) -> HashMap<ContentId, (usize, &'a TreePath)> {
    let mut found = HashMap::new();
    for (number, (_, tree)) in bases.iter().enumerate().filter(|(_, (kind, _))| *kind == BasisKind::Reuse) {
        for (path, entry) in *tree {
            if let LocalKind::File { id: Some(id), .. } = &entry.kind {
                found.entry(*id).or_insert((number, path));
            }
        }
    }
    found
}

/// How much a file of a basis directory is like the wanted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    /// It has the path.
    Path,
    /// And the content.
    Content,
    /// And the attributes.
    Whole,
}

/// A file of one of the directories of `--link-dest` and its like.
struct Basis<'a> {
    number: usize,
    kind: BasisKind,
    local: &'a Local,
    likeness: Likeness,
}

impl Basis<'_> {
    /// True if a file that is right already is to become a name of the one in the basis directory.
    fn replaces(&self, here: u64) -> bool {
        let other = matches!(self.local.kind, LocalKind::File { inode, .. } if inode != here);
        other && self.kind == BasisKind::Link && self.likeness == Likeness::Whole
    }

    /// True if nothing is to be made beside it.
    fn is_compared(&self) -> bool {
        self.kind == BasisKind::Compare && self.likeness == Likeness::Whole
    }
}

struct Planner<'a> {
    local: &'a LocalTree,
    bases: &'a [(BasisKind, &'a LocalTree)],
    rules: &'a Rules,
    /// Remote paths: what is not among them goes away when deleting.
    wanted: HashSet<&'a TreePath>,
    /// Where a content is in the destination now, best candidates first.
    by_id: HashMap<ContentId, Vec<&'a TreePath>>,
    /// Where a content is in the directories of `--reuse`.
    elsewhere: HashMap<ContentId, (usize, &'a TreePath)>,
    /// Names per inode, to break links that the module does not have.
    names: HashMap<u64, u32>,
    links: Links<'a>,
    used: HashSet<&'a TreePath>,
    /// A directory that `--existing` leaves out, with all below it.
    skipped: Option<&'a TreePath>,
    /// Entries looked at.
    rank: u64,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(
        remote: &[&'a Remote],
        local: &'a LocalTree,
        bases: &'a [(BasisKind, &'a LocalTree)],
        rules: &'a Rules,
    ) -> Self {
        let wanted: HashSet<&TreePath> = remote.iter().map(|item| &item.path).collect();
        let mut by_id: HashMap<ContentId, Vec<&TreePath>> = HashMap::new();
        let mut names: HashMap<u64, u32> = HashMap::new();
        let mut plan = Plan::default();
        for (path, entry) in local {
            plan.before.0 += 1;
            if let LocalKind::File { size, id, inode } = &entry.kind {
                plan.before.1 = plan.before.1.saturating_add(*size);
                *names.entry(*inode).or_default() += 1;
                if let Some(id) = id {
                    by_id.entry(*id).or_default().push(path);
                }
            }
        }
        // Files that will go away come first: those can be moved rather than copied.
        for paths in by_id.values_mut() {
            paths.sort_by_key(|path| wanted.contains(*path));
        }
        let (links, used, elsewhere) = (Links::default(), HashSet::new(), elsewhere(bases));
        Self { local, bases, rules, wanted, by_id, elsewhere, names, links, used, skipped: None, rank: 0, plan }
    }

    fn visit(&mut self, item: &'a Remote) {
        self.rank += 1;
        self.count(item);
        if self.skipped.is_some_and(|dir| item.path.relative_to(dir).is_some()) {
            return;
        }
        let here = self.local.get(&item.path);
        if here.is_none() && self.rules.existing {
            self.skipped = item.entry.is_dir().then_some(&item.path).or(self.skipped);
            return self.pass_over(item, PassedOver::New { is_dir: item.entry.is_dir() });
        }
        let both_dirs = item.entry.is_dir() && here.is_some_and(|old| old.kind == LocalKind::Dir);
        if here.is_some() && self.rules.ignore_existing && !both_dirs {
            if item.entry.is_dir() {
                // What is below it has no place.
                self.skipped = Some(&item.path);
                self.plan.blocked.push(item.path.clone());
            }
            return self.pass_over(item, PassedOver::Exists);
        }
        match &item.entry.node {
            Node::Dir(_) => self.directory(item),
            Node::File { size, id, link } => self.file(item, *size, *id, *link),
            Node::Symlink { target } if self.rules.links => self.symlink(item, target),
            Node::Symlink { .. } => self.plan.skipped.push(item.path.clone()),
        }
    }

    fn pass_over(&mut self, item: &Remote, why: PassedOver) {
        self.plan.passed_over.push((item.path.clone(), why));
    }

    fn count(&mut self, item: &Remote) {
        let plan = &mut self.plan;
        match &item.entry.node {
            Node::Dir(_) => plan.others.0 += 1,
            Node::File { size, .. } => {
                plan.files += 1;
                plan.bytes = plan.bytes.saturating_add(*size);
            }
            Node::Symlink { target } => {
                plan.others.1 += 1;
                plan.bytes = plan.bytes.saturating_add(target.len() as u64);
            }
        }
    }

    fn directory(&mut self, item: &'a Remote) {
        let here = self.local.get(&item.path);
        let mtime = self.rules.keeps_time(true, false).then_some(item.entry.mtime);
        self.plan.dirs.insert(item.path.clone(), (self.rules.mode(&item.entry, here), mtime));
        match here {
            Some(old) if old.kind == LocalKind::Dir => {
                let change = if self.differs(old, item) { Change::SetDir } else { KEEP };
                self.push(item, change);
            }
            _ => self.push_beside(item, Change::MakeDir, |there| there.kind == LocalKind::Dir),
        }
    }

    /// Something new, told against what is most like it in the directories of bases.
    fn push_beside(&mut self, item: &'a Remote, change: Change, is_like: impl Fn(&Local) -> bool) {
        let bases = self.bases.iter().filter(|(kind, _)| *kind != BasisKind::Reuse);
        let there = bases.filter_map(|(_, tree)| tree.get(&item.path));
        let is_kind = |there: &&Local| discriminant(&there.kind) == discriminant(&kind_of(item));
        let best = there.filter(is_kind).rev().max_by_key(|there| (is_like(there), !self.differs(there, item)));
        let stands =
            self.local.get(&item.path).is_some_and(|old| discriminant(&old.kind) == discriminant(&kind_of(item)));
        let beside = best.filter(|_| !stands).map(|there| Box::new(there.clone()));
        self.push(item, change);
        if let Some(step) = self.plan.steps.last_mut() {
            step.beside = beside;
            if step.change == Change::MakeDir {
                // Told of even where -O keeps it from being set.
                step.mtime = Some(item.entry.mtime);
            }
        }
    }

    fn symlink(&mut self, item: &'a Remote, target: &[u8]) {
        if self.rules.safe_links && leads_out(&item.path, target) {
            self.plan.unsafe_links.push((item.path.clone(), target.to_vec()));
            return;
        }
        let link = LocalKind::Symlink(target.to_vec());
        let same = |there: &Local| there.kind == link && !self.differs(there, item);
        let compared = |(kind, tree): &(BasisKind, &LocalTree)| {
            *kind == BasisKind::Compare && tree.get(&item.path).is_some_and(same)
        };
        match self.local.get(&item.path) {
            None if self.bases.iter().any(compared) => {}
            Some(old) if old.kind == link => {
                let change = if self.differs(old, item) { Change::Touch } else { KEEP };
                self.push(item, change);
            }
            _ => self.push_beside(item, Change::Symlink(target.to_vec()), |there| there.kind == link),
        }
    }

    fn file(&mut self, item: &'a Remote, size: u64, id: ContentId, link: u32) {
        let here = self.local.get(&item.path);
        let inode_here = here.and_then(|old| self.same_content(old, size, id));
        let group = (id, item.entry.mode, item.entry.mtime, link);
        let lead = self.links.lead(&group, &item.path);
        if let Some(lead) = lead.filter(|lead| lead.is_planned) {
            return self.link(item, (size, id), inode_here, lead);
        }
        if let Some(why) = self.leaves_alone(item, size) {
            return self.pass_over(item, why);
        }
        if let Some(lead) = lead {
            return self.link(item, (size, id), inode_here, lead);
        }
        let basis = self.basis(item, size, id);
        if inode_here.is_none() && basis.as_ref().is_some_and(Basis::is_compared) {
            self.plan.reused = self.plan.reused.saturating_add(size);
            return;
        }
        let relinks = |inode: &u64| !basis.as_ref().is_some_and(|basis| basis.replaces(*inode));
        let inode = match inode_here.filter(relinks) {
            Some(inode) => self.stays(item, (size, id), inode, link != 0),
            None => {
                self.content(item, size, id, basis.as_ref());
                None
            }
        };
        let follow = self.links.planned(&group, inode, self.plan.steps.last());
        self.plan.steps.extend(follow);
    }

    /// Why flags leave a file alone, whatever else is known of it.
    fn leaves_alone(&self, item: &Remote, size: u64) -> Option<PassedOver> {
        let old = self.local.get(&item.path).filter(|old| matches!(old.kind, LocalKind::File { .. }));
        let is_newer = old.is_some_and(|old| self.rules.is_newer_here(old.mtime, item.entry.mtime));
        self.rules.leaves_out(size).or_else(|| is_newer.then_some(PassedOver::Newer))
    }

    /// A name of a file with several, and whether it stands here as a file: none for what has no part in hard links.
    fn linked_name(&self, item: &'a Remote) -> Option<(LinkGroup, &'a TreePath, bool)> {
        let Node::File { size, id, link } = item.entry.node else { return None };
        let here = self.local.get(&item.path);
        let is_out = here.map_or(self.rules.existing, |_| self.rules.ignore_existing);
        if link == 0 || !self.rules.hard_links || is_out || self.leaves_alone(item, size).is_some() {
            return None;
        }
        let basis = self.basis(item, size, id);
        let is_here = here.is_some_and(|old| self.same_content(old, size, id).is_some());
        if !is_here && basis.as_ref().is_some_and(Basis::is_compared) {
            return None;
        }
        let stands = basis.is_some() || here.is_some_and(|old| matches!(old.kind, LocalKind::File { .. }));
        Some(((id, item.entry.mode, item.entry.mtime, link), &item.path, stands))
    }

    /// A further name of a file.
    fn link(&mut self, item: &'a Remote, (size, id): (u64, ContentId), inode_here: Option<u64>, lead: Lead<'a>) {
        self.plan.reused = self.plan.reused.saturating_add(size);
        if lead.inode.is_some() && lead.inode == inode_here {
            return self.push(item, Change::Keep { linked: true });
        }
        let link = Change::Link { leader: lead.path.clone(), size };
        self.push_beside(item, link, |there| is_file_of(there, size, id));
        let step = self.plan.steps.pop().and_then(|step| self.links.hold(step, lead));
        self.plan.steps.extend(step);
    }

    /// A file whose content is there; gives its inode, unless the name gets a file of its own.
    fn stays(&mut self, item: &'a Remote, (size, id): (u64, ContentId), inode: u64, has_names: bool) -> Option<u64> {
        self.plan.reused = self.plan.reused.saturating_add(size);
        let shared = self.names.get(&inode).is_some_and(|names| *names > 1);
        let differs = self.local.get(&item.path).is_some_and(|old| self.differs(old, item));
        if shared && (!has_names || differs) && self.rules.hard_links {
            // The module does not have this link (or other attributes for it).
            let origin = Origin::Copy(item.path.clone());
            self.push(item, Change::File { id, size, origin, number: item.number });
            return None;
        }
        self.push(item, if differs { Change::Touch } else { KEEP });
        Some(inode)
    }

    /// The inode of a local file whose content counts as that of the module.
    fn same_content(&self, old: &Local, size: u64, id: ContentId) -> Option<u64> {
        match &old.kind {
            LocalKind::File { size: here, inode, .. } if self.rules.size_only && *here == size => Some(*inode),
            LocalKind::File { id: Some(here), inode, .. } if *here == id => Some(*inode),
            _ => None,
        }
    }

    /// A file whose content is not at its path yet.
    fn content(&mut self, item: &'a Remote, size: u64, id: ContentId, basis: Option<&Basis<'a>>) {
        let origin = match basis.filter(|basis| basis.likeness >= Likeness::Content) {
            Some(basis) => {
                let link = basis.kind == BasisKind::Link && basis.likeness == Likeness::Whole;
                Origin::Basis { number: basis.number, path: item.path.clone(), link }
            }
            None => self.origin(item, id),
        };
        if origin != Origin::Fetch {
            self.plan.reused = self.plan.reused.saturating_add(size);
        }
        self.push(item, Change::File { id, size, origin, number: item.number });
        if let (Some(step), Some(basis)) = (self.plan.steps.last_mut(), basis) {
            // Without -p what is brought takes after what it is like; what is copied does not.
            let like = Some(basis.local).filter(|_| basis.likeness == Likeness::Path);
            step.mode = self.rules.mode(&item.entry, step.replaces.as_deref().or(like));
            step.beside = Some(Box::new(basis.local.clone()));
        }
    }

    /// The directory of bases whose file at this path is most like the wanted one, the first of several (rsync's
    /// `try_dests_reg`). Where a file stands here already, only what `--link-dest` has as it is wanted takes its place.
    fn basis(&self, item: &Remote, size: u64, id: ContentId) -> Option<Basis<'a>> {
        let stands = self.local.get(&item.path).is_some_and(|old| matches!(old.kind, LocalKind::File { .. }));
        let bases = self.bases.iter().enumerate().filter(|(_, (kind, _))| *kind != BasisKind::Reuse);
        let found = bases.filter_map(|(number, (kind, tree))| {
            let local = tree.get(&item.path).filter(|there| matches!(there.kind, LocalKind::File { .. }))?;
            let likeness = match (self.same_content(local, size, id).is_some(), self.differs(local, item)) {
                (false, _) => Likeness::Path,
                (true, true) => Likeness::Content,
                (true, false) => Likeness::Whole,
            };
            Some(Basis { number, kind: *kind, local, likeness })
        });
        let best = found.max_by_key(|basis| (basis.likeness, std::cmp::Reverse(basis.number)));
        best.filter(|basis| !stands || (basis.kind == BasisKind::Link && basis.likeness == Likeness::Whole))
    }

    fn origin(&mut self, item: &Remote, id: ContentId) -> Origin {
        let Some(paths) = self.by_id.get(&id) else {
            let there = self.elsewhere.get(&id);
            return there.map_or(Origin::Fetch, |(number, path)| Origin::Basis {
                number: *number,
                path: (*path).clone(),
                link: false,
            });
        };
        let movable = paths.iter().copied().find(|path| {
            let mode = self.rules.mode(&item.entry, self.local.get(&item.path));
            let same = self.local.get(*path).is_some_and(|old| old.mode == mode && !self.differs(old, item));
            // A backup keeps the old name's file: then there is nothing to move.
            self.rules.delete
                && self.rules.backup.is_none()
                && same
                && !self.wanted.contains(path)
                && !self.used.contains(path)
        });
        if let Some(from) = movable {
            self.used.insert(from);
            return Origin::Move(from.clone());
        }
        paths.first().map_or(Origin::Fetch, |from| Origin::Copy((*from).clone()))
    }

    /// True if attributes that are kept differ.
    fn differs(&self, old: &Local, new: &Remote) -> bool {
        let (is_dir, is_link) = (new.entry.is_dir(), matches!(old.kind, LocalKind::Symlink(_)));
        let mode = !is_link && self.rules.mode(&new.entry, Some(old)) != old.mode;
        mode || (self.rules.keeps_time(is_dir, is_link) && self.rules.times_differ(old.mtime, new.entry.mtime))
    }

    fn push(&mut self, item: &Remote, change: Change) {
        if change.is_keep() && !self.rules.tell_unchanged {
            return;
        }
        let replaces = self.local.get(&item.path).cloned();
        let mode = self.rules.mode(&item.entry, replaces.as_ref());
        let is_link = matches!(item.entry.node, Node::Symlink { .. });
        let mtime = self.rules.keeps_time(item.entry.is_dir(), is_link).then_some(item.entry.mtime);
        let (path, rank, replaces) = (item.path.clone(), self.rank, replaces.map(Box::new));
        self.plan.steps.push(Step { path, change, mode, mtime, rank, replaces, beside: None });
    }
}
