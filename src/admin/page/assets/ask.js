// Requests to the admin API. The token lives in this tab's session and nowhere else.

const TOKEN = "weir-token";

export const setToken = (token) => token ? sessionStorage.setItem(TOKEN, token) : sessionStorage.removeItem(TOKEN);

/** The answer to a request, whatever its status. */
export function request(path, options = {}) {
  const headers = new Headers(options.headers);
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.set("Authorization", `Bearer ${token}`);
  return fetch(path, { ...options, headers, cache: "no-store" });
}

/** The data of an answer; an error with its text and status where there is none. */
export async function ask(method, path, body) {
  const response = await request(path, {
    method,
    body: body && JSON.stringify(body),
    headers: body ? { "Content-Type": "application/json" } : {},
  });
  const text = await response.text();
  let answer = {};
  try {
    answer = JSON.parse(text);
  } catch {
    // An error of something in between is shown as it is.
  }
  if (!response.ok) throw Object.assign(new Error(answer.error ?? text), { status: response.status });
  return answer.data;
}
