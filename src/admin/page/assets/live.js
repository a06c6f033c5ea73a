// Keeps the view up to date from the server's events while somebody looks at it.

import { request } from "./ask.js";
import { morph } from "./morph.js";

const RETRY_MS = 3000;
/** Without an event for this long, what is shown is old. */
const SILENT_MS = 5000;

let view, said, pause;

let paused = false;
let waiting = null; // The latest event while nothing is to move.
let stream = null; // Aborts the connection.

/** Nothing moves while the reader decides: paused, a dialog is open, or a mouse button is down. */
let pressed = false;
const isStill = () => paused || pressed || document.querySelector("dialog[open]") !== null;

function show(html) {
  if (isStill()) {
    waiting = html;
    return;
  }
  waiting = null;
  const fresh = new DOMParser().parseFromString(html, "text/html").body;
  const title = fresh.querySelector("[data-title]")?.dataset.title;
  if (title) document.title = title;
  const wanted = view.cloneNode(false);
  wanted.append(...fresh.childNodes);
  const focused = document.activeElement;
  morph(view, wanted);
  if (focused !== document.activeElement && focused?.isConnected) focused.focus();
}

export function catchUp() {
  if (waiting !== null) show(waiting);
}

function state(text, isBad = false) {
  if (said.textContent !== text) said.textContent = text;
  said.classList.toggle("bad", isBad);
}

/** Reads the lines of an event stream: events are parted by an empty line. */
async function read(body) {
  let text = "";
  for await (const part of body.pipeThrough(new TextDecoderStream())) {
    const events = (text + part).split("\n\n");
    text = events.pop();
    const last = events.at(-1);
    if (last === undefined) continue;
    const lines = last.split("\n").filter((line) => line.startsWith("data:"));
    heard();
    show(lines.map((line) => line.slice(line[5] === " " ? 6 : 5)).join("\n"));
  }
}

let silent = 0;
function heard() {
  state(paused ? "paused" : "live");
  clearTimeout(silent);
  silent = setTimeout(() => state("no news from Weir", true), SILENT_MS);
}

async function follow() {
  while (!document.hidden && !paused) {
    stream = new AbortController();
    try {
      const response = await request(`/events?view=${encodeURIComponent(view.dataset.live)}`, { signal: stream.signal });
      if (response.ok) await read(response.body);
      else state(response.status === 401 ? "needs a token" : `not live: ${response.status}`, true);
    } catch (error) {
      if (error.name === "AbortError") break;
      state("Weir does not answer", true);
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
  stream = null;
  clearTimeout(silent);
}

function resume() {
  if (stream === null) follow();
}

export function start() {
  [view, said, pause] = ["view", "live", "pause"].map((id) => document.getElementById(id));
  if (!view.dataset.live) {
    pause.hidden = true;
    return;
  }
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", paused);
    pause.textContent = paused ? "Resume" : "Pause";
    if (paused) {
      stream?.abort();
      state("paused");
    } else resume();
  });
  document.addEventListener("visibilitychange", () => document.hidden ? stream?.abort() : resume());
  document.addEventListener("pointerdown", () => (pressed = true));
  document.addEventListener("pointerup", () => {
    pressed = false;
    // The click comes first.
    setTimeout(catchUp);
  });
  document.addEventListener("pointercancel", () => (pressed = false));
  resume();
}
