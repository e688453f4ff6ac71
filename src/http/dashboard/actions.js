// Orders, and what came of them in the supervisor's own words.

import { ask, encode } from "/dashboard/api.js";
import { confirmed, h, mark, toast } from "/dashboard/dom.js";
import { store, touch } from "/dashboard/store.js";

// Services that somebody here gave an order to and that did not answer yet.
const pending = new Map();

export function pendingOf(id) {
  return pending.get(id);
}

export function mayChange() {
  return store.session?.may_change === true && store.link === "live";
}

export function whyNot() {
  if (store.session && !store.session.may_change) return "Your token may only read";
  return store.link === "live" ? "" : "There is no connection to the supervisor";
}

const VERBS = { start: "Start", stop: "Stop", restart: "Restart" };

// `sure` asks in any case: a key is pressed more easily than a button.
export async function order(id, verb, sure = false) {
  const service = store.services.get(id);
  if (!service || !mayChange()) return toast(whyNot() || `${id} is gone`, "warn");
  if (pending.has(id)) return toast(`${id}: ${pending.get(id)} is still on the way`, "warn");
  const harm = verb !== "start" && service.state !== "stopped";
  if (sure || (service.critical && harm)) {
    const dependents = [...store.services.values()].filter((other) => other.dependencies.includes(id)).map((other) => other.id);
    const needs = dependents.length && harm ? ` Needed by: ${dependents.join(", ")}.` : "";
    const words = `${service.name}${service.critical ? " is critical." : `: ${service.state}.`}${needs}`;
    if (!(await confirmed(`${VERBS[verb]} ${id}?`, words, VERBS[verb], harm ? "danger" : ""))) return;
  }
  pending.set(id, verb);
  touch(id);
  try {
    const answer = await ask(`/services/${encode(id)}/${verb}`, { method: "POST" });
    toast(answer.message.startsWith(id) ? answer.message : `${id}: ${answer.message}`, answer.done ? "good" : "warn");
  } catch (error) {
    toast(`${id}: ${error.message}`, "bad");
  } finally {
    pending.delete(id);
    touch(id);
  }
}

// The three buttons, of which only those that make sense can be pressed.
export function buttons(id) {
  const all = Object.keys(VERBS).map((verb) => {
    const label = `${VERBS[verb]} ${id}`;
    return h("button", { type: "button", "data-verb": verb, class: "act", "aria-label": label, title: label,
      onclick: (event) => (event.stopPropagation(), order(id, verb)) }, VERBS[verb]);
  });
  const update = (service) => {
    const busy = pending.get(id);
    const up = ["starting", "running", "stopping", "backoff"].includes(service.state);
    for (const button of all) {
      const verb = button.dataset.verb;
      const pointless = verb === "start" ? ["running", "starting"].includes(service.state) : verb === "stop" && !up;
      mark(button, "disabled", !mayChange() || Boolean(busy) || pointless);
      mark(button, "aria-busy", busy === verb ? "true" : null);
      mark(button, "title", mayChange() ? button.getAttribute("aria-label") : whyNot());
    }
  };
  return { element: h("span", { class: "acts" }, all), update };
}
