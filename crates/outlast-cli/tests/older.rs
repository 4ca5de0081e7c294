//! A task's script and its older checkpoints, which only the coordinator knows; and one that is
//! damaged where the task runs. With real processes.

mod common;

use common::Base;
use outlast::{NewTask, Run, TaskSpec};
use std::path::Path;
use std::time::{Duration, Instant};

fn wait_for(path: &Path, log: &Path) {
    let started = Instant::now();
    while !path.exists() {
        let log = || std::fs::read_to_string(log).unwrap_or_default();
        assert!(started.elapsed() < Duration::from_secs(60), "{}: {}", path.display(), log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Flips bits in the middle of every pack of this store.
fn damage(packs: &Path) {
    for pack in std::fs::read_dir(packs).unwrap() {
        let path = pack.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 0xff;
        std::fs::write(&path, bytes).unwrap();
    }
}

const JOB: &str = r#"
    set -u
    code() { c=0; "$@" || c=$?; echo "$c"; }
    for n in 1 2 3; do
        echo "$n" > model; head -c 300000 /dev/urandom >> model; cp model "model$n"
        "$OUTLAST" task checkpoint model > /dev/null || exit 11
    done
    # Until all are delivered.
    until [ "$("$OUTLAST" task checkpoints | grep -c ' yes ')" = 3 ]; do sleep 0.2; done
    "$OUTLAST" task restore one --id 1-1 && cmp one model1 || exit 12
    [ "$(code "$OUTLAST" task restore x --id 1-9)" = 7 ] || exit 13
    touch "$HERE/listed"
    while [ ! -e "$HERE/damaged" ]; do sleep 0.1; done
    "$OUTLAST" task restore newest && cmp newest model3 || exit 14
    touch "$HERE/mended"
    while [ ! -e "$HERE/alone" ]; do sleep 0.1; done
    # It takes a moment until the loss is noticed.
    until [ "$(code "$OUTLAST" task checkpoints --no-wait)" = 5 ]; do sleep 0.2; done
    "$OUTLAST" task restore x --id 1-2 --no-wait 2> said
    [ $? = 5 ] && grep -q "only the coordinator knows" said || exit 15
    # What is here needs nobody.
    "$OUTLAST" task restore newest --no-wait && cmp newest model3 || exit 16
    touch "$HERE/done"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn older_checkpoints_are_found_and_damage_is_mended() {
    let base = Base::new();
    let mut coordinator = base.coordinator();
    let _worker = base.worker("w", &base.url(), &[]);
    base.connected("w").await;
    let at = |name: &str| base.dir.path().join(name);
    let mut spec = TaskSpec::new(Run::Shell(JOB.into()));
    spec.env.insert("OUTLAST".into(), env!("CARGO_BIN_EXE_outlast").into());
    spec.env.insert("HERE".into(), base.dir.path().display().to_string());
    let task = NewTask { id: "t".into(), spec };
    base.client.submit(&task).await.unwrap();
    let log = at("w.log");
    wait_for(&at("listed"), &log);
    damage(&at("w/blobs/packs"));
    std::fs::write(at("damaged"), "").unwrap();
    wait_for(&at("mended"), &log);
    coordinator.kill();
    std::fs::write(at("alone"), "").unwrap();
    wait_for(&at("done"), &log);
}

/// The coordinator's store is nearly full: what fits passes by what does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_without_room_holds_no_other_up() {
    let base = Base::new();
    let _coordinator = base.coordinator_with(&["--blob-budget", "4MiB"]);
    let _worker = base.worker("w", &base.url(), &[]);
    base.connected("w").await;
    let job = r#"
        head -c 30000000 /dev/urandom > big; "$OUTLAST" task checkpoint big || exit 11
        echo small > small; "$OUTLAST" task checkpoint small || exit 12
        "$OUTLAST" task artifact small || exit 13
        sleep 60
    "#;
    let mut spec = TaskSpec::new(Run::Shell(job.into()));
    spec.env.insert("OUTLAST".into(), env!("CARGO_BIN_EXE_outlast").into());
    base.client.submit(&NewTask { id: "t".into(), spec }).await.unwrap();
    let started = Instant::now();
    loop {
        let all = base.client.checkpoints("t").await.unwrap().checkpoints;
        let ids: Vec<_> = all.iter().map(|c| c.id.clone()).collect();
        let kept = base.client.artifacts("t").await.unwrap().artifacts.len();
        let worker = base.client.worker("w").await.unwrap();
        let refused = worker.disk.as_ref().map_or(0, |d| d.refused);
        if ids == ["1-2"] && kept == 1 && refused == 1 {
            return;
        }
        let log = || std::fs::read_to_string(base.dir.path().join("w.log")).unwrap_or_default();
        let late = started.elapsed() > Duration::from_secs(120);
        assert!(!late, "{ids:?} {kept} {refused} {}", log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
