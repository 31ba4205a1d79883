//! `murmir rsync`: a pulling rsync command line as it is.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::transfer::{self, Habit};
use crate::attach::origin::Origin;
use crate::error::{Exit, Failure};
use crate::options::RsyncOptions;
use crate::verbs::Verb;

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// A reference, an rsync daemon's module, or a web address.
    Far(String),
    /// A path, or a host reached by a remote shell.
    Other(&'static str),
}

/// The verb of an rsync command line.
///
/// # Errors
/// A source that cannot be pulled from (1), or that is not built yet (4).
pub fn verb(options: &RsyncOptions, verbose: u8) -> Result<Verb, Failure> {
    let (sources, dest) = match options.places.as_slice() {
        [sources @ .., dest] if !sources.is_empty() => (sources, Some(dest)),
        all => (all, None),
    };
    if let Some(dest) = dest.filter(|dest| !matches!(source(dest), Source::Other(LOCAL))) {
        let dest = Path::new(dest).display();
        return Err(Failure::usage(format!("{dest}: pushing to a remote makes no sense here: publish there")));
    }
    let mut names = named(sources)?;
    if names.is_empty() {
        return Err(Failure::usage("no source is named"));
    }
    let reference = names.remove(0);
    match dest.filter(|_| !options.transfer.output.list_only) {
        Some(dest) => {
            let mut pass = transfer::pass(Habit::Rsync, reference, Path::new(dest), &options.transfer, verbose)?;
            names.iter().try_for_each(|name| transfer::check_point(pass.selection.relative, name))?;
            pass.more = names;
            Ok(Verb::Pass(Box::new(pass)))
        }
        None if names.is_empty() => transfer::listing(Habit::Rsync, reference, &options.transfer, verbose),
        None => Err(Failure::new(Exit::Unsupported, "a listing of several sources is not built yet")),
    }
}

/// The sources as names of their own: `::m/b` behind `host::m/a` is at the same host.
fn named(sources: &[OsString]) -> Result<Vec<String>, Failure> {
    let mut names: Vec<String> = Vec::new();
    for word in sources {
        let host = names.first().and_then(|first| Some(first.split_once("::")?.0.to_owned()));
        let full = match (host, word.to_str()) {
            (Some(host), Some(short)) if short.starts_with("::") => format!("{host}{short}").into(),
            _ => word.clone(),
        };
        match source(&full) {
            Source::Far(name) => names.push(name),
            Source::Other(why) => return Err(Failure::usage(format!("{}: {why}", Path::new(word).display()))),
        }
    }
    Ok(names)
}

/// Said of a path of this machine.
const LOCAL: &str = "a local source: rsync itself copies those";

fn source(word: &OsString) -> Source {
    let bytes = word.as_bytes();
    let (colon, slash) = (find(bytes, b":"), find(bytes, b"/"));
    match word.to_str() {
        Some(text) if text.starts_with("murmir://") || Origin::parse(text, None).is_some() => {
            Source::Far(text.to_owned())
        }
        _ if colon.is_some_and(|at| slash.is_none_or(|slash| at < slash)) => {
            Source::Other("there is no remote shell here: name a module")
        }
        _ => Source::Other(LOCAL),
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn sources_are_told_apart() {
        for (word, expected) in [
            ("murmir://k51/m/x", Source::Far("murmir://k51/m/x".to_owned())),
            ("rsync://host/m", Source::Far("rsync://host/m".to_owned())),
            ("host::m/x", Source::Far("host::m/x".to_owned())),
            ("https://host/x/", Source::Far("https://host/x/".to_owned())),
            ("./a:b", Source::Other(LOCAL)),
            ("/srv/x", Source::Other(LOCAL)),
            ("host:/x", Source::Other("there is no remote shell here: name a module")),
        ] {
            assert_eq!(source(&OsStr::new(word).to_owned()), expected, "{word}");
        }
    }
}
