// The buttons that change something. Each opens a dialog that says what is about to happen; its button does it.

import { ask, setToken } from "./ask.js";
import { catchUp } from "./live.js";

const NAME = "weir-name";
/** Outcomes are shown for this long. */
const SAID_MS = 10000;

let clearing = 0;
function say(text) {
  const said = document.getElementById("said");
  said.textContent = text;
  clearTimeout(clearing);
  clearing = setTimeout(() => (said.textContent = ""), SAID_MS);
}

/** Opens a dialog; `act` gets its form's data and says what came of it. */
function open(id, { what = "", fill = {}, act }) {
  const dialog = document.getElementById(id);
  const form = dialog.querySelector("form");
  form.reset();
  dialog.querySelector(".error").textContent = "";
  const name = dialog.querySelector(".what");
  if (name) name.textContent = what;
  const known = { by: sessionStorage.getItem(NAME) ?? "", ...fill };
  for (const [field, value] of Object.entries(known)) {
    if (form.elements[field]) form.elements[field].value = value;
  }
  dialog.querySelector(".cancel").onclick = () => dialog.close();
  dialog.onclose = catchUp;
  form.onsubmit = async (event) => {
    event.preventDefault();
    const data = new FormData(form);
    if (data.get("by")) sessionStorage.setItem(NAME, data.get("by"));
    const button = form.querySelector("button:not([type])");
    button.disabled = true;
    try {
      const outcome = await act(data);
      dialog.close();
      say(outcome);
    } catch (error) {
      dialog.querySelector(".error").textContent = error.message;
      if (error.status === 401) signIn(error.message);
    } finally {
      button.disabled = false;
    }
  };
  dialog.showModal();
  // What is done with the next key is said by the button that has the focus.
  form.querySelector("button:not([type])").focus();
}

/** Asks for the token; `then` is done with it. */
export function signIn(why = "", then = () => "The token is used from now on.") {
  open("token", {
    act: async (data) => {
      setToken(data.get("token").trim());
      return then();
    },
  });
  const dialog = document.getElementById("token");
  dialog.querySelector(".error").textContent = why;
  dialog.querySelector("input").focus();
}

function path(which, data) {
  const params = new URLSearchParams(which);
  const id = params.get("id");
  params.delete("id");
  for (const name of ["reason", "by"]) if (data.get(name)) params.set(name, data.get(name));
  return `/api/v1/admin/queries${id ? `/${id}` : ""}?${params}`;
}

function stopped({ killed, fleet }) {
  const here = `${killed.length} ${killed.length === 1 ? "query was" : "queries were"} stopped`;
  if (!fleet) return `${here}.`;
  return `${here} here; ${fleet.passed_on ? "the order was passed on to the other proxies" : `NOT passed on: ${fleet.error}`}.`;
}

function stop({ stop, what }) {
  open("stop", { what, act: async (data) => stopped(await ask("DELETE", path(stop, data))) });
}

/** A form's fields as nested objects: `match.range.longer_than` is `{match: {range: {longer_than}}}`. */
function nested(data) {
  const spec = {};
  for (const [field, value] of data) {
    if (value === "") continue;
    const keys = field.split(".");
    const last = keys.pop();
    keys.reduce((at, key) => (at[key] ??= {}), spec)[last] = value;
  }
  return spec;
}

/** What a rule matches, as far as running queries can be stopped by it. */
const STOPPABLE = ["tenant", "dashboard", "user", "fingerprint"];

function block({ block, what }) {
  const match = Object.fromEntries(new URLSearchParams(block));
  const fill = { rule: `page-${new Date().toISOString().slice(0, 19).replaceAll(":", "").toLowerCase()}` };
  for (const [key, value] of Object.entries(match)) fill[`match.${key}`] = value;
  open("block", {
    what,
    fill,
    act: async (data) => {
      const { by, stop, rule: name, ...rest } = nested(data);
      const spec = { name, ...rest };
      if (spec.action !== "clamp") delete spec.clamp;
      else if (spec.clamp?.limit) spec.clamp.limit = Number(spec.clamp.limit);
      await ask("POST", `/api/v1/admin/rules?${new URLSearchParams(by ? { by } : {})}`, spec);
      const isStoppable = Object.entries(spec.match ?? {}).every(([key, value]) =>
        STOPPABLE.includes(key) && !value.includes?.("*"));
      const outcome = `Rule ${name} is set.`;
      if (!stop || spec.action !== "refuse" || !spec.match || !isStoppable) return outcome;
      return `${outcome} ${stopped(await ask("DELETE", path(new URLSearchParams(spec.match), data)))}`;
    },
  });
}

function remove({ remove: name }) {
  open("remove", {
    what: name,
    act: async (data) => {
      const by = data.get("by");
      await ask("DELETE", `/api/v1/admin/rules/${encodeURIComponent(name)}?${new URLSearchParams(by ? { by } : {})}`);
      return `Rule ${name} is removed.`;
    },
  });
}

/** Copies the text beside the button; where the browser does not let a page copy, the text is selected. */
async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    say("Copied.");
  } catch {
    getSelection().selectAllChildren(source);
    say("Selected: copy it with the keyboard.");
  }
}

export function start() {
  document.addEventListener("click", ({ target }) => {
    const button = target.closest("button");
    if (!button) return;
    const { dataset } = button;
    if ("stop" in dataset) stop(dataset);
    else if ("block" in dataset) block(dataset);
    else if ("remove" in dataset) remove(dataset);
    else if ("copy" in dataset) copy(button);
    else if (button.id === "sign-in") signIn();
  });
}
