// Lines of the journal of one service, as they are written; searched, and held while somebody reads.

import { ask, encode, follow } from "/dashboard/api.js";
import { exact, fill, h, write } from "/dashboard/dom.js";
import { store } from "/dashboard/store.js";

const MOST = 2000;
const LEVELS = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

export function logs(id) {
  if (store.session && !store.session.may_see_inside) {
    return { element: h("p", { class: "empty" }, "Logs are shown to those who have a token."), close() {} };
  }
  const list = h("div", { class: "log", role: "log", "aria-label": `Log of ${id}`, "aria-live": "off", tabindex: "0" });
  const search = h("input", { type: "search", placeholder: "Search the log", "aria-label": "Search the log" });
  const pause = h("button", { type: "button", "aria-pressed": "false" }, "Pause");
  const older = h("button", { type: "button", class: "quiet" }, "Older lines");
  const note = h("span", { class: "muted", role: "status" });
  const element = h("section", { class: "panel" }, h("div", { class: "tools" }, h("h2", {}, "Log"), search, pause, older, note), list);
  let [running, held, before, wait] = [null, null, null, 0];

  const line = (entry) => h("div", { class: "entry", "data-level": entry.priority <= 3 ? "bad" : entry.priority === 4 ? "warn" : entry.unit?.startsWith("supervisor-") ? "" : "own" },
    h("time", { datetime: entry.timestamp, title: `${exact(entry.timestamp)} ${LEVELS[entry.priority] ?? ""}` }, exact(entry.timestamp).slice(5)), " ", h("span", {}, entry.message));

  function add(entries) {
    const below = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.append(...entries.map(line));
    while (list.children.length > MOST) list.firstChild.remove();
    if (below) list.scrollTop = list.scrollHeight;
  }

  async function begin() {
    running?.abort();
    const mine = (running = new AbortController());
    const grep = search.value ? `&grep=${encode(search.value)}` : "";
    try {
      const page = await ask(`/services/${encode(id)}/logs?lines=200${grep}`, { signal: mine.signal });
      before = page.next_before;
      fill(list, page.entries.map(line));
      list.scrollTop = list.scrollHeight;
      older.hidden = !before;
      write(note, page.entries.length ? "" : search.value ? "no line has that" : "nothing was written yet");
      let last = page.next_after;
      while (!mine.signal.aborted) {
        const path = `/services/${encode(id)}/logs?follow=true&lines=0${grep}`;
        await follow(path, { last, signal: mine.signal, take(kind, cursor, data) {
          last = cursor ?? last;
          if (kind !== "line") return;
          if (held) {
            held = [...held, data].slice(-MOST);
            write(note, `${held.length} new`);
          } else {
            add([data]);
            write(note, "");
          }
        } }).catch((error) => {
          if (!mine.signal.aborted) write(note, error.message);
        });
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    } catch (error) {
      if (!mine.signal.aborted) write(note, error.message);
    }
  }

  pause.addEventListener("click", () => {
    const go = held;
    held = held ? null : [];
    pause.setAttribute("aria-pressed", String(held !== null));
    write(pause, held ? "Go on" : "Pause");
    write(note, held ? "held" : "");
    if (go) add(go);
  });
  older.addEventListener("click", async () => {
    const grep = search.value ? `&grep=${encode(search.value)}` : "";
    try {
      const page = await ask(`/services/${encode(id)}/logs?lines=200&before=${encode(before)}${grep}`);
      const height = list.scrollHeight;
      list.prepend(...page.entries.map(line));
      list.scrollTop += list.scrollHeight - height;
      before = page.next_before;
      older.hidden = !before;
    } catch (error) {
      write(note, error.message);
    }
  });
  search.addEventListener("input", () => {
    clearTimeout(wait);
    wait = setTimeout(begin, 300);
  });
  begin();
  return { element, close: () => running?.abort() };
}
