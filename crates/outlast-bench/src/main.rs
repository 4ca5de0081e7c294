//! `make bench`: the costs of durability. Coordinator and workers are processes of their own;
//! everything is synced on both sides, as always. Prints a table, and JSON with `--json FILE`.

mod adapt;
mod cases;
mod checkpoints;
mod figures;
mod fleet;
mod idle;
mod noops;
mod otlp;
mod page;
mod procs;
mod storm;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[1..] {
        ["coordinator", addr, dir] => procs::coordinator(addr, dir, None),
        ["coordinator", addr, dir, otlp] => procs::coordinator(addr, dir, Some(otlp)),
        ["worker", url, dir, slots] => procs::worker(url, dir, slots),
        ["keeper", root] => procs::keep(root),
        ["fleet", workers, seconds] => page::run(workers.parse()?, seconds.parse()?),
        ["adapt"] => adapt::run(),
        [] => bench(None, ""),
        ["--json", file] => bench(Some(file), ""),
        ["--only", case] => bench(None, case),
        _ => anyhow::bail!(
            "usage: outlast-bench [--json FILE | --only CASE | adapt | fleet WORKERS SECONDS]"
        ),
    }
}

fn bench(json: Option<&str>, only: &str) -> anyhow::Result<()> {
    let names: Vec<&str> = cases::ALL.iter().map(|(name, _)| *name).collect();
    anyhow::ensure!(
        only.is_empty() || names.contains(&only),
        "no case {only:?}; there are: {}",
        names.join(", ")
    );
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let figures = runtime.block_on(async {
        let mut figures = Vec::new();
        for (name, case) in cases::ALL {
            if only.is_empty() || only == *name {
                eprintln!("{name} …");
                case(&mut figures).await?;
            }
        }
        anyhow::Ok(figures)
    })?;
    println!("| figure | value | target |\n|---|---|---|");
    for f in &figures {
        let digits = if f.value < 10.0 { 2 } else { 0 };
        println!("| {} | {:.digits$} {} | {} |", f.what, f.value, f.unit, f.target);
    }
    if let Some(file) = json {
        std::fs::write(file, serde_json::to_vec_pretty(&figures)?)?;
    }
    Ok(())
}
