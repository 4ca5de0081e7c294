//! Free ports for servers that tests and demonstrations stop and start again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rand::Rng;

/// Ports below those that Linux gives to outgoing connections and to port 0 (32768 and up, by
/// `net.ipv4.ip_local_port_range`), and above those of well-known servers.
const RANGE: std::ops::Range<u16> = 15_000..32_000;
const TRIES: usize = 100;

/// Returns an address of 127.0.0.1 with a TCP port that nothing listens on.
///
/// Unlike a port that port 0 yields, no outgoing connection occupies it while its server is down.
///
/// # Errors
/// The last error of binding a port, after 100 tries.
pub fn free_address() -> io::Result<SocketAddr> {
    let mut failed = io::Error::other("no port was tried");
    for _ in 0..TRIES {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, rand::rng().random_range(RANGE)));
        match TcpListener::bind(at) {
            Ok(_) => return Ok(at),
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
            let at = free_address().unwrap();
            assert!(RANGE.contains(&at.port()));
            TcpListener::bind(at).unwrap();
        }
    }
}
