//! The proxy that the environment asks for. Named in errors, since few know that they have one;
//! never used for this machine's own addresses.

use outlast_wire::Url;
use std::net::IpAddr;

/// A proxy, and the variable that asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Via {
    /// The value of the variable, which may hold a password.
    pub url: String,
    /// The variable's name.
    pub variable: &'static str,
}

impl Via {
    /// Returns the proxy for this address, by the environment that `variable` reads.
    pub fn of(url: &Url, variable: impl Fn(&str) -> Option<String>) -> Option<Via> {
        if is_loopback(&url.host) {
            return None;
        }
        let get = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let none = get("no_proxy").or_else(|| get("NO_PROXY")).unwrap_or_default();
        if none.split(',').any(|entry| excludes(entry.trim(), &url.host)) {
            return None;
        }
        let names: &[&'static str] = match url.tls {
            true => &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
            // The upper case one could be a header of a request to a CGI program.
            false if get("REQUEST_METHOD").is_some() => &["http_proxy", "all_proxy", "ALL_PROXY"],
            false => &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
        };
        names.iter().find_map(|name| Some(Via { url: get(name)?, variable: name }))
    }

    /// Host and port, without a name or password; and the variable.
    pub fn named(&self) -> String {
        let rest = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        format!("the proxy {host} ({})", self.variable)
    }
}

/// Returns whether a name or address is of this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Returns whether an entry of NO_PROXY is about this host: `*`, a name, a domain, an address, a network.
fn excludes(entry: &str, host: &str) -> bool {
    let entry = entry.trim_start_matches('.').to_ascii_lowercase();
    let host = host.to_ascii_lowercase();
    if entry == "*" || (!entry.is_empty() && (entry == host)) {
        return true;
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return network(&entry, ip.to_canonical()).unwrap_or(false);
    }
    !entry.is_empty() && host.strip_suffix(&entry).is_some_and(|rest| rest.ends_with('.'))
}

fn network(entry: &str, ip: IpAddr) -> Option<bool> {
    let Some((base, bits)) = entry.split_once('/') else {
        return Some(entry.parse::<IpAddr>().ok()?.to_canonical() == ip);
    };
    let (base, bits) = (base.parse::<IpAddr>().ok()?, bits.parse::<u32>().ok()?);
    let (base, ip, width) = match (base, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return None,
    };
    let shift = u32::checked_sub(width, bits)?;
    Some(shift >= 128 || base >> shift == ip >> shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via(url: &str, env: &[(&str, &str)]) -> Option<&'static str> {
        let url = Url::parse(url).unwrap();
        let read = |name: &str| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Via::of(&url, read).map(|via| via.variable)
    }

    #[test]
    fn this_machine_is_reached_without_a_proxy() {
        let all = [("HTTP_PROXY", "http://p"), ("ALL_PROXY", "http://p"), ("https_proxy", "p:1")];
        for url in [
            "http://127.0.0.1:7117",
            "localhost",
            "https://localhost:1",
            "http://[::1]:7117",
            "http://127.9.9.9",
            "http://[::ffff:127.0.0.1]:1",
            "http://a.localhost:1",
        ] {
            assert_eq!(via(url, &all), None, "{url}");
        }
        assert_eq!(via("http://hub:7117", &all), Some("HTTP_PROXY"));
        assert_eq!(via("https://hub:7117", &all), Some("https_proxy"));
        assert_eq!(via("https://hub", &[("ALL_PROXY", "p")]), Some("ALL_PROXY"));
        assert_eq!(via("http://hub", &[("HTTP_PROXY", " "), ("HTTPS_PROXY", "p")]), None);
        let cgi = [("HTTP_PROXY", "http://evil"), ("REQUEST_METHOD", "GET")];
        assert_eq!(via("http://hub", &cgi), None);
    }

    #[test]
    fn no_proxy_names_hosts_domains_and_networks() {
        let proxied = |none: &str, host: &str| {
            via(&format!("http://{host}:1"), &[("http_proxy", "p"), ("NO_PROXY", none)]).is_some()
        };
        for (none, host) in [
            ("*", "hub"),
            ("hub", "hub"),
            ("a, .example.org", "hub.example.org"),
            ("example.org", "Hub.Example.Org"),
            ("10.0.0.0/8", "10.1.2.3"),
            ("10.1.2.3", "10.1.2.3"),
            ("fd00::/8", "[fd12::1]"),
        ] {
            assert!(!proxied(none, host), "{none} {host}");
        }
        for (none, host) in [
            ("", "hub"),
            (",", "hub"),
            ("ub", "hub"),
            ("example.org", "badexample.org"),
            ("10.0.0.0/8", "11.1.2.3"),
            ("10.0.0.0/99", "10.1.2.3"),
            ("fd00::/8", "10.1.2.3"),
        ] {
            assert!(proxied(none, host), "{none} {host}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let via = Via { url: "http://me:secret@p.example:3128/".into(), variable: "HTTP_PROXY" };
        assert_eq!(via.named(), "the proxy p.example:3128 (HTTP_PROXY)");
    }
}
