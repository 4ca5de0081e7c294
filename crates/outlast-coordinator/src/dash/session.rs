//! Sessions of browsers: a random cookie that stands for an API key. In memory only, so that a
//! restart logs everybody out; a session ends with its key.

use axum::http::{HeaderMap, header};
use parking_lot::Mutex;
use std::collections::HashMap;
use uuid::Uuid;

/// Sessions at a time; a further one ends the one that was used longest ago.
const SESSIONS: usize = 256;
/// Sessions of one key at a time, so that who has one cannot log out everybody else.
const PER_KEY: usize = 16;
/// Lifetime of a session, in milliseconds: twelve hours.
const LIFETIME: i64 = 12 * 3600 * 1000;
/// Lifetime of a session that is not used, in milliseconds: two hours.
const IDLE: i64 = 2 * 3600 * 1000;

struct Open {
    key: String,
    ends: i64,
    used: i64,
}

impl Open {
    fn over(&self, now: i64) -> bool {
        now >= self.ends || now - self.used >= IDLE
    }
}

pub(crate) struct Sessions {
    /// Name of the cookie: of this coordinator's own, since browsers share cookies among ports.
    pub cookie: String,
    secure: bool,
    open: Mutex<HashMap<String, Open>>,
}

impl Sessions {
    pub fn new(coordinator_id: &str, secure: bool) -> Sessions {
        let id: String = coordinator_id.chars().filter(char::is_ascii_alphanumeric).collect();
        // The prefix makes browsers insist on TLS, and on this host.
        let prefix = if secure { "__Host-" } else { "" };
        let cookie = format!("{prefix}outlast-{}", id.get(..8).unwrap_or(&id));
        Sessions { cookie, secure, open: Mutex::default() }
    }

    /// Opens one: the cookie to set, and when it ends.
    pub fn open(&self, key: &str, now: i64) -> (String, i64) {
        // 244 random bits of the system.
        let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let ends = now + LIFETIME;
        let mut open = self.open.lock();
        open.retain(|_, s| !s.over(now));
        let mut of_key = open.values().filter(|s| s.key == key).count();
        while of_key >= PER_KEY || open.len() >= SESSIONS {
            let of = |s: &Open| of_key < PER_KEY || s.key == key;
            let oldest = open.iter().filter(|(_, s)| of(s)).min_by_key(|(_, s)| s.used);
            let Some(oldest) = oldest.map(|(t, _)| t.clone()) else { break };
            let ended = open.remove(&oldest);
            of_key -= usize::from(ended.is_some_and(|s| s.key == key));
        }
        open.insert(token.clone(), Open { key: key.into(), ends, used: now });
        (self.set(&token, LIFETIME / 1000), ends)
    }

    /// The key that a session stands for.
    pub fn key(&self, token: &str, now: i64) -> Option<String> {
        let mut open = self.open.lock();
        let session = open.get_mut(token)?;
        if session.over(now) {
            open.remove(token);
            return None;
        }
        session.used = now;
        Some(session.key.clone())
    }

    pub fn ends(&self, token: &str) -> Option<i64> {
        self.open.lock().get(token).map(|s| s.ends)
    }

    pub fn close(&self, token: &str) {
        self.open.lock().remove(token);
    }

    /// Removes the cookie.
    pub fn blank(&self) -> String {
        self.set("", 0)
    }

    fn set(&self, token: &str, seconds: i64) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        let name = &self.cookie;
        format!("{name}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}")
    }
}

/// The value of a cookie of this name.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut pairs = lines.flat_map(|l| l.split(';')).filter_map(|p| p.trim().split_once('='));
    pairs.find(|(n, _)| *n == name).map(|(_, v)| v)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(cookie: &str) -> &str {
        cookie.split_once('=').unwrap().1.split_once(';').unwrap().0
    }

    #[test]
    fn sessions_end_by_time_idleness_and_number() {
        let sessions = Sessions::new("01234567-89ab", false);
        let (cookie, ends) = sessions.open("key", 0);
        let first = token(&cookie);
        assert_eq!((first.len(), ends), (64, LIFETIME));
        assert_eq!(sessions.key(first, IDLE - 1).as_deref(), Some("key"));
        assert_eq!(sessions.key(first, 2 * IDLE), None, "not used for two hours");
        let (cookie, _) = sessions.open("key", 0);
        let long = token(&cookie);
        for hour in 1..12 {
            assert!(sessions.key(long, hour * 3600 * 1000).is_some());
        }
        assert_eq!(sessions.key(long, LIFETIME), None, "twelve hours are over");
        let (cookie, _) = sessions.open("old", 1);
        for n in 0..SESSIONS as i64 {
            sessions.open(&format!("new {}", n % 32), 2 + n);
        }
        assert_eq!(sessions.key(token(&cookie), 500), None, "made room");
        assert_eq!(sessions.open.lock().len(), SESSIONS);
    }

    #[test]
    fn a_key_ends_its_own_sessions_and_nobody_elses() {
        let sessions = Sessions::new("01234567-89ab", false);
        let (other, _) = sessions.open("other", 0);
        let (first, _) = sessions.open("busy", 1);
        let (second, _) = sessions.open("busy", 2);
        for n in 2..PER_KEY as i64 + 1 {
            sessions.open("busy", 1 + n);
        }
        assert_eq!(sessions.key(token(&first), 100), None, "its oldest made room");
        assert!(sessions.key(token(&second), 100).is_some());
        for n in 0..1000 {
            sessions.open("busy", 200 + n);
        }
        assert!(sessions.key(token(&other), 2000).is_some());
        assert_eq!(sessions.open.lock().len(), PER_KEY + 1);
    }

    #[test]
    fn cookies_are_strict_and_found_by_name() {
        let plain = Sessions::new("01234567-89ab", false);
        assert_eq!(plain.cookie, "outlast-01234567");
        let (cookie, _) = plain.open("k", 0);
        assert!(cookie.contains("HttpOnly; SameSite=Strict") && !cookie.contains("Secure"));
        let tls = Sessions::new("01234567-89ab", true);
        assert!(tls.cookie.starts_with("__Host-") && tls.open("k", 0).0.ends_with("; Secure"));
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=1; outlast-01234567=x; b=2".parse().unwrap());
        assert_eq!(super::cookie(&headers, &plain.cookie), Some("x"));
        assert_eq!(super::cookie(&headers, "outlast"), None);
    }
}
