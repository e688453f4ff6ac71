// Without a token: how to get one, and a field for it.

import { ask, setToken } from "/dashboard/api.js";
import { h } from "/dashboard/dom.js";

export function login(problem, done) {
  const field = h("input", { type: "password", id: "token", autocomplete: "off", required: true, spellcheck: "false", "aria-describedby": "token-help token-error" });
  const error = h("p", { id: "token-error", class: "error", role: "alert" }, problem?.body?.type?.endsWith("token_missing") ? "" : problem?.message ?? "");
  const button = h("button", { type: "submit", class: "primary" }, "Log in");
  const form = h("form", { class: "login panel",
    onsubmit: async (event) => {
      event.preventDefault();
      button.disabled = true;
      setToken(field.value.trim());
      try {
        await ask("/session");
        done();
      } catch (refused) {
        setToken(null);
        error.textContent = refused.body?.title ? `${refused.body.title}: ${refused.message}` : refused.message;
        button.disabled = false;
        field.select();
      }
    } },
    h("h1", {}, "Log in"),
    h("label", { for: "token" }, "Token"), field, error, button,
    h("div", { id: "token-help" },
      h("p", {}, "On the host of the supervisor, this prints an address that logs in:"),
      h("pre", {}, h("code", {}, "sudo supervisorctl dashboard")),
      h("p", {}, "Or paste the content of a token file: ", h("code", {}, "token"), " may do everything, ", h("code", {}, "token-viewer"),
        " may read. They are in the state directory, ", h("code", {}, "/var/lib/process-supervisor"), ".")));
  queueMicrotask(() => field.focus());
  return { title: "Log in", element: form };
}
