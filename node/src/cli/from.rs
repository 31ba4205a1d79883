//! `publish --from`: what an origin does not publish itself, brought here first.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::classic;
use super::run::absolute;
use super::transfer::ruled;
use crate::attach::origin::Origin;
use crate::config::Config;
use crate::error::{Exit, Failure};
use crate::manifest::path::TreePath;
use crate::options::PublishOptions;
use crate::store::files::Dir;
use crate::store::state::State;
use crate::sync::SyncError;
use crate::sync::dest::OWN_DIR;
use crate::verbs::pass::selector;
use crate::web::client::client;
use crate::web::copy::copy;

/// The habits of a replica.
const USUAL: [&str; 5] = ["-rlptH", "--delete-delay", "--delay-updates", "--safe-links", "--no-motd"];
/// So many deletions are always allowed.
const DELETIONS: u64 = 100;

/// The address that `--from` names, as everybody may read it; none where it is not given.
///
/// # Errors
/// It is no rsync:// or https:// address, or one with a password in it (1).
pub fn address(options: &PublishOptions) -> Result<Option<Origin>, Failure> {
    let Some(word) = &options.from else { return Ok(None) };
    let refuse = |why: &str| Failure::usage(format!("--from {word}: {why}"));
    match Origin::parse(word, None) {
        Some(Ok(Origin::Web(web))) if web.base.contains('@') => Err(refuse("the address is told to everybody")),
        Some(Ok(Origin::Daemon(daemon))) if daemon.module.is_empty() => Err(refuse("which module?")),
        Some(Ok(origin)) => Ok(Some(origin)),
        Some(Err(why)) => Err(Failure::usage(why)),
        None => Err(refuse("no rsync:// or https:// address")),
    }
}

/// Makes the directory what stands at the origin. Deletes at the end, and only if all was brought.
///
/// # Errors
/// rsync's own codes; 10 where a web server does not answer; 25 where much would be deleted; 1 where the directory holds files that
/// did not come that way.
pub async fn bring(config: &Config, options: &PublishOptions) -> Result<(), Failure> {
    // What `sign` has signed is the tree as it stands here.
    let Some(origin) = address(options)?.filter(|_| options.signed.is_none()) else { return Ok(()) };
    if options.dry_run {
        return Err(Failure::usage("--from brings the tree before it is looked at: -n cannot show it"));
    }
    let dir = absolute(&options.dir)?;
    claim(&dir, options.adopt)?;
    match origin {
        Origin::Daemon(_) => classic::rsync(&words(config, options, &dir)?, config.json).await,
        Origin::Web(web) => {
            let client = client().map_err(|what| SyncError::Web { what })?;
            let select = selector(TreePath::root(), None, &ruled(&options.rules)?)?;
            let dest = Dir::open(&dir).map_err(SyncError::from)?;
            let wanted = |path: &TreePath, is_dir: bool| select.wants(path, is_dir);
            let url = format!("{}{}", web.base, web.path);
            let copied = copy(&client, &url, &dest, &wanted, options.allow_shrink).await?;
            tracing::info!(files = copied.files, fetched = copied.fetched, deleted = copied.deleted, "brought");
            Ok(())
        }
    }
}

/// A directory that is new, empty, or was filled in this way before.
fn claim(dir: &Path, adopt: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(Exit::Files, format!("{}: {error}", dir.display()));
    if !dir.exists() {
        std::fs::create_dir(dir).map_err(failed)?;
    }
    let own = dir.join(OWN_DIR);
    let holds = dir.read_dir().map_err(failed)?.next().is_some();
    if holds && !own.is_dir() && !adopt {
        let text = format!("{} is not empty, and was not filled by publish --from", dir.display());
        return Err(
            Failure::usage(text).hint("--adopt takes it all the same: what the origin does not have is deleted")
        );
    }
    if own.is_dir() { Ok(()) } else { std::fs::create_dir(&own).map_err(failed) }
}

/// rsync's command line.
fn words(config: &Config, options: &PublishOptions, dir: &Path) -> Result<Vec<OsString>, Failure> {
    let mut words: Vec<OsString> = USUAL.iter().map(OsString::from).collect();
    words.push(format!("--exclude=/{OWN_DIR}/").into());
    for rule in ruled(&options.rules)?.rules {
        words.push(OsString::from_vec([b"--filter=".as_slice(), rule.0.as_slice()].concat()));
    }
    if !options.allow_shrink {
        words.push(format!("--max-delete={}", (here(config, dir)? / 4).max(DELETIONS)).into());
    }
    let from = options.from.as_deref().unwrap_or_default();
    words.extend(["--".into(), format!("{}/", from.trim_end_matches('/')).into(), dir.join("").into()]);
    Ok(words)
}

/// Entries of the generation that was published from this directory last.
fn here(config: &Config, dir: &Path) -> Result<u64, Failure> {
    let state = State::open(&config.state_dir)?;
    for (publisher, name) in state.registered()? {
        let module = state.module(&publisher, &name)?;
        if module.registration()?.is_some_and(|found| found.directory == dir) {
            let bundle = module.held()?.and_then(|bytes| tracker_less::record::CheckedBundle::verify(&bytes).ok());
            return Ok(bundle.map_or(0, |bundle| bundle.head().entries));
        }
    }
    Ok(0)
}
