// The scripts of the page. Everything that is to be read is there without them.

import { signIn, start as act } from "./act.js";
import { request } from "./ask.js";
import { start as live } from "./live.js";

/** Puts the view in the place of the page that asks for a token. */
async function enter() {
  const response = await request(location.href, { headers: { Accept: "text/html" } });
  if (!response.ok) throw new Error("Nobody holds this token.");
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  document.title = page.title;
  document.body.replaceWith(page.body);
  live();
  return "";
}

document.documentElement.classList.add("scripted");
act();
if (document.querySelector("[data-sign-in]") === null) live();
else enter().catch(() => signIn("", enter));
