//! API keys and roles: checked against the store and remembered for a second.

use crate::problem::Refusal;
use axum::http::{HeaderMap, StatusCode, header};
use outlast_core::coord::Principal;
use outlast_store::{KeyInfo, Keys, Role, StoreError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Time that an answer of the store is trusted.
const FRESH: Duration = Duration::from_secs(1);
/// Tokens remembered.
const REMEMBERED: usize = 1024;
/// No key is longer, in bytes: strangers must not choose how much is remembered.
const MAX_TOKEN: usize = 256;

/// The key of a request; none where no key is needed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Who(Option<Arc<KeyInfo>>);

impl Who {
    /// Checks that a worker of this name may connect with the key.
    pub fn may_be(&self, worker: &str) -> Result<(), Refusal> {
        let Some(key) = self.0.as_ref().filter(|key| !key.limits.allows_worker(worker)) else {
            return Ok(());
        };
        let detail = format!(
            "the API key {:?} is for workers named {}; this one is called {worker:?}",
            key.name,
            key.limits.workers.join(", ")
        );
        let title = "this API key does not allow that worker";
        Err(Refusal::new(StatusCode::FORBIDDEN, "wrong-worker", title, &detail))
    }
    /// Returns the principal that a worker of this key is bound to.
    pub fn principal(&self) -> Principal {
        self.0.as_ref().map_or_else(Principal::default, |key| Principal {
            name: key.name.as_str().into(),
            operator: key.role == Role::Operate,
        })
    }
    /// The key's public part; empty where no key is needed.
    pub fn key_id(&self) -> &str {
        self.0.as_ref().map_or("", |key| &key.id)
    }
    /// Returns whether the key may read everything.
    pub fn may_read_all(&self) -> bool {
        self.0.as_ref().is_none_or(|key| key.role == Role::Operate)
    }
    /// Returns the owner of tasks that are submitted with the key.
    pub fn owner(&self) -> Option<Arc<str>> {
        self.0.as_ref().map(|key| key.name.as_str().into())
    }
    /// The owner of all tasks that may be seen and changed; none: all may.
    pub fn only(&self) -> Option<&str> {
        let key = self.0.as_ref().filter(|key| key.limits.own_tasks);
        key.map(|key| key.name.as_str())
    }
}

pub(crate) struct Auth {
    state: Mutex<State>,
    /// Wakes when the keys have changed.
    changed: watch::Sender<()>,
}

struct State {
    keys: Keys,
    /// A key exists; then every request needs one.
    needed: bool,
    version: Option<u64>,
    checked: Option<Instant>,
    known: HashMap<String, Option<Arc<KeyInfo>>>,
    /// Requests that were refused, and when that was last logged.
    refused: u64,
    logged: Option<Instant>,
}

impl Auth {
    pub fn new(keys: Keys) -> Result<Auth, StoreError> {
        let needed = !keys.list_keys()?.is_empty();
        let (version, checked, known) = (None, None, HashMap::new());
        let (refused, logged) = (0, None);
        let state = State { keys, needed, version, checked, known, refused, logged };
        Ok(Auth { state: Mutex::new(state), changed: watch::channel(()).0 })
    }

    /// Returns whether a key is needed.
    pub fn needed(&self) -> bool {
        let mut state = self.state.lock();
        // When the keys cannot be read nobody is admitted.
        self.refresh(&mut state).is_err() || state.needed
    }

    fn refresh(&self, state: &mut State) -> Result<(), StoreError> {
        if state.refresh()? {
            self.changed.send_replace(());
        }
        Ok(())
    }

    /// Lets a request pass or says why not.
    pub fn check(&self, headers: &HeaderMap, role: Role) -> Result<Who, Refusal> {
        let checked = self.judge(Self::token(headers), role);
        if let Err(refusal) = &checked {
            self.log("a request", refusal);
        }
        checked
    }

    /// The same, and nothing goes to the log: somebody else will check.
    pub fn who(&self, headers: &HeaderMap, role: Role) -> Result<Who, Refusal> {
        self.judge(Self::token(headers), role)
    }

    /// Refusals go to the log, a line a second at most.
    pub fn log(&self, what: &str, refusal: &Refusal) {
        let mut state = self.state.lock();
        state.refused += 1;
        if state.logged.is_none_or(|at| at.elapsed() >= FRESH) {
            let (title, count) = (&refusal.problem.title, state.refused);
            tracing::warn!("SECURITY {what} was refused: {title} ({count} since the start)");
            state.logged = Some(Instant::now());
        }
    }

    fn judge(&self, token: Option<&str>, role: Role) -> Result<Who, Refusal> {
        let mut state = self.state.lock();
        let unreadable = |e: StoreError| Refusal::store(&e.to_string());
        self.refresh(&mut state).map_err(unreadable)?;
        if !state.needed {
            return Ok(Who::default());
        }
        let Some(token) = token else {
            return Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "no-key",
                "an API key is needed",
                "send `Authorization: Bearer <key>`; `outlast keys add` makes one, and the \
                 command line reads it from OUTLAST_API_KEY",
            ));
        };
        match state.key(token).map_err(unreadable)? {
            None => Err(Refusal::wrong_key()),
            Some(key) if key.role.allows(role) => Ok(Who(Some(key))),
            Some(key) => Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "wrong-role",
                "this API key does not allow that",
                &format!("its role is {}, this needs {}", key.role.as_str(), role.as_str()),
            )),
        }
    }

    /// The key that a request carries. The scheme's name may be in any case (RFC 9110, 11.1).
    pub fn token(headers: &HeaderMap) -> Option<&str> {
        let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = text.trim_start().split_once(' ')?;
        scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
    }

    /// Returns whether this may be a key at all.
    pub fn plausible(token: &str) -> bool {
        token.len() <= MAX_TOKEN
    }

    /// Returns the role of a key; none when it is not valid.
    pub fn role(&self, token: &str) -> Result<Option<Role>, Refusal> {
        let mut state = self.state.lock();
        let key = self.refresh(&mut state).and_then(|()| state.key(token));
        Ok(key.map_err(|e| Refusal::store(&e.to_string()))?.map(|key| key.role))
    }

    /// The hash of the secret part of a valid key.
    pub fn hash_of(&self, id: &str) -> Result<Option<[u8; 32]>, Refusal> {
        let hash = self.state.lock().keys.hash_of(id);
        hash.map_err(|e| Refusal::store(&e.to_string()))
    }
}

impl State {
    /// Reads the keys again if they may have changed; returns whether they have.
    fn refresh(&mut self) -> Result<bool, StoreError> {
        if self.checked.is_some_and(|at| at.elapsed() < FRESH) {
            return Ok(false);
        }
        let version = self.keys.keys_version()?;
        let changed = self.version != Some(version);
        if changed {
            self.known.clear();
            self.needed = !self.keys.list_keys()?.is_empty();
            self.version = Some(version);
        }
        self.checked = Some(Instant::now());
        Ok(changed)
    }

    fn key(&mut self, token: &str) -> Result<Option<Arc<KeyInfo>>, StoreError> {
        if !Auth::plausible(token) {
            return Ok(None);
        }
        if let Some(key) = self.known.get(token) {
            return Ok(key.clone());
        }
        let key = self.keys.verify(token)?.map(Arc::new);
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(token.to_owned(), key.clone());
        Ok(key)
    }
}

/// Reads the keys again now and then, for those who wait for their change.
pub(crate) async fn watch_keys(auth: Weak<Auth>) {
    while let Some(auth) = auth.upgrade() {
        auth.needed();
        drop(auth);
        tokio::time::sleep(FRESH).await;
    }
}

/// The key of a link or a stream, which ends when the key would not be accepted any more.
pub(crate) struct Pass {
    auth: Arc<Auth>,
    token: Option<String>,
    role: Role,
    who: Who,
    changed: watch::Receiver<()>,
}

impl Pass {
    /// Lets a request pass, or says why not.
    pub fn check(auth: &Arc<Auth>, headers: &HeaderMap, role: Role) -> Result<Pass, Refusal> {
        // First: a change after the check must be seen.
        let changed = auth.changed.subscribe();
        let who = auth.check(headers, role)?;
        let token = Auth::token(headers).map(str::to_owned);
        Ok(Pass { auth: auth.clone(), token, role, who, changed })
    }

    /// Returns the key.
    pub fn who(&self) -> &Who {
        &self.who
    }

    /// Waits until it does not hold any more, and says why.
    pub async fn ended(&self) -> String {
        let mut changed = self.changed.clone();
        while changed.changed().await.is_ok() {
            let judged = self.auth.judge(self.token.as_deref(), self.role);
            // That the keys cannot be read is no reason.
            if let Err(refusal) = judged
                && matches!(refusal.problem.status, 401 | 403)
            {
                return refusal.problem.title;
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_may_be_in_any_case() {
        let token = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, text.parse().unwrap());
            Auth::token(&headers).map(str::to_owned)
        };
        for good in ["Bearer k", "bearer k", "BEARER  k "] {
            assert_eq!(token(good).as_deref(), Some("k"), "{good:?}");
        }
        for bad in ["Basic k", "k", "Bearerk", ""] {
            assert_eq!(token(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn tokens_that_are_too_long_are_refused_and_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(&dir.path().join("coordinator.db")).unwrap();
        let key = keys.add_key("k", Role::Submit).unwrap();
        let auth = Auth::new(keys).unwrap();
        assert_eq!(auth.role(&key.token).unwrap(), Some(Role::Submit));
        let long = "x".repeat(MAX_TOKEN + 1);
        assert_eq!(auth.role(&long).unwrap(), None);
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {long}").parse().unwrap());
        assert!(auth.check(&headers, Role::Submit).is_err());
        assert_eq!(auth.role(&long[1..]).unwrap(), None);
        let known: Vec<usize> = auth.state.lock().known.keys().map(String::len).collect();
        assert_eq!((known.len(), known.iter().max()), (2, Some(&MAX_TOKEN)));
    }
}
