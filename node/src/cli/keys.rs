//! Keys in the user's hand: `keygen`, `rotate`, `sign`. Secrets are read and used in this process, never by the running node.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tracker_less::record::{CheckedBundle, PublisherId, SecretKey};

use super::args::{Rotate, Sign};
use super::run::perform_once;
use super::screen::Screen;
use crate::config::Config;
use crate::error::{Exit, Failure};
use crate::reference::Reference;
use crate::service::{make_key, random};
use crate::store::state::{Registration, Role, State};
use crate::sync::keys::{Keys, refresh};
use crate::sync::marks::placed_bundle;
use crate::sync::proposal::{MAX_REQUEST, Proposal, ProposalError};
use crate::sync::{ModuleRef, SyncError, unix_now};
use crate::ui::Ui;
use crate::verbs::Verb;
use crate::verbs::format::local_time;
use crate::verbs::keys::Take;

/// Length of a key file.
const SEED: usize = 32;

/// Makes a publisher key.
///
/// # Errors
/// The name is none, or taken.
pub fn keygen(config: &Config, ui: &Ui, name: &str) -> Result<(), Failure> {
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !plain || name.starts_with('.') {
        return Err(Failure::usage(format!("{name:?} is no name for a key")));
    }
    let state = State::open(&config.state_dir)?;
    let publisher = make_key(&state, name)?.public().publisher().to_string();
    ui.answer(&json!({ "publisher": publisher, "name": name }), &publisher)
}

/// A module that gets new keys: its last generation that counts, and its registration where it is published from here.
struct Module {
    last: CheckedBundle,
    registration: Option<Registration>,
}

/// Makes a new head key, and starts a new epoch of all modules of the publisher.
///
/// # Errors
/// The root key is not at hand or another's, or nothing of the publisher is known here.
pub async fn rotate(config: &Config, ui: &Ui, wish: &Rotate) -> Result<(), Failure> {
    let state = State::open(&config.state_dir)?;
    let keys = find(&state, wish)?;
    let Some(root) = keys.root.clone() else { return Err(SyncError::NoRoot { name: keys.name }.into()) };
    let (modules, newest) = modules(&state, &keys.publisher)?;
    if modules.is_empty() {
        return Err(Failure::usage(format!("nothing of {} was ever published or signed here", keys.publisher)));
    }
    let epoch = newest.checked_add(1).ok_or_else(|| Failure::usage("there is no higher epoch"))?;
    let head = SecretKey::from_seed(random()?);
    let mut signed = Vec::new();
    for Module { last, registration } in modules {
        let lasts = registration.as_ref().and_then(|found| found.fresh).map_or(last.charter().fresh_for, u64::from);
        let bundle = last.rotate(&root, &head, epoch, unix_now()).map_err(SyncError::from)?;
        signed.push((refresh(&head, &bundle, lasts, unix_now()).map_err(SyncError::from)?, registration.is_some()));
    }
    // Durable before anything that it signed is seen by others.
    state.set_head_key(&keys.name, keys.publisher.key().as_bytes(), &head.seed())?;
    let (here, away): (Vec<_>, Vec<_>) = signed.into_iter().partition(|(_, is_here)| *is_here);
    let mut rows = Vec::new();
    if !here.is_empty() {
        let bundles = here.iter().map(|(bundle, _)| bundle.bytes().to_vec()).collect();
        let screen = Screen::new(*ui, false, None)?;
        let taken = perform_once(config, Verb::Take(Take { bundles }), &screen).await?;
        rows.extend(taken.as_array().cloned().unwrap_or_default());
    }
    for (bundle, _) in &away {
        rows.push(hand_over(&state, ui, bundle)?);
    }
    if state.key(&keys.name)?.is_some() {
        let path = state.path().join("keys").join(format!("{}.key", keys.name));
        ui.warn(&format!(
            "{} is the root key: only rotate needs it now (--root FILE), keep it elsewhere",
            path.display()
        ));
    }
    ui.answer(&json!({ "publisher": keys.publisher.to_string(), "epoch": epoch, "modules": rows }), "")
}

/// The keys of a name, an id or a reference, with the root key from wherever it is.
fn find(state: &State, wish: &Rotate) -> Result<Keys, Failure> {
    let what = wish.what.as_str();
    let publisher = Reference::parse(what).ok().map(|found| found.module.publisher).or_else(|| what.parse().ok());
    let root = wish.root.as_deref().map(read_key).transpose()?;
    let known = match &publisher {
        Some(publisher) => Keys::find(state, publisher)?,
        None => Keys::load(state, what)?,
    };
    let keys = match (known, &root) {
        (Some(keys), _) => keys,
        (None, Some(root)) if publisher.is_none() => Keys::of_root(what, root.clone()),
        _ => return Err(SyncError::NoKey { name: what.to_owned() }.into()),
    };
    match root {
        None => Ok(keys),
        Some(root) if root.public() == *keys.publisher.key() => Ok(Keys { root: Some(root), ..keys }),
        Some(_) => Err(Failure::new(Exit::KeyChanged, format!("--root is not the root key of {}", keys.publisher))),
    }
}

fn read_key(path: &Path) -> Result<SecretKey, Failure> {
    let seed = read(path, SEED)?.try_into();
    seed.map(SecretKey::from_seed).map_err(|_| Failure::usage(format!("{}: no key of {SEED} bytes", path.display())))
}

/// The modules of a publisher, and their highest epoch. What this machine published counts, not what others signed since.
fn modules(state: &State, publisher: &PublisherId) -> Result<(Vec<Module>, u64), Failure> {
    let (mut found, mut epoch) = (Vec::new(), 0);
    for name in state.modules_seen(&publisher.to_string())? {
        let marks = state.module(&publisher.to_string(), &name)?;
        let seen = marks.seen()?.and_then(|bytes| CheckedBundle::verify(&bytes).ok());
        let registration = marks.registration()?.filter(|found| found.role == Role::Publisher);
        let placed = if registration.is_some() { placed_bundle(&marks)? } else { None };
        epoch = seen.iter().map(|seen| seen.generation().epoch).fold(epoch, u64::max);
        if let Some(last) = placed.or(seen) {
            found.push(Module { last, registration });
        }
    }
    Ok((found, epoch))
}

/// Writes a bundle for the machine that serves its tree.
fn hand_over(state: &State, ui: &Ui, bundle: &CheckedBundle) -> Result<Value, Failure> {
    let module = ModuleRef::of(bundle);
    state.module(&module.publisher.to_string(), module.name.as_str())?.set_seen(bundle.bytes())?;
    let path = PathBuf::from(format!("{}.signed", module.name));
    write(&path, bundle.bytes())?;
    let (generation, file) = (bundle.generation(), path.display().to_string());
    if !ui.is_json() {
        ui.line(&format!("{module}  {generation}  {file}"))?;
    }
    Ok(json!({ "reference": module.to_string(), "seq": generation.seq, "signed": file }))
}

/// Shows what a request asks for, and signs it.
///
/// # Errors
/// It is no request, no key here may sign it, or it would be a fork of what was signed here.
pub fn sign(config: &Config, ui: &Ui, wish: &Sign) -> Result<(), Failure> {
    let bytes = read(&wish.file, MAX_REQUEST)?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::usage("no signing request: not text"))?;
    let proposal = Proposal::parse(&text)?;
    let state = State::open(&config.state_dir)?;
    let module = &proposal.module;
    let keys = Keys::find(&state, &module.publisher)?;
    let keys = keys.ok_or_else(|| SyncError::NoKey { name: format!("of {}", module.publisher) })?;
    let marks = state.module(&module.publisher.to_string(), module.name.as_str())?;
    let seen = marks.seen()?.and_then(|bytes| CheckedBundle::verify(&bytes).ok());
    let bundle = proposal.sign(&keys, seen.as_ref(), unix_now())?;
    if !ui.is_json() {
        describe(&proposal, &keys, &bundle).iter().try_for_each(|line| ui.line(line))?;
    }
    let out = wish.out.clone().unwrap_or_else(|| {
        let mut name = wish.file.clone().into_os_string();
        name.push(".signed");
        name.into()
    });
    if !wish.dry_run {
        // What left this machine is remembered by it: the next request must go on from here.
        marks.set_seen(bundle.bytes())?;
        write(&out, bundle.bytes())?;
    }
    let head = &proposal.head;
    let row = json!({
        "reference": module.to_string(), "epoch": head.epoch, "seq": head.seq, "root": head.root.to_string(),
        "entries": head.entries, "bytes": head.bytes, "created": head.created,
        "fresh_until": bundle.fresh().map(|fresh| fresh.until),
        "signed": if wish.dry_run { Value::Null } else { out.display().to_string().into() },
    });
    ui.answer(&row, &if wish.dry_run { String::new() } else { format!("signed: {}", out.display()) })
}

fn describe(proposal: &Proposal, keys: &Keys, bundle: &CheckedBundle) -> Vec<String> {
    let (head, changes) = (&proposal.head, &proposal.changes);
    let time = |seconds: u64| {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        local_time(seconds.saturating_mul(1_000_000_000), &jiff::tz::TimeZone::system())
    };
    let after = proposal.former.as_ref().map_or("the first".to_owned(), |one| format!("after {}", one.generation()));
    let until = bundle.fresh().map_or_else(String::new, |fresh| time(fresh.until));
    let mut lines = vec![
        proposal.module.to_string(),
        format!("  generation  {} ({after})", head.generation()),
        format!("  root        {}", head.root),
        format!("  tree        {} entries, {} bytes", head.entries, head.bytes),
        format!("  changes     {} new, {} changed, {} gone", changes.added, changes.changed, changes.deleted),
        format!("  scanned     {}", time(head.created)),
        format!("  fresh until {until}"),
        format!("  key         {}", keys.name),
    ];
    if proposal.former.is_none() && proposal.sibling.is_none() {
        let nodes: Vec<String> = proposal.terms.trackers.iter().map(ToString::to_string).collect();
        lines.push(format!("  origin      {} (may also say that a head is still the newest)", nodes.join(" ")));
    }
    lines
}

fn read(path: &Path, max: usize) -> Result<Vec<u8>, Failure> {
    let wrong = |error: std::io::Error| Failure::new(Exit::Files, format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(wrong)?;
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() > max {
        return Err(Failure::usage(format!("{}: over {max} bytes", path.display())));
    }
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    std::fs::write(path, bytes).map_err(|error| Failure::new(Exit::Files, format!("{}: {error}", path.display())))
}

/// The bundle that `sign` wrote.
///
/// # Errors
/// It cannot be read, or is too long for a bundle.
pub fn read_signed(path: &Path) -> Result<Vec<u8>, Failure> {
    read(path, tracker_less::record::bundle::MAX_BUNDLE)
}

/// Writes the request that a publish made, and puts the file's name in its place.
///
/// # Errors
/// It cannot be written.
pub fn deliver(ui: &Ui, value: &mut Value, asked: Option<&Path>) -> Result<(), Failure> {
    let Some(text) = value.get("request").and_then(Value::as_str) else { return Ok(()) };
    let name = value["reference"].as_str().and_then(|reference| reference.rsplit('/').next()).unwrap_or("murmir");
    let path = asked.map_or_else(|| PathBuf::from(format!("{name}.request")), Path::to_owned);
    write(&path, text.as_bytes())?;
    let shown = path.display().to_string();
    ui.warn(&format!("{shown} is to be signed: murmir sign {shown}, then publish again with --signed {shown}.signed"));
    value["request"] = shown.into();
    Ok(())
}

impl From<ProposalError> for Failure {
    fn from(error: ProposalError) -> Self {
        match error {
            ProposalError::Sync(error) => error.into(),
            ProposalError::Passed { .. } => {
                Self::new(Exit::Rollback, error).hint("publish again where the tree is, and sign that request")
            }
            ProposalError::Malformed { .. } | ProposalError::Contradiction { .. } => Self::usage(error),
        }
    }
}
