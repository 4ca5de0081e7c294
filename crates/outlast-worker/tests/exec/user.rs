//! Tasks of another user. It needs root, and a user `nobody`: else these tests are skipped, and say so.

use super::*;
use outlast_spawn::{User, effective_uid};
use outlast_wire::spec::Browser;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

fn nobody() -> Option<User> {
    let user = User::find("nobody").ok().filter(|_| effective_uid() == 0);
    if user.is_none() {
        eprintln!("skipped: only root can run tasks as another user");
    }
    user
}

#[test]
fn the_result_of_a_browsers_program_is_the_users_and_no_link() {
    let Some(nobody) = nobody() else { return };
    // In place of a browser: what it leaves is in the script.
    let bench = Bench::with(|config| {
        config.user = Some(nobody.clone());
        config.browser = ["/bin/sh", "-c", "eval \"$LEAVE\""].map(Into::into).into();
    });
    let secret = bench.file("secret");
    fs::write(&secret, r#"{"message":"m","value":{"stolen":1}}"#).unwrap();
    let run = |leave: &str| {
        let mut spec = TaskSpec::new(Run::Browser(Browser {
            script: "1".into(),
            args: Default::default(),
            page: String::new(),
            on_context_loss: Default::default(),
        }));
        spec.env.insert("LEAVE".into(), leave.replace("SECRET", secret.to_str().unwrap()));
        let outcome = bench.run(spec);
        assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{outcome:?}");
        text(&outcome.value_json)
    };
    assert_eq!(run(r#"echo '{"value": 5}' >$OUTLAST_RESULT_FILE"#), "5");
    // A link, another's file under a name of its own, a pipe that nobody writes to.
    fs::set_permissions(&secret, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(run("ln -s SECRET $OUTLAST_RESULT_FILE"), "");
    assert_eq!(run("ln SECRET $OUTLAST_RESULT_FILE; true"), "");
    assert_eq!(run("mkfifo $OUTLAST_RESULT_FILE"), "");
    assert_eq!(run("mkdir -p $OUTLAST_RESULT_FILE/deep"), "");
    assert!(secret.exists());
    let left = fs::read_dir(bench.root.path().join("results")).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn a_folder_serves_the_next_task_as_its_users() {
    let Some(nobody) = nobody() else { return };
    let bench = Bench::with(|config| config.user = Some(nobody.clone()));
    for n in 0..20 {
        let outcome = bench.run(shell("test -O . && test -w . && echo mine"));
        assert_eq!(text(&outcome.stdout_tail), "mine\n", "{n}: {outcome:?}");
    }
    let outcome = bench.run(shell("mkdir -p a/b; echo x >a/b/f; chmod 000 a; chmod 500 ."));
    assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{outcome:?}");
    let outcome = bench.run(shell("test -O . && test -w . && echo mine"));
    assert_eq!(text(&outcome.stdout_tail), "mine\n", "{outcome:?}");
    let work = bench.root.path().join("work");
    let of =
        |path: &Path| fs::metadata(path).map(|meta| (meta.uid(), meta.mode() & 0o777)).unwrap();
    assert_eq!(of(&work), (0, 0o711));
    assert_eq!(of(&bench.root.path().join("logs")), (0, 0o700));
}
