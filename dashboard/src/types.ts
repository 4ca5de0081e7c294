// What the coordinator's API says, as far as it is shown. `/api/v1/openapi.json` has the whole.

export type Role = "submit" | "operate";

export interface Session {
  role: Role | null;
  needed: boolean;
  expires_at: string | null;
}

export interface Info {
  coordinator_id: string;
  version: string;
  now: string;
  started_at: string;
}

export interface Counts {
  pending: number;
  assigned: number;
  succeeded: number;
  failed: number;
  cancelled: number;
  /** Of those that wait or are with a worker. */
  paused: number;
  total: number;
}

export interface TaskSpec {
  command?: string[];
  shell?: string;
  call?: { function: string; args?: unknown };
  labels?: Record<string, string>;
  requires?: Record<string, string>;
  queue?: string;
  [more: string]: unknown;
}

export interface Task {
  id: string;
  number: number;
  state: string;
  spec: TaskSpec;
  attempt: number;
  retries: number;
  cancelling: boolean;
  worker: string | null;
  submitted_at: string;
  assigned_at: string | null;
  started_at: string | null;
  ended_at: string | null;
  reason: string;
  has_result: boolean;
  cause: string;
  paused: boolean;
  progress?: number;
  waiting_for?: string;
}

export interface TaskList {
  tasks: Task[];
  next: string | null;
}

export interface TaskResult {
  attempt: number;
  state: string;
  outcome: string | null;
  exit_code: number | null;
  signal: number | null;
  message: string;
  worker: string | null;
  duration_ms: number | null;
  max_rss_bytes: number;
  cpu_ms: number;
  stdout: string;
  stderr: string;
  stdout_bytes: number;
  stderr_bytes: number;
  /** As JSON text. */
  value: string | null;
}

export interface HistoryEvent {
  at: string;
  event: string;
  attempt: number;
  worker: string | null;
  reason: string;
  cause: string;
}

export interface Checkpoint {
  id: string;
  attempt: number;
  number: number;
  artifact?: string;
  kept: boolean;
  dropped: boolean;
  size: number;
  created_at: string;
  recorded_at: string;
  gone_at: string | null;
  worker: string | null;
  meta: unknown;
}

export interface TaskState {
  attempt: number;
  version: number;
  progress: number | null;
  state: Record<string, unknown>;
  at: string | null;
}

export interface Explanation {
  sentences: string[];
  now: string;
  hint: string | null;
}

export interface Worker {
  name: string;
  store_id: string;
  state: string;
  incarnation: number;
  connection: number;
  slots: number;
  held: number;
  running: number;
  queued: number;
  unacked: number;
  rtt_ms: number;
  capabilities: Record<string, unknown>;
  labels: Record<string, string>;
  version: string;
  seen_at: string | null;
  gone_at: string | null;
  gone_reason: string;
  gone_cause: string;
  drained: boolean;
  unfit?: string;
  unfit_since?: string;
  disk: { used: number; budget: number; refused: number } | null;
}

export interface Throughput {
  step_ms: number;
  at: number[];
  submitted: number[];
  succeeded: number[];
  failed: number[];
  cancelled: number[];
  requeued: number[];
  waiting: number[];
}

/** An event `task` of the stream. */
export interface TaskEvent {
  id: string;
  event: string;
  attempt: number;
  worker: string | null;
  at: string;
  reason: string;
  state: string | null;
}

/** An event `worker` of the stream. */
export interface WorkerEvent {
  name: string;
  event: string;
  at: string;
  reason: string;
}

/** An error (RFC 9457). */
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
}

export interface Rtt {
  samples: number;
  last: number;
  min: number;
  median: number;
  p95: number;
  jitter: number;
  mean: number;
}

export interface LinkQuality {
  rtt: Rtt | null;
  worker_rtt_ms: number;
  suspicion: number | null;
  silent_ms: number | null;
  reconnects_per_minute: number;
  reconnects: number;
  failed_connections: number;
  connection_success_rate: number;
  loss: number | null;
  heartbeats_lost: number;
  goodput_up: number;
  goodput_down: number;
  bytes_up: number;
  bytes_down: number;
  resync_ms: number | null;
  last_disconnect: { at: string; cause: string; reason: string } | null;
  disconnects: Record<string, number>;
}

export interface Series {
  resolution: string;
  step_ms: number;
  at: number[];
  connected: (number | null)[];
  rtt_ms: (number | null)[];
  rtt_max_ms: (number | null)[];
  suspicion: (number | null)[];
  goodput_up: (number | null)[];
  goodput_down: (number | null)[];
  messages: (number | null)[];
  reconnects: (number | null)[];
  heartbeats_lost: (number | null)[];
  tasks_executed: (number | null)[];
  tasks_failed: (number | null)[];
  checkpoints: (number | null)[];
  running: (number | null)[];
}

export interface WorkerMetrics {
  id: string;
  name: string;
  state: string;
  connection_attempts: number;
  successful_connections: number;
  avg_reconnect_time: number | null;
  max_reconnect_time: number | null;
  connection_stability: number;
  messages_sent: number;
  messages_received: number;
  message_errors: number;
  tasks_executed: number;
  task_success_rate: number | null;
  avg_task_execution_time_ms: number | null;
  checkpoints_created: number;
  checkpoints_restored: number;
  compression_ratio: number | null;
  link: LinkQuality;
  series: Series;
  /** What is otherwise than configured just now; former coordinators say nothing of it. */
  adaptation?: Adaptation[];
}

export interface Adaptation {
  side: string;
  setting: string;
  from: string;
  to: string;
  why: string;
  at: string;
}

export interface Interval {
  state: string;
  from: number;
  to: number | null;
  cause: string;
  reason: string;
}

export interface WorkerTimeline {
  from: number;
  to: number;
  intervals: Interval[];
  truncated: boolean;
  /** What was done about the link, newest last; former coordinators say nothing of it. */
  notes?: LinkNote[];
}

export interface LinkNote {
  /** Unix milliseconds. */
  at: number;
  text: string;
}

/** Workers in short, a column each. */
export interface FleetColumns {
  id: string[];
  name: string[];
  state: string[];
  slots: number[];
  running: number[];
  held: number[];
  rtt_ms: (number | null)[];
  suspicion: (number | null)[];
  stability: number[];
  reconnects_per_minute: number[];
  goodput: number[];
  alert: string[];
  since: (number | null)[];
  cause: string[];
}

export interface FleetTotals {
  workers: number;
  connected: number;
  draining: number;
  unfit?: number;
  suspect: number;
  away: number;
  slots: number;
  running: number;
  goodput_up: number;
  goodput_down: number;
  rtt_median_ms: number | null;
  rtt_p95_ms: number | null;
  alerts: Record<string, number>;
}

export interface FleetPage {
  at: string;
  tick: number;
  totals: FleetTotals;
  workers: FleetColumns;
  next: string | null;
}

/** An event `fleet` of the stream. */
export interface FleetEvent {
  at: string;
  tick: number;
  totals: FleetTotals;
  workers: FleetColumns;
  gone: string[];
}

export interface Alert {
  id: number;
  rule: string;
  severity: string;
  state: string;
  worker: string;
  worker_id: string;
  message: string;
  since: string;
  cleared_at: string | null;
}
