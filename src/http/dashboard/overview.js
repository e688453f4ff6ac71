// Everything at a glance: trouble first, then every service in a row of its own that is only written where it changed.

import { buttons, pendingOf } from "/dashboard/actions.js";
import { ask, encode } from "/dashboard/api.js";
import { spark } from "/dashboard/chart.js";
import { ago, duration, exact, fill, h, mark, mebibytes, percent, tick, write } from "/dashboard/dom.js";
import { remember, store, touch, trouble } from "/dashboard/store.js";

const COLUMNS = [
  ["service", "Service", (s) => s.id],
  ["state", "State", (s) => -trouble(s) * 10 + ["fatal", "failed", "backoff", "starting", "stopping", "running", "stopped"].indexOf(s.state)],
  ["why", "Why"],
  ["uptime", "Uptime", (s) => (s.start_time ? -Date.parse(s.start_time) : 1)],
  ["cpu", "CPU", (s) => -(s.cpu_percent ?? -1)],
  ["memory", "Memory", (s) => -(s.memory_mb ?? -1)],
  ["restarts", "Restarts", (s) => -s.restart_count],
];

// What is chosen stays chosen when one comes back to this page.
const chosen = { sort: "state", reverse: false, text: "", show: "all", group: "" };
let current = null;

export function overview() {
  const rows = new Map();
  const search = h("input", { type: "search", id: "search", placeholder: "Search  ( / )", "aria-label": "Search services", value: chosen.text,
    oninput: () => ((chosen.text = search.value), arrange()) });
  const group = h("select", { "aria-label": "Group", onchange: () => ((chosen.group = group.value), arrange()) });
  const chips = h("div", { class: "chips", role: "group", "aria-label": "Filter by state" });
  const troubles = h("section", { class: "troubles", "aria-label": "Trouble" });
  const body = h("tbody");
  const heads = COLUMNS.map(([key, title, by]) => {
    const sort = () => {
      [chosen.reverse, chosen.sort] = [chosen.sort === key && !chosen.reverse, key];
      arrange();
    };
    return h("th", { scope: "col", "data-column": key }, by ? h("button", { type: "button", class: "sort", onclick: sort }, title) : title);
  });
  const table = h("table", { class: "services" },
    h("caption", { class: "sr" }, "Services"),
    h("thead", {}, h("tr", {}, heads, h("th", { scope: "col" }, h("span", { class: "sr" }, "Actions")))), body);
  const empty = h("p", { class: "empty", hidden: true });
  const element = h("div", {}, h("h1", { class: "sr" }, "Overview"), troubles,
    h("div", { class: "tools" }, search, group, chips), h("div", { class: "scroll" }, table), empty);
  let order = [];

  const visible = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) rows.get(entry.target.dataset.id)?.wanted();
  });

  function row(id) {
    const made = rows.get(id) ?? makeRow(id, visible);
    rows.set(id, made);
    return made;
  }

  function matches(service) {
    const text = chosen.text.trim().toLowerCase();
    const words = `${service.id} ${service.name} ${service.state} ${service.health} ${service.reason} ${service.groups.join(" ")}`.toLowerCase();
    const level = trouble(service);
    const shown = { all: true, trouble: level >= 2, attention: level === 1, running: service.state === "running", stopped: service.state === "stopped" }[chosen.show];
    return shown && text.split(/\s+/).every((word) => words.includes(word)) && (!chosen.group || service.groups.includes(chosen.group));
  }

  // Rows are put in order only when the order differs: nothing jumps under the pointer for a mere change of a figure.
  function arrange() {
    const by = COLUMNS.find(([key]) => key === chosen.sort)?.[2] ?? ((s) => s.id);
    const ranked = [...store.services.values()].filter(matches).map((service) => [by(service), service.priority, service.id]);
    const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    ranked.sort((a, b) => (chosen.reverse ? -1 : 1) * compare(a[0], b[0]) || compare(a[1], b[1]) || compare(a[2], b[2]));
    const next = ranked.map((entry) => entry[2]);
    if (next.length !== order.length || next.some((id, at) => id !== order[at])) {
      order = next;
      fill(body, order.map((id) => row(id).element));
    }
    heads.forEach((head) => mark(head, "aria-sort", head.dataset.column === chosen.sort ? (chosen.reverse ? "descending" : "ascending") : null));
    for (const id of rows.keys()) if (!store.services.has(id)) rows.delete(id);
    if (current && !store.services.has(current)) current = null;
    summary();
    highlight();
  }

  function summary() {
    const all = [...store.services.values()];
    const of = (test) => all.filter(test).length;
    const counts = [["all", "All", all.length], ["trouble", "Trouble", of((s) => trouble(s) >= 2)], ["attention", "Attention", of((s) => trouble(s) === 1)],
      ["running", "Running", of((s) => s.state === "running")], ["stopped", "Stopped", of((s) => s.state === "stopped")]];
    const keep = chips.children.length === counts.length;
    if (!keep) fill(chips, counts.map(([key]) => h("button", { type: "button", class: "chip", "data-show": key, onclick: () => ((chosen.show = key), arrange()) }, h("span"), h("b"))));
    counts.forEach(([key, label, n], at) => {
      const chip = chips.children[at];
      write(chip.firstChild, label);
      write(chip.lastChild, String(n));
      mark(chip, "aria-pressed", String(chosen.show === key));
      mark(chip, "data-some", n > 0);
    });
    const groups = [...new Set(all.flatMap((s) => s.groups))].sort();
    if (groups.join() !== [...group.options].slice(1).map((o) => o.value).join()) {
      fill(group, [h("option", { value: "" }, "All groups"), groups.map((name) => h("option", { value: name }, name))]);
      group.value = chosen.group;
    }
    mark(group, "hidden", groups.length === 0);
    const worst = all.filter((s) => trouble(s) === 3).sort((a, b) => (a.id < b.id ? -1 : 1));
    const told = worst.map((s) => `${s.id} ${s.state} ${s.health} ${s.reason}`).join("\n");
    if (troubles.dataset.told !== told) {
      troubles.dataset.told = told;
      fill(troubles, worst.slice(0, 6).map((s) => h("a", { class: "trouble", href: `#/service/${encode(s.id)}` },
        h("strong", {}, s.name), h("span", { class: "word", "data-state": s.state }, s.state === "running" ? s.health : s.state), countdown(s.id))));
    }
    const nothing = store.link === "connecting" && all.length === 0 ? "Loading…" : all.length === 0
      ? "There are no services yet. Describe them in supervisor_config.json, then reload under Configuration." : order.length === 0 ? "No service is like that." : "";
    write(empty, nothing);
    mark(empty, "hidden", !nothing);
    mark(table, "hidden", Boolean(nothing));
  }

  function highlight() {
    rows.forEach((one, id) => mark(one.element, "aria-current", id === current ? "true" : null));
  }

  function changed(what) {
    let moved = what.has("list") || what.has("link");
    for (const id of what) {
      const service = store.services.get(id);
      if (!service) continue;
      const made = row(id);
      moved = made.update(service) || moved || ["cpu", "memory"].includes(chosen.sort);
    }
    if (what.has("link")) store.services.forEach((service, id) => row(id).update(service));
    if (moved) arrange();
  }

  body.addEventListener("chosen", highlight);
  store.services.forEach((service, id) => row(id).update(service));
  arrange();
  const ticker = h("span", { class: "sr", "aria-hidden": "true" });
  element.append(ticker);
  tick(ticker, () => rows.forEach((one) => one.second()));
  return {
    title: "Overview", element, changed, search,
    chosen: () => current,
    move(step) {
      if (order.length === 0) return;
      const at = order.indexOf(current);
      current = order[Math.min(Math.max(at + step, 0), order.length - 1)];
      highlight();
      rows.get(current)?.element.scrollIntoView({ block: "nearest" });
    },
    close: () => visible.disconnect(),
  };
}

// Readings of the last half hour, for rows that are seen; a few requests at a time.
const queue = [];
let asking = 0;

function fetchReadings() {
  while (asking < 3 && queue.length > 0) {
    const id = queue.shift();
    asking += 1;
    const since = new Date(Date.now() - 1800000).toISOString();
    ask(`/services/${encode(id)}/metrics?since=${encode(since)}&points=60`)
      .then((series) => (remember(id, series.points.map((p) => [Date.parse(p.timestamp), p.cpu_percent, p.memory_mb])), touch(id)))
      .catch(() => {})
      .finally(() => ((asking -= 1), fetchReadings()));
  }
}

// One row. `update` says whether its place may be another one.
function makeRow(id, visible) {
  const cell = (name, ...children) => h("td", { class: name }, children);
  const [name, note] = [h("a", { href: `#/service/${encode(id)}` }, id), h("small")];
  const [state, health] = [h("span", { class: "word" }), h("small")];
  const why = h("span", { class: "reason" });
  const uptime = h("span");
  const [cpu, cpuLine, memory, memoryLine] = [h("span"), spark(), h("span"), spark()];
  const restarts = h("span");
  const acts = buttons(id);
  const element = h("tr", { "data-id": id, onclick: () => ((current = id), element.dispatchEvent(new CustomEvent("chosen", { bubbles: true }))) },
    h("th", { scope: "row", class: "name" }, name, note), cell("state", state, health), cell("why", why), cell("uptime", uptime),
    cell("cpu", cpu, cpuLine.element), cell("memory", memory, memoryLine.element), cell("restarts", restarts), cell("actions", acts.element));
  let [service, before, asked] = [null, "", false];

  function second() {
    if (!service) return;
    const up = service.start_time ? duration((Date.now() - Date.parse(service.start_time)) / 1000) : "–";
    write(uptime, up);
    write(why, reason(service));
  }

  visible.observe(element);
  return {
    element, second,
    wanted() {
      if (asked || !service?.pid) return;
      asked = true;
      queue.push(id);
      fetchReadings();
    },
    update(next) {
      service = next;
      write(note, next.name === id ? "" : next.name);
      mark(name, "title", next.description || null);
      mark(element, "data-level", trouble(next));
      mark(element, "data-critical", next.critical);
      const busy = pendingOf(id);
      write(state, busy ? `${busy}…` : next.enabled ? next.state : "disabled");
      mark(state, "data-state", next.enabled || next.state !== "stopped" ? next.state : "disabled");
      write(health, next.state === "running" ? `${next.health}${next.flapping ? ", flapping" : ""}` : "");
      mark(health, "data-health", next.health);
      mark(uptime, "title", next.start_time ? `since ${exact(next.start_time)}` : null);
      write(cpu, percent(next.cpu_percent));
      write(memory, `${mebibytes(next.memory_mb)}${next.memory_limit_mb && next.memory_mb !== null ? ` / ${mebibytes(next.memory_limit_mb)}` : ""}`);
      mark(memory, "data-near", Boolean(next.memory_limit_mb && next.memory_mb > next.memory_limit_mb * 0.9));
      mark(cpu, "data-near", Boolean(next.cpu_limit_percent && next.cpu_percent > next.cpu_limit_percent * 0.9));
      const readings = store.readings.get(id) ?? [];
      cpuLine.draw(readings.map((reading) => reading[1]), next.cpu_limit_percent);
      memoryLine.draw(readings.map((reading) => reading[2]), next.memory_limit_mb);
      write(restarts, String(next.restart_count));
      mark(restarts, "title", next.last_restart ? `last ${ago(next.last_restart)}, ${exact(next.last_restart)}` : null);
      acts.update(next);
      second();
      const place = `${next.state} ${next.health} ${next.restart_count} ${next.flapping} ${next.reason} ${next.waiting_for}`;
      const moved = place !== before;
      before = place;
      return moved;
    },
  };
}

function countdown(id) {
  const words = () => (store.services.has(id) ? reason(store.services.get(id)) : "");
  const element = h("span", {}, words());
  tick(element, () => write(element, words()));
  return element;
}

// Why it is as it is, with a countdown to what comes next.
function reason(service) {
  if (service.state === "running" && service.health === "healthy" && !service.flapping) return "";
  if (service.waiting_for.length > 0) return `waits for ${service.waiting_for.join(", ")}`;
  if (service.next_retry_at) {
    const rest = Math.max(0, Math.ceil((Date.parse(service.next_retry_at) - Date.now()) / 1000));
    return `${service.reason.replace(/,? restart in [^;,]*$/, "")}, restart in ${duration(rest)}`;
  }
  return service.flapping ? service.flapping_reason : service.reason;
}

