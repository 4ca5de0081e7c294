// Made by `npm run types` from openapi.json. Do not edit.

export type paths = Record<string, never>;
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        Adaptation: {
            at: string;
            from: string;
            setting: string;
            side: components["schemas"]["Side"];
            to: string;
            why: string;
        };
        Alert: {
            cleared_at: string | null;
            /** Format: int64 */
            id: number;
            message: string;
            rule: components["schemas"]["AlertRuleName"];
            severity: components["schemas"]["Severity"];
            since: string;
            state: components["schemas"]["AlertState"];
            /** Format: double */
            threshold: number;
            /** Format: double */
            value: number;
            worker: string;
            worker_id: string;
        };
        AlertList: {
            alerts: components["schemas"]["Alert"][];
            rules: components["schemas"]["AlertRule"][];
        };
        AlertRule: {
            /** Format: double */
            clear: number;
            /** Format: double */
            clear_s: number;
            enabled: boolean;
            /** Format: double */
            hold_s: number;
            measures: string;
            /** Format: int32 */
            min_samples: number;
            name: components["schemas"]["AlertRuleName"];
            severity: components["schemas"]["Severity"];
            /** Format: double */
            threshold: number;
            to: components["schemas"]["AlertTarget"][];
            when: components["schemas"]["AlertSide"];
        };
        ArtifactList: {
            artifacts: components["schemas"]["Checkpoint"][];
        };
        Browser: {
            args?: unknown;
            on_context_loss?: components["schemas"]["OnContextLoss"];
            page?: string;
            script: string;
        };
        Call: {
            args?: unknown;
            function: string;
        };
        /** @enum {string} */
        Cause: "" | "asked_back" | "cancelled" | "disk" | "done" | "drained" | "exit" | "lost" | "machine" | "moved" | "network" | "not_started" | "out_of_memory" | "signal" | "superseded" | "timed_out" | "worker_crashed" | "worker_forgotten" | "worker_stopped";
        Checkpoint: {
            artifact?: string;
            /** Format: int64 */
            attempt: number;
            created_at: string;
            dropped: boolean;
            gone_at: string | null;
            id: string;
            kept: boolean;
            manifest: string;
            meta: unknown;
            /** Format: int64 */
            number: number;
            recorded_at: string;
            /** Format: int64 */
            size: number;
            worker: string | null;
        };
        CheckpointList: {
            checkpoints: components["schemas"]["Checkpoint"][];
        };
        Copied: {
            at: string;
            host: string;
            /** Format: int64 */
            times: number;
        };
        CountsView: {
            /** Format: int64 */
            assigned: number;
            /** Format: int64 */
            cancelled: number;
            /** Format: int64 */
            failed: number;
            filtered: boolean;
            /** Format: int64 */
            paused: number;
            /** Format: int64 */
            pending: number;
            /** Format: int64 */
            running: number;
            /** Format: int64 */
            succeeded: number;
            /** Format: int64 */
            total: number;
        };
        Disconnect: {
            at: string;
            cause: components["schemas"]["LinkCause"];
            reason: string;
        };
        Disk: {
            /** Format: int64 */
            budget: number;
            /** Format: int64 */
            refused: number;
            /** Format: int64 */
            used: number;
        };
        EndedTasks: {
            results: components["schemas"]["TaskResult"][];
            unknown: string[];
        };
        Explanation: {
            hint: string | null;
            id: string;
            now: string;
            sentences: string[];
        };
        /** @enum {string} */
        FailureClass: "out_of_memory" | "device" | "browser_crash" | "context_lost" | "disk" | "timeout" | "network" | "worker_crash" | "worker_lost" | "worker_stopped" | "not_started" | "software" | "unknown";
        FailurePattern: {
            class: components["schemas"]["FailureClass"];
            count: number;
            evidence: string;
            first: string;
            kind: components["schemas"]["PatternKind"];
            last: string;
            subject: string;
            tasks: number;
            workers: number;
        };
        FleetColumns: {
            alert: components["schemas"]["WorstSeverity"][];
            cause: components["schemas"]["LinkCause"][];
            goodput: number[];
            held: number[];
            id: string[];
            name: string[];
            reconnects_per_minute: number[];
            rtt_ms: (number | null)[];
            running: number[];
            since: (number | null)[];
            slots: number[];
            stability: number[];
            state: components["schemas"]["WorkerState"][];
            suspicion: (number | null)[];
        };
        FleetEvent: {
            at: string;
            gone: string[];
            /** Format: int64 */
            tick: number;
            totals: components["schemas"]["FleetTotals"];
            workers: components["schemas"]["FleetColumns"];
        };
        FleetPage: {
            at: string;
            next: string | null;
            /** Format: int64 */
            tick: number;
            totals: components["schemas"]["FleetTotals"];
            workers: components["schemas"]["FleetColumns"];
        };
        FleetTotals: {
            alerts: {
                [key: string]: number;
            };
            /** Format: int64 */
            away: number;
            /** Format: int64 */
            connected: number;
            /** Format: int64 */
            draining: number;
            /** Format: double */
            goodput_down: number;
            /** Format: double */
            goodput_up: number;
            /** Format: double */
            rtt_median_ms: number | null;
            /** Format: double */
            rtt_p95_ms: number | null;
            /** Format: int64 */
            running: number;
            /** Format: int64 */
            slots: number;
            /** Format: int64 */
            suspect: number;
            /** Format: int64 */
            unfit: number;
            /** Format: int64 */
            workers: number;
        };
        History: {
            events: components["schemas"]["HistoryEvent"][];
        };
        HistoryEvent: {
            at: string;
            /** Format: int64 */
            attempt: number;
            cause: components["schemas"]["Cause"];
            event: components["schemas"]["HistoryEventKind"];
            reason: string;
            recovery?: unknown;
            worker: string | null;
        };
        Info: {
            auth: boolean;
            clock_jumped: boolean;
            coordinator_id: string;
            now: string;
            /** Format: int32 */
            protocol: number;
            started_at: string;
            tls: boolean;
            version: string;
        };
        Interval: {
            cause: components["schemas"]["LinkCause"];
            /** Format: int64 */
            from: number;
            reason: string;
            state: components["schemas"]["LinkState"];
            /** Format: int64 */
            to: number | null;
        };
        KeepCheckpoints: {
            /** Format: double */
            every?: number | null;
            failed?: boolean;
            /** Format: int32 */
            last?: number;
        };
        /** @enum {string} */
        LateResult: "accept" | "fence";
        LearnedKnobs: {
            at: string;
            hardware: string;
            knobs: {
                [key: string]: unknown;
            };
            task: string;
            task_type: string;
        };
        /** @enum {string} */
        LinkCause: "" | "coordinator_restarted" | "network" | "refused" | "silent" | "slept" | "slow" | "taken_over" | "worker_stopped";
        LinkNote: {
            /** Format: int64 */
            at: number;
            text: string;
        };
        LinkQuality: {
            /** Format: int64 */
            bytes_down: number;
            /** Format: int64 */
            bytes_up: number;
            /** Format: double */
            connection_success_rate: number;
            disconnects: {
                [key: string]: number;
            };
            /** Format: int64 */
            failed_connections: number;
            /** Format: double */
            goodput_down: number;
            /** Format: double */
            goodput_up: number;
            /** Format: int64 */
            heartbeats_lost: number;
            last_disconnect: components["schemas"]["Disconnect"] | null;
            /** Format: double */
            loss: number | null;
            /** Format: int64 */
            reconnects: number;
            /** Format: int32 */
            reconnects_per_minute: number;
            /** Format: int64 */
            resync_ms: number | null;
            rtt: components["schemas"]["RttView"] | null;
            /** Format: int64 */
            silent_ms: number | null;
            /** Format: double */
            suspicion: number | null;
            /** Format: int32 */
            worker_rtt_ms: number;
        };
        MetricSeries: {
            at: number[];
            checkpoints: (number | null)[];
            connected: (number | null)[];
            goodput_down: (number | null)[];
            goodput_up: (number | null)[];
            heartbeats_lost: (number | null)[];
            messages: (number | null)[];
            reconnects: (number | null)[];
            resolution: components["schemas"]["Resolution"];
            rtt_max_ms: (number | null)[];
            rtt_ms: (number | null)[];
            running: (number | null)[];
            /** Format: int64 */
            step_ms: number;
            suspicion: (number | null)[];
            tasks_executed: (number | null)[];
            tasks_failed: (number | null)[];
        };
        MoveTo: {
            to?: string | null;
        };
        OfType: {
            type?: string | null;
        };
        /** @enum {string} */
        OnContextLoss: "fail" | "note";
        /** @enum {string} */
        OnLeaseExpired: "continue" | "pause" | "stop";
        /** @enum {string} */
        OutcomeKind: "succeeded" | "failed" | "timed_out" | "cancelled" | "interrupted" | "returned";
        PastFailure: {
            at: string;
            /** Format: int64 */
            attempt: number;
            class: components["schemas"]["FailureClass"];
            evidence: string;
            failure_type: string;
            hardware: components["schemas"]["HardwareClass"];
            task: string;
            task_type: string;
            worker: string;
        };
        PatternRules: {
            /** @default 3 */
            count: number;
            /** @default 100 */
            history: number;
            /**
             * Format: double
             * @default 60
             */
            probation: number;
            /**
             * Format: double
             * @default 3600
             */
            window: number;
        };
        Problem: {
            conflicts?: string[];
            detail: string;
            /** Format: int32 */
            status: number;
            title: string;
            type: string;
        };
        Proof: {
            proof: string;
        };
        QuarantinedWorker: {
            /** Format: int32 */
            failed_probes: number;
            reason: string;
            since: string;
            state: components["schemas"]["Isolation"];
            until: string;
            worker: string;
        };
        Recovery: {
            /** Format: double */
            base_delay?: number | null;
            errors?: Record<string, never>;
            hardware?: Record<string, never>;
            /** Format: double */
            jitter?: number | null;
            /** Format: double */
            max_delay?: number | null;
            remember?: boolean | null;
            rules?: components["schemas"]["Rule"][];
        };
        RecoveryPatterns: {
            failures: components["schemas"]["PastFailure"][];
            learned: components["schemas"]["LearnedKnobs"][];
            patterns: components["schemas"]["FailurePattern"][];
            quarantined: components["schemas"]["QuarantinedWorker"][];
        };
        RecoveryTable: {
            /** Format: double */
            base_delay: number;
            errors: {
                [key: string]: components["schemas"]["Strategy"][];
            };
            hardware: {
                [key: string]: components["schemas"]["Strategy"][];
            };
            /** Format: double */
            jitter: number;
            labels: {
                [key: string]: components["schemas"]["Recovery"];
            };
            /** Format: double */
            max_delay: number;
            patterns: components["schemas"]["PatternRules"];
            remember: boolean;
            rules: components["schemas"]["Rule"][];
        };
        /** @enum {string} */
        Rerun: "allowed" | "never";
        RttView: {
            /** Format: double */
            jitter: number;
            /** Format: double */
            last: number;
            /** Format: double */
            mean: number;
            /** Format: double */
            median: number;
            /** Format: double */
            min: number;
            /** Format: double */
            p95: number;
            /** Format: int32 */
            samples: number;
        };
        Rule: {
            class: components["schemas"]["FailureClass"];
            pattern: string;
        };
        Run: {
            command: string[];
        } | {
            shell: string;
        } | {
            call: components["schemas"]["Call"];
        } | {
            browser: components["schemas"]["Browser"];
        };
        Session: {
            expires_at: string | null;
            needed: boolean;
            role: null | components["schemas"]["Role"];
        };
        /** @enum {string} */
        Strategy: "immediate_retry" | "delayed_retry" | "different_worker" | "different_hardware_class" | "reduced_precision" | "reduced_batch_size" | "simplified_model" | "fallback_cpu" | "browser_restart" | "escalation";
        Submitted: {
            tasks: components["schemas"]["SubmittedTask"][];
        };
        SubmittedTask: {
            created: boolean;
            id: string;
            state: components["schemas"]["TaskState"];
        };
        Task: {
            assigned_at: string | null;
            /** Format: int64 */
            attempt: number;
            cancelling: boolean;
            cause: components["schemas"]["Cause"];
            ended_at: string | null;
            has_result: boolean;
            id: string;
            /** Format: int64 */
            number: number;
            owner?: string;
            paused: boolean;
            /** Format: double */
            progress?: number;
            reason: string;
            /** Format: int32 */
            retries: number;
            spec: components["schemas"]["TaskSpec"];
            started_at: string | null;
            state: components["schemas"]["TaskState"];
            submitted_at: string;
            waiting_for?: string;
            worker: string | null;
        };
        TaskEvent: {
            at: string;
            /** Format: int64 */
            attempt: number;
            event: components["schemas"]["TaskEventKind"];
            id: string;
            reason: string;
            state: components["schemas"]["TaskState"] | null;
            worker: string | null;
        };
        TaskList: {
            next: string | null;
            tasks: components["schemas"]["Task"][];
        };
        TaskResult: {
            /** Format: int64 */
            attempt: number;
            /** Format: int64 */
            cpu_ms: number;
            /** Format: int64 */
            duration_ms: number | null;
            /** Format: int32 */
            exit_code: number | null;
            finished_at: string | null;
            id: string;
            /** Format: int64 */
            max_rss_bytes: number;
            message: string;
            outcome: components["schemas"]["OutcomeKind"] | null;
            /** Format: int32 */
            signal: number | null;
            started_at: string | null;
            state: components["schemas"]["TaskState"];
            stderr: string;
            /** Format: int64 */
            stderr_bytes: number;
            stderr_truncated: boolean;
            stdout: string;
            /** Format: int64 */
            stdout_bytes: number;
            stdout_truncated: boolean;
            value: unknown;
            worker: string | null;
        };
        TaskSpec: components["schemas"]["Run"] & {
            /** Format: double */
            checkpoint_interval?: number | null;
            checkpoint_signal?: string | null;
            cwd?: string | null;
            env?: {
                [key: string]: string;
            };
            keep_checkpoints?: components["schemas"]["KeepCheckpoints"];
            /** Format: double */
            kill_grace?: number;
            knobs?: {
                [key: string]: unknown[];
            };
            labels?: {
                [key: string]: string;
            };
            late_result?: components["schemas"]["LateResult"];
            /** Format: int32 */
            max_oom_retries?: number | null;
            /** Format: int32 */
            max_retries?: number;
            on_lease_expired?: components["schemas"]["OnLeaseExpired"];
            /** Format: int32 */
            priority?: number;
            queue?: string;
            /** Format: double */
            reconnect_window?: number;
            recovery?: components["schemas"]["Recovery"] | null;
            requires?: {
                [key: string]: string;
            };
            rerun?: components["schemas"]["Rerun"];
            retry_failures?: boolean;
            /** Format: int32 */
            slots?: number;
            /** Format: double */
            timeout?: number | null;
            traceparent?: string;
            tracestate?: string;
            type?: string;
        };
        /** @enum {string} */
        TaskState: "pending" | "assigned" | "succeeded" | "failed" | "cancelled";
        TaskStateView: {
            at: string | null;
            /** Format: int64 */
            attempt: number;
            id: string;
            /** Format: double */
            progress: number | null;
            state: Record<string, never>;
            /** Format: int64 */
            version: number;
        };
        Throughput: {
            at: number[];
            cancelled: number[];
            failed: number[];
            requeued: number[];
            /** Format: int64 */
            step_ms: number;
            submitted: number[];
            succeeded: number[];
            waiting: number[];
        };
        WhichEnded: {
            ids: string[];
            /** Format: int64 */
            wait?: number;
        };
        Worker: {
            bound_to?: string;
            capabilities: Record<string, never>;
            /** Format: int64 */
            connection: number;
            copied?: components["schemas"]["Copied"];
            disk: components["schemas"]["Disk"] | null;
            drained: boolean;
            gone_at: string | null;
            gone_cause: components["schemas"]["LinkCause"];
            gone_reason: string;
            /** Format: int64 */
            held: number;
            /** Format: int64 */
            incarnation: number;
            labels: {
                [key: string]: string;
            };
            name: string;
            quarantine?: components["schemas"]["Isolation"];
            /** Format: int32 */
            queued: number;
            /** Format: int32 */
            rtt_ms: number;
            /** Format: int32 */
            running: number;
            seen_at: string | null;
            /** Format: int32 */
            slots: number;
            state: components["schemas"]["WorkerState"];
            store_id: string;
            /** Format: int64 */
            unacked: number;
            unfit?: string;
            unfit_since?: string;
            version: string;
        };
        WorkerAction: {
            /** @enum {string} */
            type: "sync_state";
        } | {
            task_ids: string[];
            /** @enum {string} */
            type: "resend_task_results";
        } | {
            task_ids: string[];
            /** @enum {string} */
            type: "cancel_tasks";
        } | {
            /** @enum {string} */
            type: "reset_connection_stats";
        };
        WorkerEvent: {
            at: string;
            event: components["schemas"]["WorkerEventKind"];
            name: string;
            reason: string;
        };
        WorkerList: {
            workers: components["schemas"]["Worker"][];
        };
        WorkerMetrics: {
            adaptation: components["schemas"]["Adaptation"][];
            at: string;
            /** Format: double */
            avg_message_latency_ms: number | null;
            /** Format: double */
            avg_message_size_bytes: number | null;
            /** Format: double */
            avg_reconnect_time: number | null;
            /** Format: double */
            avg_task_execution_time_ms: number | null;
            /** Format: int64 */
            checkpoints_created: number;
            /** Format: int64 */
            checkpoints_restored: number;
            /** Format: double */
            compression_ratio: number | null;
            /** Format: double */
            compression_time_ms: number;
            /** Format: int64 */
            connection_attempts: number;
            /** Format: double */
            connection_stability: number;
            /** Format: double */
            decompression_time_ms: number;
            id: string;
            link: components["schemas"]["LinkQuality"];
            /** Format: double */
            max_reconnect_time: number | null;
            /** Format: int64 */
            message_errors: number;
            /** Format: int64 */
            messages_received: number;
            /** Format: int64 */
            messages_sent: number;
            name: string;
            series: components["schemas"]["MetricSeries"];
            state: components["schemas"]["WorkerState"];
            /** Format: int64 */
            successful_connections: number;
            /** Format: double */
            task_success_rate: number | null;
            /** Format: int64 */
            tasks_executed: number;
        };
        WorkerTimeline: {
            /** Format: int64 */
            from: number;
            id: string;
            intervals: components["schemas"]["Interval"][];
            name: string;
            notes: components["schemas"]["LinkNote"][];
            /** Format: int64 */
            to: number;
            truncated: boolean;
        };
        /** @enum {string} */
        HistoryEventKind: "submitted" | "assigned" | "started" | "requeued" | "succeeded" | "failed" | "cancelled" | "superseded" | "cancel_requested" | "retried" | "noted" | "pause_requested" | "resume_requested" | "recovery";
        /** @enum {string} */
        TaskEventKind: "submitted" | "assigned" | "started" | "requeued" | "succeeded" | "failed" | "cancelled" | "superseded" | "cancel_requested" | "retried" | "noted" | "pause_requested" | "resume_requested" | "recovery" | "checkpoint" | "state";
        /** @enum {string} */
        PatternKind: "worker" | "hardware" | "task_type" | "type_on_hardware" | "task";
        /** @enum {string} */
        HardwareClass: "cpu" | "gpu" | "tpu" | "npu" | "webgpu" | "webnn" | "browser";
        /** @enum {string} */
        WorkerState: "connected" | "draining" | "unfit" | "suspect" | "away";
        /** @enum {string} */
        WorkerEventKind: "connected" | "disconnected" | "drained" | "undrained" | "forgotten" | "unbound";
        /** @enum {string} */
        LinkState: "connected" | "resync" | "suspect" | "away" | "unknown";
        /** @enum {string} */
        Isolation: "quarantined" | "on probation";
        /** @enum {string} */
        Side: "coordinator" | "worker";
        /** @enum {string} */
        Resolution: "1s" | "1m" | "1h";
        /** @enum {string} */
        Role: "worker" | "submit" | "operate";
        /** @enum {string} */
        Severity: "info" | "warning" | "critical";
        /** @enum {string} */
        WorstSeverity: "info" | "warning" | "critical" | "";
        /** @enum {string} */
        AlertState: "firing" | "cleared";
        /** @enum {string} */
        AlertRuleName: "reconnects" | "reconnect_failed" | "latency" | "task_success" | "compression" | "unfit" | "copies";
        /** @enum {string} */
        AlertSide: "above" | "below";
        /** @enum {string} */
        AlertTarget: "log" | "webhook";
        Submission: components["schemas"]["TaskSpec"] & {
            id?: string | null;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type Adaptation = components['schemas']['Adaptation'];
export type Alert = components['schemas']['Alert'];
export type AlertList = components['schemas']['AlertList'];
export type AlertRule = components['schemas']['AlertRule'];
export type ArtifactList = components['schemas']['ArtifactList'];
export type Browser = components['schemas']['Browser'];
export type Call = components['schemas']['Call'];
export type Cause = components['schemas']['Cause'];
export type Checkpoint = components['schemas']['Checkpoint'];
export type CheckpointList = components['schemas']['CheckpointList'];
export type Copied = components['schemas']['Copied'];
export type CountsView = components['schemas']['CountsView'];
export type Disconnect = components['schemas']['Disconnect'];
export type Disk = components['schemas']['Disk'];
export type EndedTasks = components['schemas']['EndedTasks'];
export type Explanation = components['schemas']['Explanation'];
export type FailureClass = components['schemas']['FailureClass'];
export type FailurePattern = components['schemas']['FailurePattern'];
export type FleetColumns = components['schemas']['FleetColumns'];
export type FleetEvent = components['schemas']['FleetEvent'];
export type FleetPage = components['schemas']['FleetPage'];
export type FleetTotals = components['schemas']['FleetTotals'];
export type History = components['schemas']['History'];
export type HistoryEvent = components['schemas']['HistoryEvent'];
export type Info = components['schemas']['Info'];
export type Interval = components['schemas']['Interval'];
export type KeepCheckpoints = components['schemas']['KeepCheckpoints'];
export type LateResult = components['schemas']['LateResult'];
export type LearnedKnobs = components['schemas']['LearnedKnobs'];
export type LinkCause = components['schemas']['LinkCause'];
export type LinkNote = components['schemas']['LinkNote'];
export type LinkQuality = components['schemas']['LinkQuality'];
export type MetricSeries = components['schemas']['MetricSeries'];
export type MoveTo = components['schemas']['MoveTo'];
export type OfType = components['schemas']['OfType'];
export type OnContextLoss = components['schemas']['OnContextLoss'];
export type OnLeaseExpired = components['schemas']['OnLeaseExpired'];
export type OutcomeKind = components['schemas']['OutcomeKind'];
export type PastFailure = components['schemas']['PastFailure'];
export type PatternRules = components['schemas']['PatternRules'];
export type Problem = components['schemas']['Problem'];
export type Proof = components['schemas']['Proof'];
export type QuarantinedWorker = components['schemas']['QuarantinedWorker'];
export type Recovery = components['schemas']['Recovery'];
export type RecoveryPatterns = components['schemas']['RecoveryPatterns'];
export type RecoveryTable = components['schemas']['RecoveryTable'];
export type Rerun = components['schemas']['Rerun'];
export type RttView = components['schemas']['RttView'];
export type Rule = components['schemas']['Rule'];
export type Run = components['schemas']['Run'];
export type Session = components['schemas']['Session'];
export type Strategy = components['schemas']['Strategy'];
export type Submitted = components['schemas']['Submitted'];
export type SubmittedTask = components['schemas']['SubmittedTask'];
export type Task = components['schemas']['Task'];
export type TaskEvent = components['schemas']['TaskEvent'];
export type TaskList = components['schemas']['TaskList'];
export type TaskResult = components['schemas']['TaskResult'];
export type TaskSpec = components['schemas']['TaskSpec'];
export type TaskState = components['schemas']['TaskState'];
export type TaskStateView = components['schemas']['TaskStateView'];
export type Throughput = components['schemas']['Throughput'];
export type WhichEnded = components['schemas']['WhichEnded'];
export type Worker = components['schemas']['Worker'];
export type WorkerAction = components['schemas']['WorkerAction'];
export type WorkerEvent = components['schemas']['WorkerEvent'];
export type WorkerList = components['schemas']['WorkerList'];
export type WorkerMetrics = components['schemas']['WorkerMetrics'];
export type WorkerTimeline = components['schemas']['WorkerTimeline'];
export type HistoryEventKind = components['schemas']['HistoryEventKind'];
export type TaskEventKind = components['schemas']['TaskEventKind'];
export type PatternKind = components['schemas']['PatternKind'];
export type HardwareClass = components['schemas']['HardwareClass'];
export type WorkerState = components['schemas']['WorkerState'];
export type WorkerEventKind = components['schemas']['WorkerEventKind'];
export type LinkState = components['schemas']['LinkState'];
export type Isolation = components['schemas']['Isolation'];
export type Side = components['schemas']['Side'];
export type Resolution = components['schemas']['Resolution'];
export type Role = components['schemas']['Role'];
export type Severity = components['schemas']['Severity'];
export type WorstSeverity = components['schemas']['WorstSeverity'];
export type AlertState = components['schemas']['AlertState'];
export type AlertRuleName = components['schemas']['AlertRuleName'];
export type AlertSide = components['schemas']['AlertSide'];
export type AlertTarget = components['schemas']['AlertTarget'];
export type Submission = components['schemas']['Submission'];
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
