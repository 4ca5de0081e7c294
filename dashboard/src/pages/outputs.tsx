// Outputs of a task: its log, its checkpoints and its artifacts.

import { useState } from "preact/hooks";
import { ApiError, ask, seg } from "../api";
import { bytes, count, time } from "../format";
import { useLoad } from "../load";
import { to } from "../route";
import type { Checkpoint, Task } from "../types";
import { Choice, type Column, Panel, Table, Trouble } from "../ui";

/** Bytes of the end of a log that are shown. */
const TAIL = 32_768;

export function Log({ task }: { task: Task }) {
  const [stream, setStream] = useState<"stdout" | "stderr">("stdout");
  const running = task.state === "assigned";
  const loaded = useLoad(
    `log ${task.id} ${stream} ${task.attempt} ${task.state}`,
    async (signal) => {
      const response = await ask(`api/v1/tasks/${seg(task.id)}/logs?stream=${stream}&tail=${TAIL}`, { signal });
      const cut = Number(response.headers.get("outlast-log-offset") ?? 0);
      return { text: await response.text(), cut, source: response.headers.get("outlast-log-source") };
    },
    { every: running ? 3000 : 0, off: task.attempt === 0 },
  );
  if (task.attempt === 0) return null;
  const aside = (
    <Choice
      label="Stream"
      of={[
        ["stdout", "stdout"],
        ["stderr", "stderr"],
      ]}
      value={stream}
      set={setStream}
    />
  );
  return (
    <Panel title="Log" aside={aside}>
      {loaded.error && !loaded.data && <LogTrouble error={loaded.error} />}
      {loaded.data && (
        <>
          {loaded.data.cut > 0 && <p class="muted">The first {bytes(loaded.data.cut)} are not shown; `outlast task logs {task.id}` fetches all.</p>}
          {loaded.data.text === "" ? (
            <p class="none">No output.</p>
          ) : (
            <pre class="log" tabIndex={0} role="group" aria-label={`End of ${stream}`}>
              {loaded.data.text}
            </pre>
          )}
          {loaded.data.source === "tail" && <p class="muted">From the result; the full log is on the worker.</p>}
        </>
      )}
    </Panel>
  );
}

/** A temporarily unavailable log is not an error of the page. */
function LogTrouble({ error }: { error: ApiError }) {
  return error.status === 503 ? <p class="none">{error.detail}</p> : <Trouble error={error} />;
}

export function Kept({ title, of, task }: { title: string; of: Checkpoint[]; task: string }) {
  if (of.length === 0) return null;
  const at = `api/v1/tasks/${seg(task)}`;
  const data = (c: Checkpoint) => (c.artifact ? `${at}/artifacts/${seg(c.artifact)}/data` : `${at}/checkpoints/${seg(c.id)}/data`);
  const name = (c: Checkpoint) => c.artifact ?? c.id;
  const columns: Column<Checkpoint>[] = [
    { label: title === "Artifacts" ? "Name" : "Checkpoint", of: name },
    { label: "Size", set: "num", of: (c) => bytes(c.size) },
    { label: "Worker", of: (c) => (c.worker ? <a href={to("worker", c.worker)}>{c.worker}</a> : "–") },
    { label: "Created", set: "num", of: (c) => time(c.created_at) },
    { label: "Metadata", class: "mono cut", title: (c) => said(c.meta), of: (c) => said(c.meta) },
    {
      label: "Data",
      of: (c) =>
        c.kept ? (
          <a href={data(c)} download={`${task}-${name(c)}`}>
            Download<span class="sr"> {name(c)}</span>
          </a>
        ) : (
          <span class="muted">{c.dropped ? "not uploaded" : "removed by its rule"}</span>
        ),
    },
  ];
  const newest = [...of].reverse().slice(0, 50);
  return (
    <Panel title={title} class="flush" aside={of.length > 50 ? <span class="muted">the newest 50 of {count(of.length)}</span> : undefined}>
      <Table label={title} rows={newest} id={(c) => c.id} columns={columns} />
    </Panel>
  );
}

/** The task's metadata of a checkpoint, without the worker's. */
function said(meta: unknown): string {
  const own = typeof meta === "object" && meta !== null && "user" in meta ? meta.user : meta;
  return own && Object.keys(own).length > 0 ? JSON.stringify(own) : "–";
}
