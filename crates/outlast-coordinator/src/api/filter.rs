//! The filter of tasks in a request's query string.

use crate::app::App;
use crate::problem::Refusal;
use axum::extract::Query;
use outlast_core::records::TaskState;
use outlast_store::TaskFilter;
use outlast_wire::api::MAX_PAGE;
use outlast_wire::spec::MAX_LABELS;

/// Parameters of a list besides a filter.
pub(super) const PAGE: &[&str] = &["limit", "cursor", "order"];

/// The filter of a query string, and what else it has.
pub(super) struct Filter {
    pub tasks: TaskFilter,
    /// Set if the query names anything.
    pub given: bool,
    rest: Vec<(String, String)>,
}

impl Filter {
    /// `owner`: whose tasks alone may be seen. `besides`: what is no part of the filter.
    pub async fn of(
        app: &App,
        owner: Option<&str>,
        query: Option<String>,
        besides: &[&str],
    ) -> Result<Filter, Refusal> {
        let mut tasks = TaskFilter { owner: owner.map(ToOwned::to_owned), ..TaskFilter::default() };
        let (mut given, mut rest) = (false, Vec::new());
        let (mut running, mut all_assigned) = (false, false);
        let query = query.unwrap_or_default();
        let uri =
            format!("/?{query}").parse().map_err(|_| Refusal::bad("the query cannot be read"))?;
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&uri)
            .map_err(|e| Refusal::bad(&e.body_text()))?;
        let labels = pairs.iter().filter(|(k, v)| k == "label" && !v.is_empty()).count();
        if labels > MAX_LABELS {
            let detail =
                format!("label: {labels} of them; {MAX_LABELS} is the limit of one request");
            return Err(Refusal::bad(&detail));
        }
        for (key, value) in pairs.into_iter().filter(|(_, v)| !v.is_empty()) {
            if besides.contains(&key.as_str()) {
                rest.push((key, value));
                continue;
            }
            given = true;
            match key.as_str() {
                "state" => {
                    for word in value.split(',') {
                        running |= word == "running";
                        all_assigned |= word == "assigned";
                        let word = if word == "running" { "assigned" } else { word };
                        let state = TaskState::parse(word).ok_or_else(|| {
                            let all = "pending, assigned, running, succeeded, failed, cancelled";
                            Refusal::bad(&format!("state: {word:?} is none of {all}"))
                        })?;
                        if !tasks.states.contains(&state) {
                            tasks.states.push(state);
                        }
                    }
                }
                "label" => match value.split_once('=') {
                    Some((k, v)) => tasks.labels.push((k.into(), v.into())),
                    None => return Err(Refusal::bad("label: must be key=value")),
                },
                "paused" => match value.as_str() {
                    "true" => tasks.paused = true,
                    "false" => tasks.paused = false,
                    _ => return Err(Refusal::bad("paused: must be true or false")),
                },
                "queue" => tasks.queue = Some(value),
                "prefix" => tasks.id_prefix = Some(value),
                "worker" => {
                    let name = value.clone();
                    let found = app.query(move |c| c.worker(&name)).await?;
                    let found = found.ok_or_else(|| Refusal::no_worker(&value))?;
                    tasks.worker = Some(found.row.store_id.to_string());
                }
                other => {
                    let known = ["state", "label", "paused", "queue", "worker", "prefix"];
                    let known = [&known, besides].concat().join(", ");
                    return Err(Refusal::bad(&format!("{other:?} is none of {known}")));
                }
            }
        }
        tasks.started = running && !all_assigned;
        Ok(Filter { tasks, given, rest })
    }

    /// Cursor, limit, and whether the newest comes first.
    pub fn page(&mut self) -> Result<(Option<u64>, usize, bool), Refusal> {
        let (mut cursor, mut limit, mut newest) = (None, 100, true);
        for (key, value) in self.rest.drain(..) {
            match key.as_str() {
                "limit" => match value.parse() {
                    Ok(n) if (1..=MAX_PAGE).contains(&n) => limit = n,
                    _ => return Err(Refusal::bad(&format!("limit: must be from 1 to {MAX_PAGE}"))),
                },
                "cursor" => match value.parse() {
                    Ok(n) => cursor = Some(n),
                    Err(_) => {
                        return Err(Refusal::bad("cursor: give the `next` of the former page"));
                    }
                },
                _ => match value.as_str() {
                    "newest" => newest = true,
                    "oldest" => newest = false,
                    _ => return Err(Refusal::bad("order: must be newest or oldest")),
                },
            }
        }
        Ok((cursor, limit, newest))
    }
}
