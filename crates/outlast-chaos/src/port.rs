//! Free ports for servers that tests and demonstrations stop and start again.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use rand::Rng;

/// Ports below those that Linux gives to outgoing connections and to port 0 (32768 and up, by
/// `net.ipv4.ip_local_port_range`), and above those of well-known servers.
const RANGE: std::ops::Range<u16> = 15_000..32_000;
const TRIES: usize = 100;

/// Returns a TCP port of 127.0.0.1 that nothing listens on.
///
/// Unlike a port that port 0 yields, no outgoing connection occupies it while its server is down.
///
/// # Errors
/// The last error of binding a port, after 100 tries.
pub fn free_port() -> io::Result<u16> {
    let mut failed = io::Error::other("no port was tried");
    for _ in 0..TRIES {
        let port = rand::rng().random_range(RANGE);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_outside_the_range_of_outgoing_connections() {
        for _ in 0..50 {
            let port = free_port().unwrap();
            assert!(RANGE.contains(&port));
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }
}
