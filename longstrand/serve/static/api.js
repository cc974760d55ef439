// Requests to the server: the token, errors in its own words, numbers, and the events of a job.

const fragment = new URLSearchParams(location.hash.slice(1));
if (fragment.has("token")) {  // a fragment is never sent; keep the token for this tab and take it out of the address
  sessionStorage.setItem("token", fragment.get("token"));
  history.replaceState(null, "", location.pathname + location.search);
}
export const setToken = (text) => sessionStorage.setItem("token", text);
export const authorization = () => {
  const token = sessionStorage.getItem("token");
  return token ? { Authorization: `Bearer ${token}` } : {};
};

/** An answer that is no success: `status` 0 means that nobody answered. */
export class Refused extends Error {
  constructor(status, error = {}) {
    super(error.message || (status ? `The server answered ${status}.` : "The server does not answer."));
    Object.assign(this, { status, code: error.code, hint: error.hint, where: error.where, position: error.position });
    this.retryAfter = error.retry_after;
  }
}

/** Ask; `body` is sent as JSON, a string as it stands. Gives JSON, or the whole response for another `accept`. */
export async function call(path, { body, method, accept = "application/json", type, signal } = {}) {
  const headers = { Accept: accept, ...authorization() };
  if (body !== undefined) headers["Content-Type"] = type || "application/json";
  const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
  let response;
  try {
    response = await fetch(path, { method: method || (body === undefined ? "GET" : "POST"), headers, body: text, signal });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    throw new Refused(0);
  }
  if (!response.ok) {
    const answer = await response.json().catch(() => ({}));
    const error = answer.error || {};
    error.retry_after ??= Number(response.headers.get("Retry-After")) || null;
    throw new Refused(response.status, error);
  }
  return accept === "application/json" ? response.json() : response;
}

/** Numbers of an answer as floats: a list (null is NaN), or base64 of little-endian float32. */
export function numbers(values) {
  if (Array.isArray(values)) return Float32Array.from(values, (value) => value ?? NaN);
  const text = atob(values.base64);
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, place) => view.getFloat32(4 * place, true));
}

/** Wait, or stop waiting when the user cancels. */
export const pause = (milliseconds, signal) => new Promise((done, fail) => {
  const timer = setTimeout(done, milliseconds);
  signal?.addEventListener("abort", () => { clearTimeout(timer); fail(new DOMException("", "AbortError")); });
});

/** Follow a job until it ends: by polling, which works behind every proxy. */
export async function follow(id, signal, report) {
  for (;;) {
    const job = await call(`/v1/jobs/${id}`, { signal });
    report(job);
    if (["done", "failed", "cancelled"].includes(job.state)) return job;
    await pause(500, signal);
  }
}
