// Lines over time: axis, limit, gaps where nothing was measured, events on the axis, values under the pointer.

import { exact, fill, h } from "/dashboard/dom.js";

const HEIGHT = 170;
const [LEFT, RIGHT, TOP, BOTTOM] = [58, 10, 12, 24];

// The next of 1, 2, 5, 10, 20, ... that is not below `value`.
export function nice(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value - 1e-9);
}

// Places for labels on the axis of time: at full minutes, hours, days.
export function ticks(from, until, most = 6) {
  const steps = [60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800].map((s) => s * 1000);
  const step = steps.find((size) => (until - from) / size <= most) ?? steps.at(-1);
  const offset = new Date(from).getTimezoneOffset() * 60000;
  const places = [];
  for (let at = Math.ceil((from - offset) / step) * step + offset; at <= until; at += step) places.push(at);
  return { places, days: step >= 86400000 };
}

// Runs of points without a gap. A gap is where points are further apart than usual.
export function runs(points) {
  const known = points.filter((point) => point[1] !== null && point[1] !== undefined);
  const apart = known.slice(1).map((point, at) => point[0] - known[at][0]).sort((a, b) => a - b);
  const usual = apart[Math.floor(apart.length / 2)] ?? 0;
  const found = [];
  known.forEach((point, at) => {
    if (at === 0 || point[0] - known[at - 1][0] > usual * 2.5) found.push([]);
    found.at(-1).push(point);
  });
  return found;
}

// Draws anew when there is another width for it, so that text keeps its size.
function fitted(svg, height, draw) {
  const size = { width: 640 };
  new ResizeObserver(([{ contentRect }]) => {
    const width = Math.max(240, Math.round(contentRect.width));
    if (width === size.width) return;
    size.width = width;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    draw();
  }).observe(svg);
  return size;
}

function label(at, days) {
  const date = new Date(at);
  const two = (n) => String(n).padStart(2, "0");
  return days ? `${date.getMonth() + 1}/${date.getDate()}` : `${two(date.getHours())}:${two(date.getMinutes())}`;
}

// `format` makes words of a value. `limit` is a line; `marks` are [time, words, tone].
export function chart(title, { format, colour }) {
  const svg = h("svg", { viewBox: `0 0 640 ${HEIGHT}`, class: "chart", role: "img" });
  const readout = h("output", { class: "readout" });
  const figure = h("figure", { class: "panel" }, h("figcaption", {}, h("h3", {}, title), readout), svg);
  let drawn = { points: [], from: 0, until: 1, top: 1, marks: [] };
  let given = null;
  const size = fitted(svg, HEIGHT, () => given && draw(given));
  let resting = "";

  const x = (at) => LEFT + ((at - drawn.from) / (drawn.until - drawn.from)) * (size.width - LEFT - RIGHT);
  const y = (value) => TOP + (1 - Math.min(value / drawn.top, 1)) * (HEIGHT - TOP - BOTTOM);
  const cursor = h("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  const dot = h("circle", { class: "dot", r: 3, visibility: "hidden" });

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = drawn.from + (((event.clientX - box.left) / box.width) * size.width - LEFT) / (size.width - LEFT - RIGHT) * (drawn.until - drawn.from);
    const near = drawn.points.filter((point) => point[1] !== null && point[1] !== undefined)
      .reduce((best, point) => (!best || Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best), null);
    if (!near) return;
    const marked = drawn.marks.find((one) => Math.abs(x(one[0]) - x(at)) < 5);
    for (const [name, value] of [["x1", x(near[0])], ["x2", x(near[0])], ["visibility", "visible"]]) cursor.setAttribute(name, value);
    for (const [name, value] of [["cx", x(near[0])], ["cy", y(near[1])], ["visibility", "visible"]]) dot.setAttribute(name, value);
    readout.textContent = marked ? `${exact(marked[0])} ${marked[1]}` : `${exact(near[0])}  ${format(near[1])}`;
  });
  svg.addEventListener("pointerleave", () => {
    [cursor, dot].forEach((element) => element.setAttribute("visibility", "hidden"));
    readout.textContent = resting;
  });

  function draw(data) {
    given = data;
    const { points, from, until, limit, marks = [] } = data;
    const values = points.map((point) => point[1]).filter((value) => value !== null && value !== undefined);
    const most = Math.max(0, ...values);
    // A limit far above everything would press the line to the floor.
    const shown = limit && limit <= most * 8 ? limit : null;
    const top = nice(Math.max(most, shown ?? 0) * 1.08 || 1);
    drawn = { points, from, until, top, marks };
    const { places, days } = ticks(from, until, Math.floor(size.width / 90));
    const parts = [0, 0.5, 1].map((share) => [
      h("line", { class: "grid", x1: LEFT, x2: size.width - RIGHT, y1: y(top * share), y2: y(top * share) }),
      h("text", { class: "tick", x: LEFT - 6, y: y(top * share) + 4, "text-anchor": "end" }, format(top * share)),
    ]);
    parts.push(places.map((at) => h("text", { class: "tick", x: x(at), y: HEIGHT - 7, "text-anchor": "middle" }, label(at, days))));
    parts.push(marks.filter((one) => one[0] >= from && one[0] <= until).map((one) =>
      h("path", { class: "event", "data-tone": one[2], d: `M${x(one[0])} ${TOP}V${HEIGHT - BOTTOM}` })));
    for (const run of runs(points)) {
      const line = run.map((point) => `${x(point[0]).toFixed(1)} ${y(point[1]).toFixed(1)}`).join("L");
      const floor = HEIGHT - BOTTOM;
      if (run.length > 1) parts.push(h("path", { class: `area ${colour}`, d: `M${x(run[0][0])} ${floor}L${line}L${x(run.at(-1)[0])} ${floor}Z` }));
      parts.push(run.length > 1 ? h("path", { class: `line ${colour}`, d: `M${line}` })
        : h("circle", { class: `lone ${colour}`, cx: x(run[0][0]), cy: y(run[0][1]), r: 2 }));
    }
    if (shown) parts.push(h("line", { class: "limit", x1: LEFT, x2: size.width - RIGHT, y1: y(shown), y2: y(shown) }));
    if (values.length === 0) parts.push(h("text", { class: "tick", x: size.width / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "nothing was measured in this time"));
    fill(svg, [parts, cursor, dot]);
    const mean = values.reduce((sum, value) => sum + value, 0) / (values.length || 1);
    resting = values.length ? `now ${format(values.at(-1))} · mean ${format(mean)} · most ${format(most)}${limit ? ` · limit ${format(limit)}` : ""}` : "";
    readout.textContent = resting;
    svg.setAttribute("aria-label", `${title}: ${resting || "nothing was measured"}`);
  }
  return { element: figure, draw };
}

// States over time, as a band. `parts` are [from, until, word].
export function band(title) {
  const svg = h("svg", { viewBox: "0 0 640 46", class: "chart band", role: "img" });
  const readout = h("output", { class: "readout" });
  const figure = h("figure", { class: "panel" }, h("figcaption", {}, h("h3", {}, title), readout), svg);
  let given = null;
  const size = fitted(svg, 46, () => given && draw(given));
  function draw(data) {
    given = data;
    const { parts, from, until } = data;
    const x = (at) => LEFT + ((Math.min(Math.max(at, from), until) - from) / (until - from)) * (size.width - LEFT - RIGHT);
    const seen = parts.filter((part) => part[1] > from && part[0] < until);
    const { places, days } = ticks(from, until, Math.floor(size.width / 90));
    fill(svg, [
      seen.map(([begin, end, word, why]) => {
        const rect = h("rect", { class: "state", "data-state": word, x: x(begin), y: 4, width: Math.max(x(end) - x(begin), 1.5), height: 18 });
        const words = `${word} from ${exact(begin)}${why ? `: ${why}` : ""}`;
        rect.addEventListener("pointerenter", () => (readout.textContent = words));
        rect.addEventListener("pointerleave", () => (readout.textContent = ""));
        return rect;
      }),
      places.map((at) => h("text", { class: "tick", x: x(at), y: 40, "text-anchor": "middle" }, label(at, days))),
    ]);
    const sums = new Map();
    seen.forEach(([begin, end, word]) => sums.set(word, (sums.get(word) ?? 0) + Math.min(end, until) - Math.max(begin, from)));
    const words = [...sums].map(([word, sum]) => `${word} ${((sum / (until - from)) * 100).toFixed(1)} %`).join(", ");
    svg.setAttribute("aria-label", `${title}: ${words || "not known"}`);
  }
  return { element: figure, draw };
}

// A small line without words, for tables.
export function spark() {
  const path = h("path", { d: "" });
  const element = h("svg", { viewBox: "0 0 64 18", class: "spark", "aria-hidden": "true" }, path);
  let before = "";
  return {
    element,
    draw(points, limit) {
      const values = points.filter((value) => value !== null && value !== undefined);
      const most = Math.max(...values, limit && limit < Math.max(...values) * 4 ? limit : 0, 1e-9);
      const step = 64 / Math.max(points.length - 1, 1);
      const line = points.map((value, at) => (value === null || value === undefined ? null : `${(at * step).toFixed(1)} ${(17 - (value / most) * 16).toFixed(1)}`));
      let d = "";
      line.forEach((point, at) => (d += point === null ? "" : `${at === 0 || line[at - 1] === null ? "M" : "L"}${point}`));
      if (d !== before && points.length > 1) path.setAttribute("d", (before = d));
    },
  };
}
