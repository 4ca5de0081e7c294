//! The program of a command or a shell line, by which tasks without a type are grouped.

/// Programs that run another one, which their first argument names.
const INTERPRETERS: [&str; 16] = [
    "python", "node", "bash", "sh", "dash", "zsh", "ksh", "ruby", "perl", "Rscript", "julia",
    "env", "nice", "time", "uv", "exec",
];
/// Shells that take a command line with `-c`.
const SHELLS: [&str; 5] = ["sh", "bash", "dash", "zsh", "ksh"];
/// Commands that only prepare for the one that matters.
const PREPARE: [&str; 10] =
    ["cd", "export", "set", "[", "[[", "source", ".", "ulimit", "umask", "true"];
/// Number of nested shells that are examined.
const MAX_SHELLS: usize = 4;

fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

fn is_script_flag(word: &str) -> bool {
    word.starts_with('-') && !word.starts_with("--") && word.ends_with('c')
}

/// The script that a shell is given with `-c`.
pub(crate) fn script<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if !SHELLS.contains(&base(words.next()?)) {
        return None;
    }
    let mut words = words.skip_while(|w| w.starts_with('-') && !is_script_flag(w));
    words.next().filter(|w| is_script_flag(w)).and_then(|_| words.next())
}

/// Returns the command of a shell line: its first one that does more than prepare.
pub(crate) fn line_runs(mut line: &str) -> &str {
    for _ in 0..MAX_SHELLS {
        let commands = line.split(['&', '|', ';', '\n']);
        let commands = commands.map(|c| c.trim_start_matches(|c: char| " \t\r({!".contains(c)));
        let prepares = |c: &&str| {
            let first = c.split_whitespace().next();
            first.is_none_or(|w| w.starts_with('#') || PREPARE.contains(&w))
        };
        let Some(command) = commands.clone().find(|c| !prepares(c)) else {
            return program(line.split_whitespace());
        };
        let command = match command.trim_end_matches([')', '}', ' ', '\'', '"']) {
            "" => line,
            command => command,
        };
        let Some(inner) = script(command.split_whitespace()) else {
            return program(command.split_whitespace());
        };
        // From there on, since that line may have the separators that this one was split at.
        let at = inner.as_ptr() as usize - line.as_ptr() as usize;
        line = line[at..].trim_matches(['\'', '"']);
    }
    program(line.split_whitespace())
}

/// Returns the program of a command, or the script that an interpreter runs.
pub(crate) fn program<'a>(words: impl Iterator<Item = &'a str>) -> &'a str {
    let mut first = "";
    for word in words {
        let name = base(word);
        let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
        // What follows is a program's text, and no name.
        if matches!(word, "-c" | "-e") && !first.is_empty() {
            return first;
        }
        let starts = first.is_empty() && INTERPRETERS.contains(&plain);
        if starts || word.starts_with('-') || (word.contains('=') && !word.starts_with('/')) {
            first = if first.is_empty() && starts { name } else { first };
        } else if INTERPRETERS.contains(&plain) {
            first = name;
        } else {
            return name;
        }
    }
    first
}
