// What is shown where, and the line at the top that says whether it is true.

import { hasToken, setToken, takeTokenFromAddress } from "/dashboard/api.js";
import { configView } from "/dashboard/config.js";
import { count, duration, fill, h, mark, tick, write } from "/dashboard/dom.js";
import { alertsView, eventsView } from "/dashboard/events.js";
import { keyboard, showKeys } from "/dashboard/keys.js";
import { login } from "/dashboard/login.js";
import { overview } from "/dashboard/overview.js";
import { serviceView } from "/dashboard/service.js";
import { connect, disconnect, listen, openSession, store } from "/dashboard/store.js";

const main = document.getElementById("main");
const banner = document.getElementById("banner");
const link = document.getElementById("link");
const nav = document.getElementById("nav");

const VIEWS = [["#/", "Overview", overview], ["#/events", "Events", eventsView], ["#/alerts", "Alerts", alertsView], ["#/config", "Configuration", configView]];
const links = VIEWS.map(([hash, label]) => h("a", { href: hash }, h("span", {}, label)));
const badge = h("b", { class: "badge", hidden: true });
links[2].append(" ", badge);
fill(nav, links);

let shown = null;

function show(view) {
  shown?.close?.();
  shown = view;
  document.title = `${view.title} · Supervisor`;
  fill(main, view.element);
}

function route() {
  const hash = location.hash || "#/";
  const service = /^#\/service\/(.+)$/.exec(hash);
  links.forEach((one) => mark(one, "aria-current", one.hash === hash || (one.hash === "#/" && service) ? "page" : null));
  if (service) {
    let id = service[1];
    try {
      id = decodeURIComponent(id);
    } catch {
      // Then it is no service's either.
    }
    show(serviceView(id));
  } else show((VIEWS.find(([at]) => at === hash) ?? VIEWS[0])[2]());
  window.scrollTo(0, 0);
}

function status() {
  const names = { connecting: "connecting…", live: "live", lost: "disconnected", closed: "" };
  write(link, `${names[store.link]}${store.session && !store.session.may_change ? " · read only" : ""}`);
  mark(link, "data-link", store.link);
  const lost = store.link === "lost";
  mark(document.body, "data-stale", lost);
  if (!lost) fill(banner, []);
  else if (!banner.firstChild) {
    const words = h("span");
    const say = () => write(words, `Disconnected for ${duration((Date.now() - store.since) / 1000)}: ${store.why}. What is shown is as it was then; connecting again.`);
    say();
    tick(words, say);
    fill(banner, words);
  }
  const open = store.alerts.size;
  write(badge, String(open));
  mark(badge, "hidden", open === 0);
  mark(badge, "title", count(open, "open alert"));
  mark(badge, "data-severity", [...store.alerts.values()].some((alert) => alert.severity === "critical") ? "critical" : null);
}

function logIn(problem) {
  disconnect();
  setToken(null);
  [store.session, store.link] = [null, "closed"];
  store.services.clear();
  store.alerts.clear();
  status();
  show(login(problem, begin));
}

async function begin() {
  store.link = "connecting";
  status();
  for (;;) {
    try {
      await openSession();
      break;
    } catch (error) {
      if (error.status === 401 || error.status === 403) return logIn(hasToken() || error.status === 403 ? error : null);
      [store.link, store.why] = ["lost", error.message];
      status();
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
  route();
  connect(logIn);
}

listen((what) => {
  if (what.has("link") || what.has("alerts")) status();
  shown?.changed?.(what);
});
addEventListener("hashchange", () => {
  takeTokenFromAddress();
  if (store.session) route();
});
keyboard(() => shown);
document.getElementById("help").addEventListener("click", showKeys);

const theme = document.getElementById("theme");
function paint(choice) {
  mark(document.documentElement, "data-theme", choice);
}
try {
  paint(localStorage.getItem("process-supervisor-theme"));
} catch {
  // Then it is as the system has it.
}
theme.addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  paint(dark ? "light" : "dark");
  try {
    localStorage.setItem("process-supervisor-theme", dark ? "light" : "dark");
  } catch {
    // Then it lasts until the page is left.
  }
});

takeTokenFromAddress();
begin();
