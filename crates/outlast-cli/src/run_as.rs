//! `outlast worker --run-as`: the user of tasks, and the capabilities that this needs.

use crate::exit::Usage;
use outlast_spawn::{User, effective_uid};

/// Numbers and names of the capabilities needed to run programs as another user and to give that user
/// folders.
const NEEDED: [(u32, &str); 6] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (3, "CAP_FOWNER"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
];

/// Looks up the user of that name or number, if tasks of this process can run as that user.
pub(crate) fn user(name: &str) -> Result<User, Usage> {
    let wrong = |why: String| Usage(format!("--run-as {name}: {why}"));
    let user = User::find(name).map_err(|error| wrong(error.to_string()))?;
    let me = effective_uid();
    if user.uid == me && me != 0 {
        return Err(wrong("this worker already runs as that user: leave --run-as out".into()));
    }
    if me != 0 {
        return Err(wrong(format!(
            "only root can run tasks as another user, and this worker runs as user number {me}: start \
             it as root, or as {} without --run-as",
            user.name
        )));
    }
    if user.uid == 0 {
        let why = "that is root, as this worker is: its tasks could do all that it can. Name another \
                   user, or leave --run-as out";
        return Err(wrong(why.into()));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing(&status);
    if !missing.is_empty() {
        return Err(wrong(format!(
            "this worker is root without {}, which that takes: a container or a service has taken it \
             away",
            missing.join(", ")
        )));
    }
    Ok(user)
}

/// Returns the needed capabilities that are missing, from the system's description of a process.
fn missing(status: &str) -> Vec<&'static str> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|number| u64::from_str_radix(number.trim(), 16).ok());
    // If the system does not list them, the first start of a task shows it.
    let effective = effective.unwrap_or(u64::MAX);
    NEEDED.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_that_are_missing_are_named() {
        assert_eq!(missing("Name:\tx\nCapEff:\t000001ffffffffff\n"), [""; 0]);
        assert_eq!(missing("CapEff:\t00000000a80425df\n"), ["CAP_KILL"]);
        assert_eq!(missing("CapEff:\t0000000000000000\n").len(), 6);
        assert_eq!(missing(""), [""; 0]);
    }

    #[test]
    fn users_that_are_no_other_are_refused() {
        let error = |name: &str| user(name).unwrap_err().to_string();
        assert!(error("no such user").contains("there is no user"));
        let said = error("0");
        let root = effective_uid() == 0;
        assert!(said.contains(if root { "that is root" } else { "only root can" }), "{said}");
    }
}
