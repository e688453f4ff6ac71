// The configuration: what reading it again would change, then doing it.

import { mayChange, whyNot } from "/dashboard/actions.js";
import { ask } from "/dashboard/api.js";
import { confirmed, count, fill, h, mark, toast } from "/dashboard/dom.js";
import { store } from "/dashboard/store.js";

export function configView() {
  const result = h("div", { role: "status" });
  const check = h("button", { type: "button" }, "What would change?");
  const reload = h("button", { type: "button", class: "primary" }, "Reload");
  const path = h("code", {}, "…");
  const element = h("div", {}, h("h1", {}, "Configuration"),
    h("p", {}, "The supervisor reads ", path, ". A file with a mistake changes nothing; a reload restarts only services whose process would have to differ."),
    h("div", { class: "tools" }, check, reload), result);

  const names = (title, list, tone) => list.length > 0 && h("section", { class: "panel", "data-tone": tone }, h("h2", {}, `${title} (${list.length})`),
    h("ul", {}, list.map((one) => h("li", {}, h("strong", {}, one.id ?? one), one.fields && ` ${one.fields.join(", ")}`))));

  function show(report, done) {
    const changes = report.added.length + report.removed.length + report.restarted.length + report.updated_live.length + report.supervisor.length;
    fill(result, [
      h("p", { class: "lead" }, done ? (changes ? "Done." : "Read again; nothing differed.") : changes ? "A reload would do this:" : "Nothing differs from what is in force."),
      names("Added", report.added, "good"), names("Removed: stopped and forgotten", report.removed, "bad"),
      names("Restarted", report.restarted, "warn"), names("Changed while they run", report.updated_live, ""),
      names("Settings of the supervisor", report.supervisor, ""),
      report.warnings.length > 0 && problems("Warnings", report.warnings),
      report.unchanged.length > 0 && h("p", { class: "muted" }, `${count(report.unchanged.length, "service")} as before.`)]);
  }

  const problems = (title, list) => h("section", { class: "panel", "data-tone": "bad" }, h("h2", {}, title), h("ul", {}, list.map((one) =>
    h("li", {}, h("code", {}, `${one.file}:${one.line}:${one.column}`), " ", h("strong", {}, one.path), ` ${one.message}`, one.help && h("span", { class: "muted" }, `; ${one.help}`)))));

  async function ask_for(dry) {
    [check.disabled, reload.disabled] = [true, true];
    try {
      const report = await ask(`/reload${dry ? "?dry_run=true" : ""}`, { method: "POST" });
      show(report, !dry);
      return report;
    } catch (error) {
      fill(result, error.body?.errors?.length ? [h("p", { class: "lead" }, error.message), problems("Errors", error.body.errors)] : h("p", { class: "error" }, error.message));
      return null;
    } finally {
      buttons();
    }
  }

  check.addEventListener("click", () => ask_for(true));
  reload.addEventListener("click", async () => {
    const report = await ask_for(true);
    if (!report) return;
    const harm = report.removed.length + report.restarted.length;
    const words = harm ? `${count(report.removed.length, "service")} stopped and forgotten, ${report.restarted.length} restarted.` : "No service is stopped or restarted.";
    if (await confirmed("Reload the configuration?", words, "Reload", harm ? "danger" : "")) {
      if (await ask_for(false)) toast("The configuration was read again.", "good");
    }
  });

  function buttons() {
    for (const button of [check, reload]) {
      mark(button, "disabled", !mayChange());
      mark(button, "title", whyNot() || null);
    }
  }
  buttons();
  ask("/status").then((status) => (path.textContent = status.supervisor.config_path)).catch(() => (path.textContent = store.hello ? "its configuration" : "…"));
  return { title: "Configuration", element, changed: (what) => what.has("link") && buttons() };
}
