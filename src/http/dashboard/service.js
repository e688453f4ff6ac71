// One service: what it is now, what it was over time, what it says, how it is set up.

import { buttons, pendingOf } from "/dashboard/actions.js";
import { ask, encode } from "/dashboard/api.js";
import { band, chart } from "/dashboard/chart.js";
import { duration, fill, h, mark, mebibytes, milliseconds, percent, tick, time, toast, write } from "/dashboard/dom.js";
import { eventRow, tone } from "/dashboard/events.js";
import { logs } from "/dashboard/logs.js";
import { store, trouble } from "/dashboard/store.js";

const RANGES = { "10 minutes": 600e3, hour: 3600e3, day: 86400e3, week: 604800e3 };
let range = "hour";

export function serviceView(id) {
  const acts = buttons(id);
  const [name, state, reason] = [h("h1"), h("span", { class: "word" }), h("p", { class: "lead" })];
  const facts = h("dl", { class: "facts" });
  const checks = h("div");
  const config = h("div");
  const timeline = h("tbody");
  const empty = h("p", { class: "empty" });
  const options = { cpu: { format: percent, colour: "one" }, memory: { format: mebibytes, colour: "two" }, response: { format: milliseconds, colour: "three" } };
  const [states, cpu, memory, response] = [band("State"), chart("CPU", options.cpu), chart("Memory", options.memory), chart("Response time of the check", options.response)];
  const ranges = h("div", { class: "chips", role: "group", "aria-label": "Time" }, Object.keys(RANGES).map((key) =>
    h("button", { type: "button", class: "chip", "data-range": key, onclick: () => ((range = key), load()) }, `Last ${key}`)));
  const log = logs(id);
  const command = (text) => h("div", { class: "copy" }, h("code", {}, text), h("button", { type: "button", class: "quiet", "aria-label": `Copy ${text}`,
    onclick: () => navigator.clipboard?.writeText(text).then(() => toast("Copied.", "good"), () => toast("The browser does not let this page copy.", "warn")) }, "Copy"));
  const unit = h("div", { class: "stack" });
  const known = h("div", {}, h("div", { class: "tools" }, name, state, h("span", { class: "grow" }), acts.element), reason, facts,
    h("div", { class: "tools" }, h("h2", {}, "Over time"), ranges), h("div", { class: "charts" }, states.element, cpu.element, memory.element, response.element),
    h("div", { class: "halves" }, h("section", { class: "panel" }, h("h2", {}, "Checks"), checks), h("section", { class: "panel" }, h("h2", {}, "On the host"), unit)),
    log.element,
    h("section", { class: "panel" }, h("h2", {}, "Events"), h("div", { class: "scroll" }, h("table", { class: "events" },
      h("thead", { class: "sr" }, h("tr", {}, ["When", "What", "Message"].map((text) => h("th", { scope: "col" }, text)))), timeline))),
    h("section", { class: "panel" }, h("h2", {}, "Configuration"), config));
  const element = h("div", {}, known, empty);
  let [events, stale, turn, newest] = [[], 0, 0, 0];

  function header() {
    const service = store.services.get(id);
    mark(known, "hidden", !service);
    mark(empty, "hidden", Boolean(service));
    write(empty, store.link === "connecting" ? "Loading…" : `There is no service ${id}. It may have left the configuration.`);
    if (!service) return;
    write(name, service.name);
    write(state, pendingOf(id) ? `${pendingOf(id)}…` : service.state === "running" ? `running, ${service.health}` : service.enabled ? service.state : `${service.state}, disabled`);
    mark(state, "data-state", service.state === "running" && service.health !== "healthy" ? service.health : service.state);
    mark(state, "data-level", trouble(service));
    write(reason, service.flapping ? `${service.reason} – flapping: ${service.flapping_reason}` : service.reason);
    acts.update(service);
    const usage = service.usage ?? {};
    const of = (value, limit, format) => `${format(value)}${limit ? ` of ${format(limit)}` : ""}`;
    const rows = [
      ["Since", time(service.since)],
      service.start_time && ["Uptime", time(service.start_time, (stamp) => duration((Date.now() - Date.parse(stamp)) / 1000))],
      service.next_retry_at && ["Next restart", time(service.next_retry_at)],
      service.waiting_for.length > 0 && ["Waits for", service.waiting_for.map((other, at) => [at > 0 && ", ", h("a", { href: `#/service/${encode(other)}` }, other)])],
      service.pid && ["Process", String(service.pid)],
      service.port && ["Port", String(service.port)],
      service.pid && ["CPU", of(service.cpu_percent, service.cpu_limit_percent, percent)],
      service.pid && ["Memory", of(service.memory_mb, service.memory_limit_mb, mebibytes)],
      usage.memory_peak_mb && ["Most memory", mebibytes(usage.memory_peak_mb)],
      usage.throttled > 0.005 && ["Held back by the CPU limit", percent(usage.throttled * 100)],
      usage.oom_kills > 0 && ["Killed for want of memory", String(usage.oom_kills)],
      service.tasks && ["Tasks", String(service.tasks)],
      ["Restarts", service.last_restart ? [`${service.restart_count}, last `, time(service.last_restart)] : String(service.restart_count)],
      service.last_exit && ["Last exit", [exit(service.last_exit), ", ", time(service.last_exit.at)]],
      service.dependencies.length > 0 && ["Needs", service.dependencies.map((other, at) => [at > 0 && ", ", h("a", { href: `#/service/${encode(other)}` }, other)])],
      service.groups.length > 0 && ["Groups", service.groups.join(", ")],
      service.critical && ["Critical", "yes"],
    ].filter(Boolean);
    fill(facts, rows.map(([label, value]) => h("div", {}, h("dt", {}, label), h("dd", {}, value))));
    if (unit.dataset.unit !== service.unit) {
      unit.dataset.unit = service.unit;
      const scope = store.session?.scope === "user" ? "--user " : "";
      fill(unit, [`systemctl ${scope}status ${service.unit}`, `journalctl ${scope}SUPERVISOR_SERVICE=${id} -f`, `supervisorctl status ${id}`].map(command));
    }
  }

  async function health() {
    try {
      const answer = await ask(`/services/${encode(id)}/health`);
      fill(checks, answer.checks.map((check) => h("div", { class: "check", "data-status": check.status },
        h("strong", {}, check.type), " ", h("code", {}, check.target),
        h("p", {}, h("span", { class: "word", "data-state": check.status }, check.status), " ", check.message),
        check.checked_at && h("p", { class: "muted" }, milliseconds(check.response_time_ms), ", asked ", time(check.checked_at),
          check.consecutive_failures > 0 && `, ${check.consecutive_failures} failures in a row`))));
    } catch (error) {
      fill(checks, h("p", { class: "muted" }, error.message));
    }
  }

  async function load() {
    const mine = ++turn;
    [...ranges.children].forEach((chip) => mark(chip, "aria-pressed", String(chip.dataset.range === range)));
    const [until, from] = [Date.now(), Date.now() - RANGES[range]];
    const since = encode(new Date(from).toISOString());
    try {
      const [series, page] = await Promise.all([
        ask(`/services/${encode(id)}/metrics?since=${since}&points=240`),
        ask(`/events?service=${encode(id)}&limit=1000&since=${since}`)]);
      // What it was at the beginning is known only if something was told of it before.
      const oldest = page.events.at(-1)?.id;
      const earlier = oldest && (await ask(`/events?service=${encode(id)}&limit=1&before=${oldest}`)).events.length > 0;
      if (mine !== turn) return;
      events = page.events;
      newest = events[0]?.id ?? newest;
      const points = (field) => series.points.map((point) => [Date.parse(point.timestamp), point[field]]);
      const marks = events.filter((event) => tone(event)).slice(0, 200).map((event) => [Date.parse(event.timestamp), event.message, tone(event)]);
      const service = store.services.get(id);
      cpu.draw({ points: points("cpu_percent"), from, until, limit: service?.cpu_limit_percent, marks });
      memory.draw({ points: points("memory_mb"), from, until, limit: service?.memory_limit_mb, marks });
      response.draw({ points: points("response_time_ms"), from, until, marks });
      mark(response.element, "hidden", !points("response_time_ms").some((point) => point[1] !== null));
      states.draw({ parts: history(events, service, from, until, earlier), from, until });
      fill(timeline, events.slice(0, 50).map((event) => eventRow(event, false)));
      if (events.length === 0) fill(timeline, h("tr", {}, h("td", { class: "empty" }, `Nothing happened in the last ${range}.`)));
    } catch (error) {
      if (mine === turn) toast(error.message, "bad");
    }
  }

  async function setup() {
    try {
      const detail = await ask(`/services/${encode(id)}`);
      fill(config, detail.config ? h("pre", {}, JSON.stringify(detail.config, null, 2)) : h("p", { class: "empty" }, "The configuration is shown to those who have a token."));
    } catch (error) {
      fill(config, h("p", { class: "muted" }, error.message));
    }
  }

  header();
  load();
  health();
  setup();
  tick(element, () => {
    // Charts are brought up to date as new readings come, but not more often than they can be told apart.
    if (stale && Date.now() - stale > 4000) {
      stale = 0;
      load();
      health();
    }
  });
  return {
    title: id, element,
    chosen: () => id,
    close: log.close,
    changed(what) {
      if (what.has(id) || what.has("link")) header();
      if (what.has("readings")) stale ||= Date.now();
      if (what.has("events") && store.events.some((event) => event.service_id === id && event.id > newest)) {
        newest = store.events[0].id;
        load();
        health();
      }
      if (what.has("link") && store.link === "live") setup();
    },
  };
}

function exit({ code, signal, result }) {
  if (signal) return `${result}, signal ${signal}`;
  return result === "success" ? "ended with success" : `${result}${code === null ? "" : `, status ${code}`}`;
}

// From changes of state, the state at each time: a change says what was before it.
function history(events, service, from, until, earlier) {
  const changes = events.filter((event) => event.details?.from && event.details?.to && event.event_type !== "health_changed").reverse();
  const parts = [];
  let [at, word, why] = [from, earlier ? changes[0]?.details.from : undefined, ""];
  for (const event of changes) {
    const when = Date.parse(event.timestamp);
    if (word) parts.push([at, when, word, why]);
    [at, word, why] = [when, event.details.to, event.details.reason];
  }
  if (!word && service && Date.parse(service.since) <= from) word = service.state;
  if (!word && service) [at, word] = [Math.max(from, Date.parse(service.since)), service.state];
  if (word) parts.push([at, until, word, why]);
  return parts;
}
