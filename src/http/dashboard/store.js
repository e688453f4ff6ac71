// Everything that is known, kept true by the stream. Views ask to be told of what changed, at most once a frame.

import { ask, follow, Problem } from "/dashboard/api.js";

export const store = {
  services: new Map(),
  alerts: new Map(),
  events: [],
  // Per service, the last readings: [time, cpu, memory].
  readings: new Map(),
  session: null,
  // "connecting", "live", "lost" or "closed"
  link: "connecting",
  since: Date.now(),
  why: "",
  hello: null,
};

const READINGS = 60;
const EVENTS = 300;
const listeners = new Set();
let changed = new Set();
let frame = 0;

// `told` gets a set of what changed: ids of services, "alerts", "events", "readings", "link".
export function listen(told) {
  listeners.add(told);
  return () => listeners.delete(told);
}

export function touch(what) {
  changed.add(what);
  frame ||= requestAnimationFrame(() => {
    const now = changed;
    [changed, frame] = [new Set(), 0];
    listeners.forEach((told) => told(now));
  });
}

function setLink(link, why = "") {
  if (store.link !== link) store.since = Date.now();
  [store.link, store.why] = [link, why];
  touch("link");
}

export async function openSession() {
  store.session = await ask("/session");
  touch("link");
}

let stop = null;

export function disconnect() {
  stop?.abort();
  stop = null;
}

// Connects again for ever, slower each time, and goes on after the last event.
export async function connect(unauthorized) {
  disconnect();
  const mine = (stop = new AbortController());
  let [last, pause] = [undefined, 500];
  while (!mine.signal.aborted) {
    try {
      const take = (kind, id, data) => {
        last = id ?? last;
        pause = 500;
        take_in(kind, data);
      };
      await follow("/stream", { last, signal: mine.signal, take });
      setLink("lost", "the supervisor ended the connection");
    } catch (error) {
      if (mine.signal.aborted) return;
      if (error instanceof Problem && error.status === 401) return unauthorized(error);
      setLink("lost", error.message);
    }
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, pause + Math.random() * 250);
      mine.signal.addEventListener("abort", () => (clearTimeout(timer), resolve()));
    });
    pause = Math.min(pause * 2, 10000);
  }
}

let unseen = null;

function take_in(kind, data) {
  switch (kind) {
    case "hello":
    case "resync":
      unseen = { services: new Set(store.services.keys()), alerts: new Set(store.alerts.keys()) };
      if (kind === "hello") store.hello = data;
      break;
    case "ready":
      unseen?.services.forEach(remove);
      unseen?.alerts.forEach((id) => store.alerts.delete(id));
      unseen = null;
      touch("alerts");
      setLink("live");
      break;
    case "service":
    case "state":
    case "health":
      unseen?.services.delete(data.id);
      if (!store.services.has(data.id)) touch("list");
      store.services.set(data.id, data);
      touch(data.id);
      break;
    case "removed":
      remove(data.id);
      break;
    case "alert":
      unseen?.alerts.delete(data.id);
      if (data.resolved_at) store.alerts.delete(data.id);
      else store.alerts.set(data.id, data);
      touch("alerts");
      break;
    case "metrics":
      for (const [id, reading] of Object.entries(data.services)) {
        const service = store.services.get(id);
        if (!service) continue;
        store.services.set(id, { ...service, ...reading });
        remember(id, [[Date.parse(data.timestamp), reading.cpu_percent, reading.memory_mb]]);
        touch(id);
      }
      touch("readings");
      break;
    case "event":
      store.events.unshift(data);
      store.events.length = Math.min(store.events.length, EVENTS);
      touch("events");
      break;
  }
}

function remove(id) {
  store.services.delete(id);
  store.readings.delete(id);
  touch(id);
  touch("list");
}

export function remember(id, rows) {
  const known = store.readings.get(id) ?? [];
  const merged = [...known, ...rows.filter((row) => !known.some((old) => old[0] === row[0]))];
  merged.sort((a, b) => a[0] - b[0]);
  store.readings.set(id, merged.slice(-READINGS));
}

// How bad it is: 3 critical, 2 bad, 1 to look at, 0 well.
export function trouble(service) {
  if (!service.enabled) return 0;
  const down = ["failed", "fatal", "backoff"].includes(service.state);
  const ill = service.health === "unhealthy";
  if ((down || ill) && service.critical) return 3;
  if (down || ill) return 2;
  return service.health === "degraded" || service.flapping || service.waiting_for.length > 0 ? 1 : 0;
}
