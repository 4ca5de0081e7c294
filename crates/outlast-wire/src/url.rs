//! The coordinator's address as users write it.

/// The port of a coordinator, without TLS, where none is written.
const DEFAULT: u16 = 7117;
/// The same with TLS: what is at an `https` address without a port is a proxy, mostly.
const HTTPS: u16 = 443;

/// A coordinator's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// True for TLS.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Without one: 443 with TLS, as everywhere; 7117 without.
    pub port: u16,
    /// Path before `/api`; empty, or begins with a slash and does not end with one.
    pub prefix: String,
}

impl Url {
    /// Reads `http[s]://host[:port][/prefix]`; `ws[s]` means the same, no scheme means `http`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Url, String> {
        let bad = |why: &str| {
            Err(format!("{text:?} is no coordinator address ({why}); write http://host:7117"))
        };
        let (tls, rest) = match text.trim().split_once("://") {
            Some(("http" | "ws", rest)) => (false, rest),
            Some(("https" | "wss", rest)) => (true, rest),
            Some(_) => return bad("its scheme is neither http nor https"),
            None => (false, text.trim()),
        };
        let (authority, prefix) = match rest.find('/') {
            Some(at) => (&rest[..at], rest[at..].trim_end_matches('/')),
            None => (rest, ""),
        };
        if authority.contains('@') || prefix.contains(['?', '#', ' ']) {
            return bad("it has a user, query or fragment");
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => match v6.split_once(']') {
                Some((host, port)) => (host, port.strip_prefix(':')),
                None => return bad("a bracket is missing"),
            },
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() {
            return bad("it names no host");
        }
        let port = match port.map(str::parse) {
            None if tls => HTTPS,
            None => DEFAULT,
            Some(Ok(port)) if port != 0 => port,
            Some(_) => return bad("its port is no number from 1 to 65535"),
        };
        Ok(Url { tls, host: host.into(), port, prefix: prefix.into() })
    }

    /// `host:port`.
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// `http[s]://host:port/prefix`.
    pub fn http(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, http) in [
            ("localhost", "http://localhost:7117"),
            ("wss://a.b:443/x/", "https://a.b:443/x"),
            ("https://a.b", "https://a.b:443"),
            ("wss://a.b/x", "https://a.b:443/x"),
            ("https://a.b:7117", "https://a.b:7117"),
            ("http://a.b", "http://a.b:7117"),
            ("https://[::1]", "https://[::1]:443"),
            ("http://[::1]:80", "http://[::1]:80"),
        ] {
            assert_eq!(Url::parse(text).unwrap().http(), http);
        }
        for text in ["", "ftp://a", "http://", "http://a:b", "http://a:0", "u@h", "http://[::1"] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }
}
