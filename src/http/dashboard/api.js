// The API of this server, with the token of this tab. The token stays in this tab, is never in an address that goes
// over the wire, and is forgotten when the tab is closed.

const BASE = "/api/supervisor";
const KEY = "process-supervisor-token";

let token = null;
try {
  token = sessionStorage.getItem(KEY);
} catch {
  // Without storage the token lasts until the page is left.
}

export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ?? `the supervisor answered ${status}`);
    this.status = status;
    this.body = body ?? {};
  }
}

export function setToken(next) {
  token = next;
  try {
    if (next) sessionStorage.setItem(KEY, next);
    else sessionStorage.removeItem(KEY);
  } catch {
    // See above.
  }
}

export function hasToken() {
  return token !== null;
}

// `supervisorctl dashboard` prints an address with #token=...; it leaves the address bar and the history at once.
export function takeTokenFromAddress() {
  const given = /^#token=([\x21-\x7e]{1,512})$/.exec(location.hash);
  if (!given) return;
  setToken(given[1]);
  history.replaceState(null, "", location.pathname + "#/");
}

function headers(more = {}) {
  return token ? { Authorization: `Bearer ${token}`, ...more } : more;
}

export async function ask(path, { method = "GET", body, signal } = {}) {
  const sent = body === undefined ? {} : { body: JSON.stringify(body) };
  const kind = body === undefined ? {} : { "Content-Type": "application/json" };
  let response;
  try {
    response = await fetch(BASE + path, { method, headers: headers(kind), signal, cache: "no-store", ...sent });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "the supervisor does not answer" });
  }
  const text = await response.text();
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    throw new Problem(response.status, { detail: "the answer is not understood" });
  }
  if (!response.ok && !(response.status === 503 && answer?.services)) throw new Problem(response.status, answer);
  return answer;
}

export const encode = encodeURIComponent;

// Reads server-sent events until the stream ends; silent for too long counts as an end. `take` gets kind, id and data.
export async function follow(path, { last, signal, take, silence = 45000 }) {
  const watchdog = new AbortController();
  const abort = () => watchdog.abort();
  signal?.addEventListener("abort", abort);
  let timer = setTimeout(abort, silence);
  try {
    const sent = headers(last ? { "Last-Event-ID": last } : {});
    const response = await fetch(BASE + path, { headers: sent, signal: watchdog.signal, cache: "no-store" });
    if (!response.ok) throw new Problem(response.status, await response.json().catch(() => null));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(abort, silence);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      blocks.forEach((block) => message(block, take));
    }
  } catch (error) {
    if (error instanceof Problem || signal?.aborted) throw error;
    throw new Problem(0, { detail: "the connection to the supervisor is lost" });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}

function message(block, take) {
  let kind = "message", id, data = "";
  for (const line of block.split("\n")) {
    const value = line.slice(line.indexOf(":") + 1).trimStart();
    if (line.startsWith("event:")) kind = value;
    else if (line.startsWith("id:")) id = value;
    else if (line.startsWith("data:")) data += value;
  }
  if (data) take(kind, id, JSON.parse(data));
  else if (id) take("mark", id, null);
}
