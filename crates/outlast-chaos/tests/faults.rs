//! Every fault, seen through real sockets.

use outlast_chaos::{Handle, Proxy};
use std::io::ErrorKind;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(120);

/// A proxy before a server that sends back what it gets.
async fn echo() -> (Proxy, Handle) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = server.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    let proxy = Proxy::bind("127.0.0.1:0", &addr.to_string()).await.unwrap();
    let handle = proxy.handle();
    (proxy, handle)
}

async fn dial(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.local_addr()).await.unwrap()
}

async fn ask(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(text).await?;
    let mut answer = vec![0; text.len()];
    timeout(LONG, stream.read_exact(&mut answer)).await??;
    Ok(answer)
}

async fn is_reset(stream: &mut TcpStream) -> bool {
    let read = timeout(LONG, stream.read(&mut [0; 64])).await.expect("nothing happened");
    read.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn without_faults_bytes_and_ends_pass() {
    let (proxy, handle) = echo().await;
    let mut stream = dial(&proxy).await;
    let data = vec![7; 300_000];
    let (mut read, mut write) = stream.split();
    let (_, got) = tokio::join!(
        async {
            write.write_all(&data).await.unwrap();
            write.shutdown().await.unwrap();
        },
        async {
            let mut got = Vec::new();
            timeout(LONG, read.read_to_end(&mut got)).await.unwrap().unwrap();
            got
        }
    );
    assert_eq!(got, data);
    let stats = handle.stats();
    assert_eq!((stats.bytes_up, stats.bytes_down, stats.resets), (300_000, 300_000, 0));
}

#[tokio::test]
async fn cut_resets_what_is_open_and_refuses_the_rest() {
    let (proxy, handle) = echo().await;
    let mut stream = dial(&proxy).await;
    ask(&mut stream, b"hi").await.unwrap();
    handle.set("cut".parse().unwrap());
    assert!(is_reset(&mut stream).await);
    // It may even be reset while it connects.
    if let Ok(mut refused) = TcpStream::connect(proxy.local_addr()).await {
        assert!(is_reset(&mut refused).await);
    }
    handle.heal();
    assert_eq!(ask(&mut dial(&proxy).await, b"back").await.unwrap(), b"back");
}

#[tokio::test]
async fn refuse_leaves_what_is_open() {
    let (proxy, handle) = echo().await;
    let mut stream = dial(&proxy).await;
    ask(&mut stream, b"hi").await.unwrap();
    handle.set("refuse".parse().unwrap());
    if let Ok(mut refused) = TcpStream::connect(proxy.local_addr()).await {
        assert!(is_reset(&mut refused).await);
    }
    assert_eq!(ask(&mut stream, b"still").await.unwrap(), b"still");
    assert_eq!(handle.stats().refused, 1);
}

#[tokio::test]
async fn half_open_swallows_and_resets_when_it_ends() {
    let (proxy, handle) = echo().await;
    let (mut used, mut quiet) = (dial(&proxy).await, dial(&proxy).await);
    ask(&mut used, b"hi").await.unwrap();
    ask(&mut quiet, b"hi").await.unwrap();
    handle.set("up:half-open".parse().unwrap());
    used.write_all(b"into the void").await.unwrap();
    let read = timeout(Duration::from_millis(300), used.read(&mut [0; 8])).await;
    assert!(read.is_err(), "nothing comes back, and nothing ends");
    handle.heal();
    assert!(is_reset(&mut used).await);
    assert_eq!(ask(&mut quiet, b"fine").await.unwrap(), b"fine", "it lost nothing");
    assert_eq!(handle.stats().swallowed, 13);
}

#[tokio::test]
async fn stall_keeps_every_byte() {
    let (proxy, handle) = echo().await;
    let mut stream = dial(&proxy).await;
    handle.set("down:stall".parse().unwrap());
    stream.write_all(b"later").await.unwrap();
    let mut buffer = [0; 5];
    let read = timeout(Duration::from_millis(200), stream.read_exact(&mut buffer)).await;
    assert!(read.is_err());
    handle.heal();
    timeout(LONG, stream.read_exact(&mut buffer)).await.unwrap().unwrap();
    assert_eq!(&buffer, b"later");
}

#[tokio::test]
async fn delay_and_bandwidth_take_their_time() {
    let (proxy, handle) = echo().await;
    let mut stream = dial(&proxy).await;
    handle.set("up:delay=150ms~50ms".parse().unwrap());
    let start = Instant::now();
    ask(&mut stream, b"slow").await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(100));
    handle.set("down:bandwidth=20kB".parse().unwrap());
    let start = Instant::now();
    ask(&mut stream, &[1; 10_000]).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(400));
}

#[tokio::test]
async fn corrupt_flips_bits_one_way() {
    let (proxy, handle) = echo().await;
    let mut stream = dial(&proxy).await;
    handle.set("down:corrupt".parse().unwrap());
    let answer = ask(&mut stream, &[0; 100]).await.unwrap();
    let flipped: u32 = answer.iter().map(|b| b.count_ones()).sum();
    assert!(flipped >= 1 && u64::from(flipped) == handle.stats().corrupted);
}

#[tokio::test]
async fn truncate_ends_in_the_middle() {
    let (proxy, handle) = echo().await;
    handle.set("up:truncate=10B".parse().unwrap());
    let mut stream = dial(&proxy).await;
    stream.write_all(&[9; 100]).await.unwrap();
    let mut got = Vec::new();
    let end = timeout(LONG, stream.read_to_end(&mut got)).await.unwrap();
    assert!(end.is_err() && got.len() <= 10);
}

#[tokio::test]
async fn slow_close_tells_late() {
    let (proxy, handle) = echo().await;
    handle.set("up:slow-close=300ms".parse().unwrap());
    let mut stream = dial(&proxy).await;
    ask(&mut stream, b"hi").await.unwrap();
    let start = Instant::now();
    stream.shutdown().await.unwrap();
    let read = timeout(LONG, stream.read(&mut [0; 8])).await.unwrap();
    assert_eq!(read.unwrap(), 0);
    assert!(start.elapsed() >= Duration::from_millis(250));
}

#[tokio::test]
async fn shutdown_and_an_upstream_that_is_gone() {
    let (proxy, _) = echo().await;
    let mut stream = dial(&proxy).await;
    ask(&mut stream, b"hi").await.unwrap();
    proxy.shutdown().await;
    assert!(is_reset(&mut stream).await);
    let gone = Proxy::bind("127.0.0.1:0", "127.0.0.1:1").await.unwrap();
    assert!(is_reset(&mut dial(&gone).await).await);
}
