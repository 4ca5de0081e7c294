//! API keys: made, listed, revoked and checked, in the coordinator's store.
//!
//! They have a connection of their own, so that they can be managed while the coordinator runs.
//! Only a hash of each secret is kept. The secrets are 256 random bits, so a fast hash will do.

use crate::coord::schema;
use crate::{CoordStore, StoreError, db};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Columns of a key, in the order in which [`info`] reads them.
const COLUMNS: &str = "id, name, role, created_at, revoked_at, workers, own_tasks";

/// Permissions of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Connect as a worker; nothing else.
    Worker,
    /// Submit, watch and cancel tasks.
    Submit,
    /// Permits everything.
    Operate,
}

impl Role {
    /// The word that users write and see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Submit => "submit",
            Self::Operate => "operate",
        }
    }
    /// The reverse of [`Self::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Worker, Self::Submit, Self::Operate].into_iter().find(|r| r.as_str() == word)
    }
    /// Returns whether a key of this role may do what needs `needed`.
    pub fn allows(self, needed: Role) -> bool {
        self == needed || self == Self::Operate
    }
}

/// A key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// The public part of the token.
    pub id: String,
    /// Name of the key.
    pub name: String,
    /// Role of the key.
    pub role: Role,
    /// Creation time in Unix milliseconds.
    pub created_at: i64,
    /// Time of its revocation, if it was revoked.
    pub revoked_at: Option<i64>,
    /// Limits of the key.
    pub limits: KeyLimits,
}

/// Limits of a key in addition to its role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyLimits {
    /// Names of workers that it may connect, or prefixes that end in `*`; empty: any.
    pub workers: Vec<String>,
    /// True if it sees and changes only tasks that were submitted with a key of its name.
    pub own_tasks: bool,
}

impl KeyLimits {
    /// Returns whether a worker of this name may be connected.
    pub fn allows_worker(&self, name: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        };
        self.workers.is_empty() || self.workers.iter().any(fits)
    }
}

/// A key that was just made: the only time that its secret is seen.
#[derive(Clone)]
pub struct NewKey {
    /// The public part of the token.
    pub id: String,
    /// `olk_<id>_<secret>`, to be given to whoever shall use it.
    pub token: String,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The keys of one coordinator.
#[derive(Debug)]
pub struct Keys {
    conn: Connection,
}

impl Keys {
    /// Opens the keys in the store at this path, also while its coordinator runs. Creates the
    /// store when there is none yet.
    ///
    /// # Errors
    /// [`StoreError`] says what is wrong with the file.
    pub fn open(path: &Path) -> Result<Keys, StoreError> {
        match outlast_sqlite::open_shared(path, &schema::KIND, true) {
            Err(outlast_sqlite::Error::NotReady { .. }) => {}
            other => return Ok(Keys { conn: other? }),
        }
        // Nobody runs it, or its first start is under way: then it has the lock, and says so.
        drop(CoordStore::open(path)?);
        Ok(Keys { conn: outlast_sqlite::open_shared(path, &schema::KIND, true)? })
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    pub fn add_key(&self, name: &str, role: Role) -> Result<NewKey, StoreError> {
        self.add_limited_key(name, role, &KeyLimits::default())
    }

    /// Makes a key that is limited to some workers, or to the tasks submitted with it.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    pub fn add_limited_key(
        &self,
        name: &str,
        role: Role,
        limits: &KeyLimits,
    ) -> Result<NewKey, StoreError> {
        let (id, secret) = (hex::<6>()?, hex::<32>()?);
        self.change(
            "INSERT INTO keys (id, name, role, hash, created_at, workers, own_tasks)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                id,
                name,
                role.as_str(),
                blake3::hash(secret.as_bytes()).as_bytes(),
                now(),
                serde_json::to_string(&limits.workers).expect("strings are always JSON"),
                limits.own_tasks,
            ],
        )?;
        let token = format!("olk_{id}_{secret}");
        Ok(NewKey { id, token })
    }

    /// All keys, the revoked ones too, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when they cannot be read.
    pub fn list_keys(&self) -> Result<Vec<KeyInfo>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM keys ORDER BY created_at, id");
        let mut query = self.conn.prepare_cached(&sql)?;
        let mut rows = query.query([])?;
        let mut keys = Vec::new();
        while let Some(r) = rows.next()? {
            keys.push(info(r)?);
        }
        Ok(keys)
    }

    /// Revokes a key for good. `false` when there is none with this id, or it was revoked before.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be written.
    pub fn revoke_key(&self, id: &str) -> Result<bool, StoreError> {
        let sql = "UPDATE keys SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL";
        Ok(self.change(sql, params![id, now()])? == 1)
    }

    /// Returns the key of this token, unless it is wrong or revoked.
    ///
    /// # Errors
    /// [`StoreError`] when the keys cannot be read; the request must then be refused.
    pub fn verify(&self, token: &str) -> Result<Option<KeyInfo>, StoreError> {
        let Some((id, secret)) = token.strip_prefix("olk_").and_then(|t| t.split_once('_')) else {
            return Ok(None);
        };
        let sql = format!("SELECT {COLUMNS}, hash FROM keys WHERE id = ?1");
        let mut query = self.conn.prepare_cached(&sql)?;
        let mut rows = query.query([id])?;
        let Some(r) = rows.next()? else { return Ok(None) };
        let kept: [u8; 32] = r.get(7)?;
        // Comparing two `Hash`es takes the same time wherever they differ.
        let same = blake3::hash(secret.as_bytes()) == blake3::Hash::from_bytes(kept);
        let key = info(r)?;
        Ok(Some(key).filter(|k| same && k.revoked_at.is_none()))
    }

    /// The hash of a valid key's secret part, for a proof that this is known here.
    ///
    /// # Errors
    /// [`StoreError`] when the keys cannot be read.
    pub fn hash_of(&self, id: &str) -> Result<Option<[u8; 32]>, StoreError> {
        let sql = "SELECT hash FROM keys WHERE id = ?1 AND revoked_at IS NULL";
        Ok(self.conn.prepare_cached(sql)?.query_row([id], |r| r.get(0)).optional()?)
    }

    /// Grows with every change of the keys, by whatever process; cheap, for those who cache.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub fn keys_version(&self) -> Result<u64, StoreError> {
        let sql = "SELECT value FROM meta WHERE key = 'keys_version'";
        let version: Option<i64> =
            self.conn.prepare_cached(sql)?.query_row([], |r| r.get(0)).optional()?;
        db::uint(version.unwrap_or(0))
    }

    fn change(&self, sql: &str, params: impl rusqlite::Params) -> Result<usize, StoreError> {
        // Immediate: a transaction that begins by reading may not wait for another writer.
        self.conn.execute_batch("BEGIN IMMEDIATE")?;
        let result = self.conn.execute(sql, params).and_then(|changed| {
            self.conn.execute_batch(
                "INSERT INTO meta VALUES ('keys_version', 1)
                     ON CONFLICT DO UPDATE SET value = value + 1;
                 COMMIT",
            )?;
            Ok(changed)
        });
        if result.is_err() && !self.conn.is_autocommit() {
            self.conn.execute_batch("ROLLBACK")?;
        }
        Ok(result?)
    }
}

fn info(r: &Row<'_>) -> Result<KeyInfo, StoreError> {
    let word: String = r.get(2)?;
    let role = Role::parse(&word).ok_or_else(|| StoreError::damaged("unknown role", &word))?;
    Ok(KeyInfo {
        id: r.get(0)?,
        name: r.get(1)?,
        role,
        created_at: r.get(3)?,
        revoked_at: r.get(4)?,
        limits: KeyLimits {
            workers: match r.get::<_, Option<String>>(5)? {
                Some(json) => serde_json::from_str(&json)
                    .map_err(|e| StoreError::damaged("a key's workers", e))?,
                None => Vec::new(),
            },
            own_tasks: r.get(6)?,
        },
    })
}

fn hex<const N: usize>() -> Result<String, StoreError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| StoreError::Io {
        detail: format!("no random numbers: {e}"),
        transient: true,
    })?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
