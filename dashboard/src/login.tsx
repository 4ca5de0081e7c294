// Login with an API key.

import { useEffect, useRef, useState } from "preact/hooks";
import { ApiError, logIn, parting } from "./api";
import { useStore } from "./store";

export function Login() {
  const why = useStore(parting);
  const [key, setKey] = useState("");
  const [busy, setBusy] = useState(false);
  const [wrong, setWrong] = useState("");
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    document.title = "Log in · Outlast";
    field.current?.focus();
  }, []);

  const submit = async (event: Event) => {
    event.preventDefault();
    if (!key.trim()) return setWrong("Enter a key.");
    setBusy(true);
    setWrong("");
    try {
      await logIn(key.trim());
    } catch (error) {
      const known = error instanceof ApiError ? error : new ApiError(0, String(error), "");
      setWrong(`${known.message}${known.detail ? `: ${known.detail}` : ""}`);
      setBusy(false);
      field.current?.select();
    }
  };

  return (
    <main class="login">
      <form onSubmit={(e) => void submit(e)}>
        <h1>
          <Mark /> Outlast
        </h1>
        {why && <p role="status">{why}</p>}
        <label for="key">API key</label>
        <input
          id="key"
          ref={field}
          type="password"
          autocomplete="current-password"
          spellcheck={false}
          value={key}
          placeholder="olk_…"
          aria-invalid={wrong !== ""}
          aria-describedby="key-help key-wrong"
          onInput={(e) => setKey(e.currentTarget.value)}
        />
        <p id="key-wrong" class="wrong" role="alert">
          {wrong}
        </p>
        <button type="submit" class="solid" disabled={busy}>
          {busy ? "Checking…" : "Log in"}
        </button>
        <p id="key-help" class="muted">
          Role <em>submit</em> can view everything and control tasks; <em>operate</em> can also control workers. On the
          coordinator’s machine <code>outlast keys add NAME --role operate</code> creates one.
        </p>
      </form>
    </main>
  );
}

export function Mark() {
  return (
    <svg class="mark" viewBox="0 8 32 16" aria-hidden="true">
      <path d="M3 16h8" />
      <path d="M14.5 16h3" class="gap" />
      <path d="M21 16h8" />
    </svg>
  );
}
