// What a script finds in its page: the object `outlast`, and watchers over GPU contexts.
(() => {
  const LIMIT = 32 << 20; // of one message, as in run.rs
  const send = globalThis.__outlast_send;
  if (!send || globalThis.__outlast) return;
  const { stringify, parse } = JSON;
  const waiting = new Map();
  let last = 0;

  const ask = (op, fields) =>
    new Promise((resolve, reject) => {
      const message = stringify({ ...fields, id: ++last, op });
      if (message.length > LIMIT) {
        throw new RangeError(`${op}: ${message.length} bytes, the limit is ${LIMIT}`);
      }
      waiting.set(last, { resolve, reject });
      send(message);
    });

  const toBase64 = (bytes) => {
    let text = "";
    for (let i = 0; i < bytes.length; i += 32768) {
      text += String.fromCharCode.apply(null, bytes.subarray(i, i + 32768));
    }
    return btoa(text);
  };
  const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

  // Bytes stay bytes; all else travels as JSON.
  const encode = (what, value) => {
    if (value instanceof ArrayBuffer) return { bytes: toBase64(new Uint8Array(value)) };
    if (ArrayBuffer.isView(value)) {
      return { bytes: toBase64(new Uint8Array(value.buffer, value.byteOffset, value.byteLength)) };
    }
    const json = stringify(value);
    if (json === undefined) throw new TypeError(`${what} is nothing that JSON can say`);
    return { json };
  };

  const handlers = { checkpoint: null };
  const task = {
    id: "", attempt: 0, args: null,
    async checkpoint(value, options = {}) {
      return ask("checkpoint", { ...encode("the checkpoint", value), name: options.name, meta: options.meta });
    },
    async restore() {
      const found = await ask("restore", {});
      if (!found) return null;
      return found.bytes === undefined ? parse(found.json) : fromBase64(found.bytes);
    },
    async progress(value, message, data) {
      return ask("progress", { value, message, data });
    },
    async state(changes) {
      return ask("state", { changes });
    },
    async artifact(name, value) {
      if (typeof value === "string") return ask("artifact", { name, json: value });
      return ask("artifact", { name, ...encode("the artifact", value) });
    },
    onCheckpoint(make) {
      const first = !handlers.checkpoint;
      handlers.checkpoint = make;
      if (first) ask("listen", {});
    },
  };

  Object.defineProperty(globalThis, "__outlast", {
    value: {
      answer(id, ok, value) {
        const { resolve, reject } = waiting.get(id) ?? {};
        waiting.delete(id);
        if (ok) resolve?.(value);
        else reject?.(new Error(value));
      },
      begin(known) {
        Object.assign(task, known);
        Object.freeze(task);
      },
      async asked() {
        const value = await handlers.checkpoint?.();
        if (value !== undefined) await task.checkpoint(value);
      },
      async run(made) {
        let found = made;
        if (found === undefined && typeof globalThis.main === "function") found = globalThis.main;
        if (typeof found === "function") found = found(task);
        return stringify((await found) ?? null);
      },
    },
  });
  Object.defineProperty(globalThis, "outlast", { value: task, configurable: true, writable: true });

  // Lost GPU contexts. A page that prevents a loss's default has it restored by the browser, and
  // gets some time for that.
  const RESTORE = 10000;
  const lost = (api, detail) => send(stringify({ id: 0, op: "lost", api, detail }));
  const watched = new WeakSet();
  for (const Canvas of [globalThis.HTMLCanvasElement, globalThis.OffscreenCanvas]) {
    if (!Canvas) continue;
    const getContext = Canvas.prototype.getContext;
    Canvas.prototype.getContext = function (kind, ...rest) {
      const context = getContext.call(this, kind, ...rest);
      if (context && /webgl/.test(kind) && !watched.has(this)) {
        watched.add(this);
        let timer;
        this.addEventListener("webglcontextlost", (event) => {
          const detail = event.statusMessage || "";
          setTimeout(() => {
            if (!event.defaultPrevented) return lost("WebGL", detail);
            timer = setTimeout(() => lost("WebGL", "and not restored in 10 s"), RESTORE);
          });
        });
        this.addEventListener("webglcontextrestored", () => clearTimeout(timer));
      }
      return context;
    };
  }
  if (globalThis.GPUAdapter) {
    const requestDevice = GPUAdapter.prototype.requestDevice;
    GPUAdapter.prototype.requestDevice = async function (...rest) {
      const device = await requestDevice.apply(this, rest);
      device.lost.then((info) => {
        // "destroyed" is what the page itself asked for.
        if (info.reason !== "destroyed") lost("WebGPU", info.message || info.reason);
      });
      return device;
    };
  }
  if (globalThis.ML) {
    const createContext = ML.prototype.createContext;
    ML.prototype.createContext = async function (...rest) {
      const context = await createContext.apply(this, rest);
      context.lost?.then((info) => lost("WebNN", info.message || ""));
      return context;
    };
  }
})();
