//! The way in which the stores of this crate are opened, and SQLite's integers. Knows no tables.

use crate::StoreError;
use outlast_sqlite::Kind;
use std::time::Duration;

/// Both kinds of store are used alike; each has its name and tables.
pub(crate) const fn kind(
    what: &'static str,
    application_id: i32,
    migrations: &'static [&'static str],
) -> Kind {
    Kind {
        what,
        application_id,
        migrations,
        busy: Duration::from_secs(5),
        cache_kib: 32 << 10,
        log_pages: 4096,
        log_bytes: 64 << 20,
    }
}

/// SQLite's integers are signed.
pub(crate) fn int(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Contradiction(format!("{value} is too large")))
}

/// The reverse of [`int`].
pub(crate) fn uint(value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::damaged("negative number", value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_beyond_what_sqlite_holds_are_refused() {
        assert_eq!(int(5).unwrap(), 5);
        assert!(int(u64::MAX).is_err());
        assert!(uint(-1).is_err());
    }
}
