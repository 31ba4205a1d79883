//! How much is told: rsync's `-v` and `--info`.

use serde::{Deserialize, Serialize};

/// A level for each kind of line; 0 for silence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Levels {
    /// What is kept as a backup.
    pub backup: u8,
    /// Deletions.
    pub del: u8,
    /// That the list is received.
    pub flist: u8,
    /// Names of what changes; at 2 also of what stays.
    pub name: u8,
    /// Symlinks left out for want of `-l`.
    pub nonreg: u8,
    /// Progress of each file; at 2 of the whole.
    pub progress: u8,
    /// Files that a flag leaves alone.
    pub skip: u8,
    /// Sums at the end; at 2 all figures.
    pub stats: u8,
    /// Symlinks left out by `--safe-links`.
    pub symsafe: u8,
}

/// The words of rsync's `--info=help` that nothing here is told of.
const SILENT: [&str; 4] = ["copy", "misc", "mount", "remove"];

impl Levels {
    /// What so many `-v` tell.
    pub fn of(verbose: u8) -> Self {
        let first = verbose.min(1);
        let second = u8::from(verbose > 1);
        let name = verbose.min(2);
        Self {
            nonreg: 1,
            del: first,
            flist: first,
            name,
            stats: first,
            symsafe: first,
            backup: second,
            skip: second,
            progress: 0,
        }
    }

    /// Sets what `--info=WORDS` names.
    ///
    /// # Errors
    /// A word that rsync does not know.
    pub fn set(&mut self, words: &str) -> Result<(), String> {
        for word in words.split(',').filter(|word| !word.is_empty()) {
            let name = word.trim_end_matches(|char: char| char.is_ascii_digit());
            let level = word[name.len()..].parse().unwrap_or(if word.len() == name.len() { 1 } else { u8::MAX });
            let name = name.to_ascii_lowercase();
            match self.level(&name) {
                Some(known) => *known = level,
                None if name == "all" => self.set_all(level),
                None if name == "none" => self.set_all(0),
                None if SILENT.contains(&name.as_str()) => {}
                None => return Err(format!("Unknown --info item: \"{word}\"")),
            }
        }
        Ok(())
    }

    fn level(&mut self, name: &str) -> Option<&mut u8> {
        Some(match name {
            "backup" => &mut self.backup,
            "del" => &mut self.del,
            "flist" => &mut self.flist,
            "name" => &mut self.name,
            "nonreg" => &mut self.nonreg,
            "progress" => &mut self.progress,
            "skip" => &mut self.skip,
            "stats" => &mut self.stats,
            "symsafe" => &mut self.symsafe,
            _ => return None,
        })
    }

    fn set_all(&mut self, level: u8) {
        let (backup, del, flist, name, nonreg) = (level, level, level, level, level);
        *self = Self { backup, del, flist, name, nonreg, progress: level, skip: level, stats: level, symsafe: level };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_set_levels() {
        let mut levels = Levels::of(1);
        assert_eq!((levels.name, levels.del, levels.skip, levels.nonreg), (1, 1, 0, 1));
        assert_eq!(levels.set("name0,SKIP,progress2,misc2"), Ok(()));
        assert_eq!((levels.name, levels.skip, levels.progress, levels.stats), (0, 1, 2, 1));
        assert_eq!(levels.set("none,del"), Ok(()));
        assert_eq!(levels, Levels { del: 1, ..Levels::default() });
        assert_eq!(levels.set("nmae"), Err("Unknown --info item: \"nmae\"".to_owned()));
    }
}
