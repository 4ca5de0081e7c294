//! Messages of agent and keeper, read from arbitrary bytes.

use super::proto::{
    Ask, Attach, Finished, Forget, Frames, Id, Say, ToAgent, ToKeeper, Variable, frame,
};
use outlast_wire::v2::TaskOutcome;

/// Reads it as what either says, and returns what came of it.
pub fn keeper(mut bytes: &[u8]) -> String {
    let mut frames = Frames::new();
    let mut said = String::new();
    while let Ok(true) = frames.read(&mut bytes) {
        loop {
            match frames.next::<ToKeeper>() {
                Ok(Some(message)) => said = format!("{:?}", message.ask.is_some()),
                Ok(None) => break,
                Err(error) => return error.to_string(),
            }
        }
    }
    said
}

/// Sample messages of both sides.
pub fn keeper_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![Vec::new(); 3];
    let variable = Variable { name: "A".into(), value: "b".into() };
    let attach = Attach { slots: 2, env: vec![variable] };
    frame(&ToKeeper::from(Ask::Attach(attach)), &mut seeds[0]);
    let ids = vec![Id { task: "t".into(), epoch: 1 }];
    frame(&ToKeeper::from(Ask::Forget(Forget { ids })), &mut seeds[1]);
    let outcome = TaskOutcome { message: "m".into(), ..Default::default() };
    frame(&ToAgent::from(Say::Finished(Finished { outcome, cause: 1 })), &mut seeds[2]);
    seeds
}
