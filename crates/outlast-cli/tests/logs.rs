//! Readers of large logs, with real processes: on a thin link, and such as stop reading.

mod common;

use common::rig::Rig;
use futures_util::StreamExt;
use outlast::{NewTask, Run, TaskSpec};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Long enough that only what hangs is caught.
const LONG: Duration = Duration::from_secs(300);

impl Rig {
    async fn run(&self, id: &str, line: &str) {
        let task = NewTask { id: id.into(), spec: TaskSpec::new(Run::Shell(line.into())) };
        self.base.client.submit(&task).await.unwrap();
        let result = timeout(LONG, self.base.client.wait(id)).await.expect("it takes for ever");
        assert_eq!(result.unwrap().state, "succeeded");
    }

    /// A log that does not get smaller on the way.
    async fn large(&self, id: &str, mib: u32) {
        self.run(id, &format!("head -c {} /dev/urandom", mib << 20)).await;
    }

    async fn ask(&self, path: &str) -> TcpStream {
        let mut link = TcpStream::connect(&self.base.at).await.unwrap();
        let close = "connection: close\r\n";
        let ask =
            format!("GET /api/v1/tasks/{path} HTTP/1.1\r\nhost: {}\r\n{close}\r\n", self.base.at);
        link.write_all(ask.as_bytes()).await.unwrap();
        link
    }

    /// Status and headers in lower case, and the body.
    async fn get(&self, path: &str) -> (String, String) {
        let mut all = String::new();
        let mut link = self.ask(path).await;
        timeout(LONG, link.read_to_string(&mut all)).await.expect("no answer").unwrap();
        let (head, body) = all.split_once("\r\n\r\n").expect("no headers");
        (head.to_ascii_lowercase(), body.to_owned())
    }

    /// Asks for a whole log, and stops reading after the answer's first bytes.
    async fn stalled(&self, id: &str) -> TcpStream {
        let mut link = self.ask(&format!("{id}/logs")).await;
        let mut begin = [0; 12];
        timeout(LONG, link.read_exact(&mut begin)).await.expect("no answer").unwrap();
        assert_eq!(String::from_utf8_lossy(&begin), "HTTP/1.1 200");
        link
    }

    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.coordinator.0.id()));
        let line =
            status.unwrap().lines().find_map(|l| l.strip_prefix("VmRSS:").map(str::to_owned));
        let kib: u64 = line.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
        kib << 10
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_on_a_thin_link_is_behind_results_and_leaves_nothing_behind() {
    let rig = Rig::new().await;
    rig.large("large", 24).await;
    // All of it would take more than six minutes.
    rig.proxy.handle().set("bandwidth=64kB".parse().unwrap());
    let (stream, whole) = rig.base.client.logs("large", false, None, 0).await.unwrap();
    assert!(whole);
    let reader = tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        let mut read = 0;
        while let Some(part) = stream.next().await {
            read += part.unwrap().len();
            if read > 128 << 10 {
                break;
            }
        }
        read
    });
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    rig.run("beside", "true").await;
    let beside = began.elapsed();
    assert!(beside < Duration::from_secs(60), "a task took {beside:?} beside a reader");
    // It gets its share all the same, and then it leaves.
    let read = timeout(LONG, reader).await.expect("it reads for ever").unwrap();
    assert!(read > 128 << 10, "{read}");
    let began = Instant::now();
    rig.run("after", "true").await;
    let after = began.elapsed();
    assert!(after < Duration::from_secs(60), "a task took {after:?} after a reader left");
    println!("beside a reader {beside:?}, after it {after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stop_reading_cost_little_and_are_few() {
    let rig = Rig::new().await;
    rig.large("large", 48).await;
    rig.run("small", "echo small").await;
    let before = rig.resident();
    let mut readers = Vec::new();
    for n in 0..16 {
        readers.push(rig.stalled("large").await);
        if n == 4 {
            sleep(Duration::from_secs(3)).await;
            let grown = rig.resident().saturating_sub(before);
            println!("five stalled readers: {} KiB", grown >> 10);
            assert!(grown < 32 << 20, "five stalled readers cost {grown} bytes");
        }
    }
    let (head, why) = rig.get("large/logs").await;
    assert!(head.starts_with("http/1.1 429") && head.contains("retry-after: 2"), "{head}");
    assert!(why.contains("too many read the logs of this worker"), "{why}");
    // The others' places are free as soon as they leave: the client asks again.
    drop(readers);
    let part = rig.base.client.log_part("small", false, None, 0).await.unwrap();
    assert_eq!((part.data, part.next, part.end), (b"small\n".to_vec(), 6, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_say_where_the_next_begins() {
    let rig = Rig::new().await;
    rig.run("seq", "seq 1 400000").await;
    let expected: String = (1..=400_000).map(|n| format!("{n}\n")).collect();
    let (mut all, mut parts) = (Vec::new(), 0);
    loop {
        let at = all.len() as u64;
        let part = rig.base.client.log_part("seq", false, None, at).await.unwrap();
        assert_eq!(
            (part.next, part.attempt, part.gap),
            (at + part.data.len() as u64, Some(1), None)
        );
        all.extend(part.data);
        parts += 1;
        if part.end {
            break;
        }
    }
    assert!(all == expected.as_bytes() && parts > 5, "{} bytes in {parts} parts", all.len());
    let ask = async |query: &str| {
        let (head, body) = rig.get(&format!("seq/logs?{query}")).await;
        let header = |name: &str| {
            let of = |l: &str| l.strip_prefix(&format!("outlast-log-{name}: ")).map(str::to_owned);
            head.lines().find_map(of).unwrap_or_default()
        };
        (["offset", "next", "end"].map(header), body)
    };
    let (head, text) = ask("limit=10&offset=2").await;
    assert_eq!(head, ["2", "12", "false"]);
    assert_eq!(text, "2\n3\n4\n5\n6\n");
    let len = expected.len();
    let (head, text) = ask("tail=14").await;
    assert_eq!(head, [(len - 14).to_string(), len.to_string(), "true".into()]);
    assert_eq!(text, "399999\n400000\n");
    for wrong in ["limit=0", "limit=2000000", "tail=5&offset=3", "stream=x"] {
        let (head, _) = rig.get(&format!("seq/logs?{wrong}")).await;
        assert!(head.starts_with("http/1.1 400"), "{wrong}: {head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_over_a_cut_gets_each_line_once_and_the_end() {
    let rig = Rig::new().await;
    // More than the 64 MiB that are kept; the follower is with it, and falls behind.
    let line = "echo first > /dev/stderr; seq 1 6000000; sleep 1; seq 6000001 14000000; \
                echo last > /dev/stderr; echo end > /dev/stdout";
    let task = NewTask { id: "long".into(), spec: TaskSpec::new(Run::Shell(line.into())) };
    rig.base.client.submit(&task).await.unwrap();
    let follow = |more: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_outlast"));
        command.args(["--coordinator", &rig.base.url(), "task", "logs", "long", "--follow"]);
        command.args(more).env("OUTLAST_CONFIG", "/dev/null").kill_on_drop(true).output()
    };
    let (out, err) = timeout(LONG, async { tokio::join!(follow(&[]), follow(&["--stderr"])) })
        .await
        .expect("they follow for ever");
    let (out, err) = (out.unwrap(), err.unwrap());
    assert!(out.status.success() && err.status.success());
    assert_eq!(String::from_utf8_lossy(&err.stdout), "first\nlast\n");
    let text = String::from_utf8(out.stdout).unwrap();
    let (mut notes, mut bytes, mut lost) = (0, 0, 0);
    let mut next = 1;
    for (n, part) in text.split("\n[outlast: ").enumerate() {
        let part = match n {
            0 => part,
            _ => {
                let (cut, rest) = part.split_once(" bytes cut here]\n").unwrap();
                (notes, lost) = (notes + 1, lost + cut.parse::<u64>().unwrap());
                rest
            }
        };
        bytes += part.len() as u64;
        // A cut may go through a line: it is the whole ones that are looked at.
        let lines: Vec<&str> = part.lines().collect();
        let whole = usize::from(n > 0)..lines.len().saturating_sub(1);
        for line in &lines[whole.start.min(whole.end)..whole.end] {
            let number: u64 = line.parse().unwrap();
            assert!(number == next || (number > next && n > 0), "{number} after {}", next - 1);
            next = number + 1;
        }
    }
    assert!(text.ends_with("\n13999999\n14000000\nend\n"), "{:?}", &text[text.len() - 100..]);
    let all = (1..=14_000_000_u64).map(|n| u64::from(n.ilog10()) + 2).sum::<u64>() + 4;
    assert_eq!(bytes + lost, all, "{notes} notes");
    println!("{notes} notes of {lost} bytes in {all}");
}
