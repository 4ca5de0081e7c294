// Frame of all pages: login, navigation, state of the connection.

import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, logOut, session, whoAmI } from "./api";
import { duration, time } from "./format";
import { follow, link, tryNow } from "./live";
import { Login, Mark } from "./login";
import { FleetPage } from "./pages/fleet";
import { TaskPage } from "./pages/task";
import { TasksPage } from "./pages/tasks";
import { WorkerPage } from "./pages/worker";
import { route, to } from "./route";
import { useStore } from "./store";
import { choose, theme, type Theme } from "./theme";
import { Toasts, tellUser, useNow } from "./ui";

export function App() {
  const me = useStore(session);
  const [error, setError] = useState<ApiError | null>(null);
  useEffect(() => {
    let timer = 0;
    const look = async () => {
      try {
        await whoAmI();
        setError(null);
      } catch (e) {
        setError(e instanceof ApiError ? e : new ApiError(0, String(e), ""));
        timer = window.setTimeout(() => void look(), 2000);
      }
    };
    void look();
    return () => clearTimeout(timer);
  }, []);
  if (!me) {
    return (
      <main class="login">
        <p role="status">{error ? `${error.message}; retrying…` : "Loading…"}</p>
      </main>
    );
  }
  if (!me.role) return <Login />;
  return <Frame />;
}

/** Events that each page subscribes to. */
const FOLLOWED: Record<string, (of: string) => string> = {
  fleet: () => "include=fleet,alert",
  worker: () => "include=worker,alert",
  task: (id) => `include=task&task=${id}`,
};

function Frame() {
  const { page, of } = useStore(route);
  const state = useStore(link).state;
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  // A new page subscribes to its own events and moves the focus to the top.
  useEffect(() => {
    follow(FOLLOWED[page]?.(encodeURIComponent(of)) ?? "include=alert");
    if (!first.current) {
      window.scrollTo(0, 0);
      main.current?.focus({ preventScroll: true });
    }
    first.current = false;
  }, [page, of]);
  useEffect(() => () => follow(null), []);
  return (
    <>
      <a class="skip" href="#main" onClick={(e) => (e.preventDefault(), main.current?.focus())}>
        Skip to content
      </a>
      <Top page={page} />
      <Lost />
      <main id="main" ref={main} tabIndex={-1} class={state === "lost" ? "stale" : ""}>
        {page === "fleet" && <FleetPage />}
        {page === "worker" && <WorkerPage key={of} name={of} />}
        {page === "tasks" && <TasksPage />}
        {page === "task" && <TaskPage key={of} id={of} />}
        {!["fleet", "worker", "tasks", "task"].includes(page) && (
          <p>
            Page not found. <a href={to("fleet")}>Go to the fleet</a>
          </p>
        )}
      </main>
      <Toasts />
    </>
  );
}

const THEMES: Record<Theme, [next: Theme, sign: string, text: string]> = {
  auto: ["light", "◐", "system setting"],
  light: ["dark", "☀", "light"],
  dark: ["auto", "☾", "dark"],
};

function Top({ page }: { page: string }) {
  const me = useStore(session);
  const [next, sign, text] = THEMES[useStore(theme)];
  const here = (name: string) => (page === name || page === name.replace(/s$/, "") ? "page" : undefined);
  return (
    <header class="top">
      <a class="brand" href={to("fleet")} aria-label="Outlast">
        <Mark />
        <span>Outlast</span>
      </a>
      <nav aria-label="Pages">
        <a href={to("fleet")} aria-current={page === "fleet" || page === "worker" ? "page" : undefined}>
          Fleet
        </a>
        <a href={to("tasks")} aria-current={here("tasks")}>
          Tasks
        </a>
      </nav>
      <LinkState />
      <button type="button" class="quiet icon" title={`Colours: ${text}`} aria-label={`Colours: ${text}. Change`} onClick={() => choose(next)}>
        {sign}
      </button>
      {me?.needed && (
        <button
          type="button"
          class="quiet"
          title={`Logged in with role ${me.role}`}
          onClick={() => logOut().catch((e: Error) => tellUser(e.message, true))}
        >
          Log out
        </button>
      )}
    </header>
  );
}

function LinkState() {
  const { state } = useStore(link);
  const [tone, text] = {
    connecting: ["idle", "Connecting"],
    live: ["good", "Live"],
    lost: ["bad", "Offline"],
    resting: ["idle", "Paused"],
  }[state] as [string, string];
  return (
    <span class={`link-state ${tone}`}>
      <span class="dot" aria-hidden="true" />
      {text}
    </span>
  );
}

/** Notice that the shown data is old, with its time. */
function Lost() {
  const { state, heard, retryAt } = useStore(link);
  return (
    <div role="status" aria-live="polite" class="lost-area">
      {state === "lost" && <LostBar heard={heard} retryAt={retryAt} />}
    </div>
  );
}

function LostBar({ heard, retryAt }: { heard: number; retryAt: number }) {
  const now = useNow(1000);
  const wait = Math.max(0, retryAt - now);
  return (
    <div class="lost">
      <strong>Connection to the coordinator lost, retrying.</strong>
      <span>{heard > 0 && `Showing data of ${time(heard)}, ${duration(now - heard)} ago.`}</span>
      <span aria-hidden="true" class="muted">
        {wait > 800 ? `Next attempt in ${Math.ceil(wait / 1000)} s` : "Connecting…"}
      </span>
      <button type="button" onClick={tryNow}>
        Try now
      </button>
    </div>
  );
}
