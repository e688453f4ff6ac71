// What happened, and what somebody should see to.

import { mayChange, whyNot } from "/dashboard/actions.js";
import { ask, encode } from "/dashboard/api.js";
import { fill, h, mark, time, toast, write } from "/dashboard/dom.js";
import { store } from "/dashboard/store.js";

const BAD = ["service_failed", "gave_up", "config_rejected", "database_trouble", "exited_unsupervised"];
const WARN = ["restart_scheduled", "resource_limit", "flapping", "external_change", "alert_raised", "service_waiting", "listener_trouble"];

export function tone(event) {
  if (BAD.includes(event.event_type) || event.details?.to === "unhealthy") return "bad";
  return WARN.includes(event.event_type) ? "warn" : "";
}

export function eventRow(event, withService = true) {
  const who = withService && h("td", { class: "who" }, event.service_id ? h("a", { href: `#/service/${encode(event.service_id)}` }, event.service_id) : "supervisor");
  return h("tr", { "data-tone": tone(event) }, h("td", { class: "when" }, time(event.timestamp)), who,
    h("td", { class: "kind" }, event.event_type.replaceAll("_", " ")), h("td", { class: "what" }, event.message));
}

export function eventsView() {
  const service = h("input", { type: "search", placeholder: "Service", "aria-label": "Only of this service", list: "known" });
  const kind = h("select", { "aria-label": "Only of this type" }, h("option", { value: "" }, "All types"));
  const known = h("datalist", { id: "known" }, [...store.services.keys()].map((id) => h("option", { value: id })));
  const body = h("tbody");
  const note = h("p", { class: "empty", role: "status" }, "Loading…");
  const more = h("button", { type: "button", hidden: true }, "Older");
  const heads = ["When", "Service", "What", "Message"].map((text) => h("th", { scope: "col" }, text));
  const element = h("div", {}, h("h1", {}, "Events"), h("div", { class: "tools" }, service, known, kind),
    h("div", { class: "scroll" }, h("table", { class: "events" }, h("thead", {}, h("tr", {}, heads)), body)), note, more);
  let [next, newest, turn, wait] = [null, 0, 0, 0];
  const kinds = new Set();

  function noteKinds(events) {
    for (const event of events) {
      if (kinds.has(event.event_type)) continue;
      kinds.add(event.event_type);
      kind.append(h("option", { value: event.event_type }, event.event_type.replaceAll("_", " ")));
    }
  }

  const wanted = (event) => (!service.value || event.service_id === service.value) && (!kind.value || event.event_type === kind.value);

  async function load(before) {
    const mine = ++turn;
    const query = new URLSearchParams({ limit: "100" });
    if (service.value) query.set("service", service.value);
    if (kind.value) query.set("type", kind.value);
    if (before) query.set("before", before);
    try {
      const page = await ask(`/events?${query}`);
      if (mine !== turn) return;
      noteKinds(page.events);
      const rows = page.events.map((event) => eventRow(event));
      if (before) body.append(...rows);
      else fill(body, rows);
      newest = Math.max(newest, page.events[0]?.id ?? 0);
      next = page.next_before;
      write(note, body.children.length ? "" : "Nothing like that happened.");
    } catch (error) {
      if (mine === turn) write(note, error.message);
    }
    mark(more, "hidden", !next);
  }

  more.addEventListener("click", () => load(next));
  kind.addEventListener("change", () => load());
  service.addEventListener("input", () => {
    clearTimeout(wait);
    wait = setTimeout(() => load(), 300);
  });
  load();
  return {
    title: "Events", element, search: service,
    changed(what) {
      if (!what.has("events")) return;
      const fresh = store.events.filter((event) => event.id > newest);
      noteKinds(fresh);
      newest = Math.max(newest, fresh[0]?.id ?? 0);
      const shown = fresh.filter(wanted);
      body.prepend(...shown.map((event) => eventRow(event)));
      if (shown.length) write(note, "");
    },
  };
}

export function alertsView() {
  const list = h("div", { class: "alerts" });
  const old = h("div", { class: "alerts" });
  const note = h("p", { class: "empty", role: "status" });
  const element = h("div", {}, h("h1", {}, "Alerts"), list, note, h("h2", {}, "Over"), old);

  async function acknowledge(alert) {
    try {
      await ask(`/alerts/${alert.id}/ack`, { method: "POST" });
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  function card(alert) {
    const facts = Object.entries(alert.details ?? {}).filter(([name]) => name !== "log");
    const ack = alert.acknowledged_at
      ? h("span", { class: "muted" }, "seen ", time(alert.acknowledged_at))
      : !alert.resolved_at && h("button", { type: "button", disabled: !mayChange(), title: whyNot(), onclick: () => acknowledge(alert) }, "Acknowledge");
    return h("article", { class: "panel alert", "data-severity": alert.resolved_at ? "over" : alert.severity },
      h("header", {}, h("span", { class: "word" }, alert.severity), alert.service_id && h("a", { href: `#/service/${encode(alert.service_id)}` }, alert.service_id),
        h("span", { class: "muted" }, alert.alert_type.replaceAll("_", " "), " · ", time(alert.created_at), alert.resolved_at && [" · over ", time(alert.resolved_at)]),
        h("span", { class: "grow" }), ack),
      h("p", {}, alert.message),
      (facts.length > 0 || alert.details?.log?.length > 0) && h("details", {}, h("summary", {}, "Details"),
        h("dl", {}, facts.map(([name, value]) => [h("dt", {}, name.replaceAll("_", " ")), h("dd", {}, typeof value === "string" ? value : JSON.stringify(value))])),
        alert.details?.log?.length > 0 && h("pre", {}, alert.details.log.map((line) => (typeof line === "string" ? line : line.message ?? JSON.stringify(line))).join("\n"))));
  }

  const rank = ["critical", "error", "warning"];
  function show() {
    const open = [...store.alerts.values()].sort((a, b) => rank.indexOf(a.severity) - rank.indexOf(b.severity) || b.id - a.id);
    fill(list, open.map(card));
    write(note, open.length ? "" : "Nothing needs you.");
  }

  async function past() {
    try {
      const { alerts } = await ask("/alerts?all=true&limit=100");
      const over = alerts.filter((alert) => alert.resolved_at).slice(0, 30);
      fill(old, over.length ? over.map(card) : h("p", { class: "empty" }, "None yet."));
    } catch (error) {
      fill(old, h("p", { class: "empty" }, error.message));
    }
  }
  show();
  past();
  return {
    title: "Alerts", element,
    changed(what) {
      if (what.has("alerts") || what.has("link")) show();
      if (what.has("alerts")) past();
    },
  };
}
