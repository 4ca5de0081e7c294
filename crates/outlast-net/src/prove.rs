//! The challenge that a coordinator answers before it is sent a key, on the connection that the key goes
//! over: so nobody can come in between.

use crate::io::Io;
use outlast_wire::local::Said;
use outlast_wire::proof::{Challenge, Proof};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Time for which the answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest head of an answer, and the longest answer, in bytes.
const MAX_HEAD: usize = 16 << 10;
const MAX_BODY: usize = 64 << 10;

/// Returns the answer, and true if the connection cannot be used any more.
pub(crate) async fn ask(
    stream: &mut dyn Io,
    (authority, prefix): (&str, &str),
    token: &str,
) -> io::Result<(Said, bool)> {
    let Some(challenge) = Challenge::new(token) else { return Ok((Said::Nothing, false)) };
    let at = challenge.path();
    let request = format!("GET {prefix}{at} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    let exchange = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        answer(stream).await
    };
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer to the challenge");
    let Answer { status, body, over } =
        tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| late())??;
    let said = match (status, serde_json::from_slice::<Proof>(&body)) {
        (200, Ok(proof)) if proof.proof.is_empty() => Said::NoKeys,
        (200, Ok(proof)) if challenge.is_proven(token, &proof) => Said::Proof,
        (200, _) | (403, _) => Said::Unknown,
        // It may be able to soon.
        (429 | 500..=599, _) => {
            return Err(io::Error::other(format!("it answered {status} to the challenge")));
        }
        _ => Said::Nothing,
    };
    Ok((said, over))
}

struct Answer {
    status: u16,
    body: Vec<u8>,
    /// The connection cannot be used any more.
    over: bool,
}

/// Reads one answer and not a byte more: what follows is the caller's.
async fn answer(stream: &mut dyn Io) -> io::Result<Answer> {
    let strange = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
        if head.len() > MAX_HEAD {
            return Err(strange("the head of its answer is too long"));
        }
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let mut lines = head.lines();
    let status =
        lines.next().and_then(|line| line.strip_prefix("http/1.")?.get(2..5)?.parse().ok());
    let status = status.ok_or_else(|| strange("it does not speak HTTP"))?;
    let field = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let mut over = head.starts_with("http/1.0") || field("connection") == Some("close");
    let length = field("content-length").map(str::parse::<usize>);
    let mut body = Vec::new();
    match length {
        Some(Ok(length)) if length <= MAX_BODY => {
            body.resize(length, 0);
            stream.read_exact(&mut body).await?;
        }
        // Where it ends is not worth finding out: no coordinator of ours answers so.
        _ => over = true,
    }
    Ok(Answer { status, body, over })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    async fn said(answer: &str) -> io::Result<(Said, bool)> {
        let (mut ours, mut theirs) = duplex(64 << 10);
        theirs.write_all(answer.as_bytes()).await.unwrap();
        drop(theirs.shutdown().await);
        let result = ask(&mut ours, ("h:1", "/p"), "olk_a_1").await;
        let mut request = vec![0; 1000];
        let n = theirs.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..n]);
        assert!(request.starts_with("GET /p/api/v1/prove?key=a&nonce="), "{request}");
        assert!(request.ends_with(" HTTP/1.1\r\nhost: h:1\r\n\r\n"), "{request}");
        assert!(!request.contains("olk_"), "{request}");
        result
    }

    #[tokio::test]
    async fn answers_are_read_to_their_end_and_no_further() {
        let (mut ours, mut theirs) = duplex(64 << 10);
        let reply = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nnoHTTP/1.1 101 next";
        theirs.write_all(reply.as_bytes()).await.unwrap();
        let result = ask(&mut ours, ("h:1", ""), "olk_a_1").await.unwrap();
        assert_eq!(result, (Said::Nothing, false));
        let mut rest = [0; 17];
        ours.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"HTTP/1.1 101 next");
        let with = |status: &str, body: &str| {
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        };
        let wrong = r#"{"proof":"00"}"#;
        assert_eq!(said(&with("200 OK", wrong)).await.unwrap(), (Said::Unknown, false));
        assert_eq!(said(&with("403 no", "{}")).await.unwrap(), (Said::Unknown, false));
        let none = r#"{"proof":""}"#;
        assert_eq!(said(&with("200 OK", none)).await.unwrap(), (Said::NoKeys, false));
        assert!(said(&with("503 no", "{}")).await.is_err());
        let close = "HTTP/1.1 404 no\r\nConnection: close\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(said(close).await.unwrap(), (Said::Nothing, true));
        assert_eq!(said("HTTP/1.1 200 OK\r\n\r\n").await.unwrap(), (Said::Unknown, true));
        for broken in ["", "HTTP/1.1 200", "SSH-2.0-x\r\n\r\n", &"x".repeat(20_000)] {
            assert!(said(broken).await.is_err(), "{broken:.20}");
        }
    }
}
