//! `murmir rsync --explain`: what each flag of a command line does here.

use clap::Arg;

use super::foreign::Foreign;

/// A line for each flag that was given, sorted.
pub fn explain(foreign: &Foreign) -> Vec<String> {
    let command = super::command();
    let verb = command.find_subcommand("rsync");
    let args: Vec<&Arg> = verb.into_iter().flat_map(clap::Command::get_arguments).collect();
    let given = foreign.given().iter().filter_map(|id| args.iter().find(|arg| arg.get_id() == id.as_str()));
    let mut lines: Vec<String> = given.map(|arg| format!("{}: {}", shown(arg), meaning(arg))).collect();
    lines.extend(foreign.explain());
    lines.sort();
    lines
}

/// `-a (--archive)`.
fn shown(arg: &Arg) -> String {
    match (arg.get_short(), arg.get_long()) {
        (Some(letter), Some(long)) => format!("-{letter} (--{long})"),
        (None, Some(long)) => format!("--{long}"),
        (letter, None) => format!("-{}", letter.unwrap_or_default()),
    }
}

fn meaning(arg: &Arg) -> String {
    let id = arg.get_id().as_str();
    if let Some(words) = own(id) {
        return words.to_owned();
    }
    match (arg.get_help(), id.strip_prefix("no-")) {
        (Some(help), _) => format!("as in rsync: {help}"),
        (None, Some(name)) => format!("as in rsync: --{name} does not count"),
        (None, None) => "as in rsync".to_owned(),
    }
}

/// Where a flag of rsync's reads differently here, or says what is so anyway.
fn own(id: &str) -> Option<&'static str> {
    Some(match id {
        "archive" => "-rlpt; owners, groups and devices are not part of a tree",
        "delete" => "deletes what the module does not have, after everything else, whatever the form of the flag",
        "delete_excluded" => "deletes also what the rules exclude, after everything else",
        "delete_before" | "delete_delay" | "delete_after" => {
            "deletes what the module does not have, after everything else"
        }
        "inc-recursive" | "no-inc-recursive" => {
            "how the list is announced; it is the signed tree, read as far as it is wanted"
        }
        "checksum" => "contents are compared by their BLAKE3 ids, with or without it; the origin reads nothing",
        "size_only" => "files of the same size count as the same, whatever their content",
        "delay_updates" => "always so: files switch only when all are there and verified; .~tmp~ is left out",
        "partial" | "partial_dir" => {
            "always so: verified bytes are kept in .murmir/ of the destination and used by the next run; such a directory of \
             rsync's is left out"
        }
        "modify_window" => "as in rsync; without it times are compared to the nanosecond",
        "prune-empty-dirs" => "as in rsync; pages of directories are read all the same",
        "copy_links" | "copy_dirlinks" => "as in rsync, inside the module: what leads out of it is left out (23)",
        "progress" | "partial_progress" => "each file's line follows its name, when all are in place; a bar until then",
        "bwlimit" => "a limit both ways, or UP:DOWN; what a node that runs here sends, `serve --bwlimit` limits",
        "timeout" => "as in rsync (30); where somebody is silent for 10 s others are asked in any case",
        "contimeout" => "as in rsync (35), also where peers are asked",
        "out_format" | "log_file_format" => "as in rsync; %C is the content's id, %b its size, %U, %G and %c are 0",
        "human_readable" => "as in rsync: numbers with units",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;
    use crate::cli::foreign::Foreign;

    fn explained(flags: &[&str]) -> Vec<String> {
        let line = ["murmir", "rsync"].iter().chain(flags).chain(&["host::m", "dest"]);
        let matches = crate::cli::command().get_matches_from(line);
        explain(&Foreign::from_arg_matches(matches.subcommand().unwrap().1).unwrap())
    }

    #[test]
    fn every_flag_has_its_word() {
        let command = crate::cli::command();
        let verb = command.find_subcommand("rsync").unwrap();
        let rsyncs = |arg: &&Arg| {
            !arg.is_positional() && !arg.is_global_set() && !["help", "explain"].contains(&arg.get_id().as_str())
        };
        for arg in verb.get_arguments().filter(rsyncs) {
            let flag =
                arg.get_long().map_or_else(|| format!("-{}", arg.get_short().unwrap()), |long| format!("--{long}"));
            let takes = arg.get_action().takes_values() && arg.get_num_args().is_none_or(|count| count.takes_values());
            let words = if takes { vec![flag.clone(), "1".to_owned()] } else { vec![flag.clone()] };
            let allowed = arg.get_possible_values().first().map(|value| value.get_name().to_owned());
            let words = match allowed.filter(|_| takes) {
                Some(value) => vec![flag.clone(), value],
                None if takes && flag_of_time(&flag) => vec![flag.clone(), "1h".to_owned()],
                None => words,
            };
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let lines = explained(&words);
            let told =
                matches!(lines.as_slice(), [line] if line.split_once(": ").is_some_and(|(_, rest)| rest.len() > 10));
            assert!(told, "{flag}: {lines:?}");
        }
    }

    fn flag_of_time(flag: &str) -> bool {
        ["--max-age", "--seed", "--wait-lock"].contains(&flag)
    }
}
