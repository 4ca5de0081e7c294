//! Every input that was once found to do harm, and those that fuzzing begins with.

use outlast_fuzz::{check, corpus, targets};

#[test]
fn known_inputs_do_no_harm() {
    for target in targets::all() {
        let inputs = corpus(&target);
        assert!(!inputs.is_empty(), "{}", target.name);
        for (n, input) in inputs.iter().enumerate() {
            if let Err(why) = check(&target, input) {
                panic!("{}, input {n}: {why}", target.name);
            }
        }
    }
}

/// A reader that takes too much, and one that panics, are found out.
#[test]
fn harm_is_found() {
    let hungry = outlast_fuzz::Target {
        name: "hungry",
        what: "",
        seeds: || vec![b"[]".to_vec()],
        words: &["[]"],
        make: None,
        run: |input| {
            let (_, peak) = outlast_fuzz::memory::measure(|| vec![0_u8; 1_000 * input.len()]);
            outlast_fuzz::Run { said: String::new(), peak, bound: 100_000 }
        },
    };
    let report = outlast_fuzz::fuzz(&hungry, 1, std::time::Duration::from_secs(60));
    let (why, input) = report.wrong.expect("it takes too much");
    assert!(why.contains("the bound is 100000") && input.len() > 100, "{why}");
    let brittle = outlast_fuzz::Target {
        run: |input| {
            assert!(input.len() < 1000, "too long");
            outlast_fuzz::Run { said: input.len().to_string(), peak: 0, bound: 0 }
        },
        ..hungry
    };
    let report = outlast_fuzz::fuzz(&brittle, 1, std::time::Duration::from_secs(60));
    assert!(report.wrong.is_some_and(|(why, _)| why == "it panics: too long"));
}
