// Elements, and words for times and amounts. Text always goes in as text: names, messages and log lines are not ours.

export function h(tag, props = {}, ...children) {
  const svg = ["svg", "path", "line", "rect", "text", "g", "polyline", "circle", "title"].includes(tag) && props?.svg !== false;
  const element = svg && tag !== "title" ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  fill(element, children);
  return element;
}

export function fill(element, children) {
  element.replaceChildren(...[children].flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Writes only what differs, so that nothing is laid out anew for nothing.
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function mark(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value === true ? "" : value);
}

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

// 3661 -> "1 h 1 min"
export function duration(seconds) {
  let rest = Math.max(0, Math.floor(seconds));
  for (const [at, [unit, size]] of UNITS.entries()) {
    if (rest < size && unit !== "s") continue;
    const count = Math.floor(rest / size);
    const next = UNITS[at + 1];
    const more = next ? Math.floor((rest - count * size) / next[1]) : 0;
    return more > 0 ? `${count} ${unit} ${more} ${next[0]}` : `${count} ${unit}`;
  }
  return "0 s";
}

export function ago(stamp) {
  const seconds = (Date.now() - Date.parse(stamp)) / 1000;
  if (seconds < 0) return `in ${duration(-seconds + 0.999)}`;
  return seconds < 5 ? "just now" : `${duration(seconds)} ago`;
}

export function exact(stamp) {
  const at = new Date(stamp);
  const two = (n) => String(n).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

const ticking = new Set();

// A time that stays true: relative to see, exact to hover and to read aloud.
export function time(stamp, words = ago) {
  if (!stamp) return document.createTextNode("never");
  const element = h("time", { datetime: stamp, title: exact(stamp) }, words(stamp));
  tick(element, () => write(element, words(stamp)));
  return element;
}

// Calls `update` every second, as long as the element is on the page.
export function tick(element, update) {
  ticking.add({ element, update, seen: false });
}

setInterval(() => {
  if (document.hidden) return;
  for (const one of ticking) {
    if (one.element.isConnected) {
      one.seen = true;
      one.update();
    } else if (one.seen) ticking.delete(one);
  }
}, 1000);

export function percent(value) {
  return value === null || value === undefined ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}

export function mebibytes(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1024) return `${(value / 1024).toFixed(value >= 10240 ? 0 : 1)} GiB`;
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} MiB`;
}

export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  return value >= 1000 ? `${(value / 1000).toFixed(1)} s` : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

// "1 alert", "2 alerts"
export function count(n, word) {
  return `${n} ${word}${n === 1 ? "" : "s"}`;
}

export function toast(text, tone = "info") {
  const close = h("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => box.remove() }, "×");
  const box = h("div", { class: "toast", "data-tone": tone }, h("p", {}, text), close);
  const toasts = document.getElementById("toasts");
  toasts.append(box);
  while (toasts.children.length > 5) toasts.firstChild.remove();
  if (tone !== "bad") setTimeout(() => box.remove(), 8000);
}

// Asks, and gives whether the answer is yes.
export function confirmed(title, text, yes, tone = "") {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": "ask-title" },
      h("h2", { id: "ask-title" }, title),
      h("p", {}, text),
      h("form", { method: "dialog", class: "buttons" },
        h("button", { value: "no", autofocus: true }, "Cancel"),
        h("button", { value: "yes", class: tone || "primary" }, yes)));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
