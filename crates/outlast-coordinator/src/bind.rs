//! Binding the listening address, which a predecessor may still hold.

use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Duration, Instant, sleep};

/// Connections that wait in the kernel; it takes its own `net.core.somaxconn` where that is less.
const BACKLOG: u32 = 16_384;
/// Time that an address in use is tried again: a crashed predecessor may be going away.
const BIND_PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two tries.
const AGAIN: Duration = Duration::from_millis(200);

/// Listens at an address; waits a while for one that is in use, and says so at once.
///
/// # Errors
/// Why it cannot be bound; one that stays in use names its owner where that can be known.
pub(crate) async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let deadline = Instant::now() + BIND_PATIENCE;
    let mut said = false;
    loop {
        let error = match listen(addr) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
            other => return other,
        };
        if Instant::now() >= deadline {
            let by = owner(addr.port()).map(|by| format!(" by {by}")).unwrap_or_default();
            return Err(io::Error::new(error.kind(), format!("the address is in use{by}")));
        }
        if !said {
            said = true;
            let by = owner(addr.port()).map(|by| format!(" by {by}")).unwrap_or_default();
            tracing::warn!(
                "{addr} is in use{by}: waiting up to {} s for it to become free; Ctrl-C ends this",
                BIND_PATIENCE.as_secs()
            );
        }
        sleep(AGAIN).await;
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The address may still be in TIME_WAIT.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// The process that listens at this port, as `name (process 123)`; none where the system does not
/// say, as of processes of other users.
fn owner(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let tables = tables.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    let tables: Vec<String> = tables.collect();
    let inodes = tables.iter().flat_map(|t| t.lines()).filter_map(|line| listening(line, port));
    let sockets: Vec<String> = inodes.map(|inode| format!("socket:[{inode}]")).collect();
    if sockets.is_empty() {
        return None;
    }
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(open) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let holds = open.flatten().any(|fd| {
            let link = std::fs::read_link(fd.path());
            link.is_ok_and(|l| sockets.iter().any(|socket| l.as_os_str() == socket.as_str()))
        });
        if holds {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            // A process chooses its name: no escapes into a terminal.
            let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
            return Some(format!("{name} (process {pid})"));
        }
    }
    None
}

/// The inode of a line of `/proc/net/tcp` that is a socket listening at this port.
fn listening(line: &str, port: u16) -> Option<&str> {
    let mut words = line.split_whitespace();
    let (local, state) = (words.nth(1)?, words.nth(1)?);
    let (_, at) = local.rsplit_once(':')?;
    let listens = state == "0A" && u16::from_str_radix(at, 16).ok()? == port;
    if listens { words.nth(5) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_is_found_by_its_port() {
        let line = "   0: 0100007F:1BCD 00000000:0000 0A 00000000:00000000 00:00000000 00000000  \
                    1000        0 424242 1 0000000000000000 100 0 0 10 0";
        assert_eq!(listening(line, 7117), Some("424242"));
        assert_eq!(listening(line, 7118), None);
        assert_eq!(listening(&line.replace(" 0A ", " 01 "), 7117), None, "a connection");
        assert_eq!(listening("  sl  local_address rem_address   st tx_queue", 7117), None);
    }

    #[tokio::test]
    async fn an_address_that_becomes_free_is_taken_and_its_owner_is_known_meanwhile() {
        let former = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = former.local_addr().unwrap();
        if cfg!(target_os = "linux") {
            let by = owner(addr.port()).expect("our own sockets can be seen");
            assert!(by.ends_with(&format!("(process {})", std::process::id())), "{by}");
        }
        let (bound, ()) = tokio::join!(bind(addr), async {
            sleep(AGAIN * 2).await;
            drop(former);
        });
        assert_eq!(bound.unwrap().local_addr().unwrap(), addr);
    }
}
