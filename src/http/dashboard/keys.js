// The keyboard.

import { order } from "/dashboard/actions.js";
import { h } from "/dashboard/dom.js";

const KEYS = [
  ["/", "search"],
  ["↓ ↑ or j k", "next and previous service"],
  ["Enter", "open the service"],
  ["s", "start it"],
  ["r", "restart it, after a question"],
  ["x", "stop it, after a question"],
  ["o e a c", "overview, events, alerts, configuration"],
  ["Esc", "back, or close"],
  ["?", "this list"],
];

export function showKeys() {
  if (document.querySelector("dialog[open]")) return;
  const dialog = h("dialog", { "aria-labelledby": "keys-title" },
    h("h2", { id: "keys-title" }, "Keyboard"),
    h("dl", { class: "keys" }, KEYS.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)])),
    h("form", { method: "dialog", class: "buttons" }, h("button", { autofocus: true }, "Close")));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

const VIEWS = { o: "#/", e: "#/events", a: "#/alerts", c: "#/config" };
const VERBS = { s: "start", r: "restart", x: "stop" };

// Nothing has the focus that Enter would mean; what is in a dialog that has just closed keeps it for a moment.
const idle = (target) => target.matches("body, main, dialog *");

// `view()` is what is shown; it may have `move(step)`, `chosen()` and `search`.
export function keyboard(view) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const writing = event.target.matches("input, select, textarea");
    if (writing) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const shown = view();
    const id = shown?.chosen?.();
    if (event.key === "?") showKeys();
    else if (event.key === "/" && shown?.search) shown.search.focus();
    else if (["ArrowDown", "j"].includes(event.key) && shown?.move) shown.move(1);
    else if (["ArrowUp", "k"].includes(event.key) && shown?.move) shown.move(-1);
    else if (event.key === "Enter" && id && idle(event.target)) location.hash = `#/service/${encodeURIComponent(id)}`;
    else if (event.key === "Escape" && location.hash !== "#/") location.hash = "#/";
    else if (VERBS[event.key] && id) order(id, VERBS[event.key], event.key !== "s");
    else if (VIEWS[event.key]) location.hash = VIEWS[event.key];
    else return;
    event.preventDefault();
  });
}
