// Ask the server, wait while it is full, loading or gone, and say what it refused.

import { Refused, call, pause, setToken } from "./api.js";
import { place, read, seconds } from "./box.js";
import { $, button, genome, make, now, tell } from "./page.js";

/** Ask, and try again while the server is full, loading or gone; everything else is for `fail`. */
export async function ask(path, body, abort) {
  for (;;) {
    const began = performance.now();
    const watch = setInterval(async () => {
      const { queue } = await call("/v1/status").catch(() => ({}));
      const spent = seconds((performance.now() - began) / 1000);
      if (abort.aborted || !["running", "queued"].includes(document.body.dataset.state)) return;
      if (queue?.items) tell("queued", `Waiting for ${spent}: ${queue.items} in the queue, about ${seconds(queue.seconds)} of work.`);
      else tell("running", `Running for ${spent}.`);
    }, 1000);
    try {
      return await call(path, { body, signal: abort });
    } catch (problem) {
      if (![0, 429, 503].includes(problem.status)) throw problem;
      clearInterval(watch);
      await wait(problem, abort);
      tell("running", "Running.");
    } finally {
      clearInterval(watch);
    }
  }
}

async function wait(problem, abort) {
  const words = { 0: ["gone", "The server is gone. What is shown stays; the page goes on when it is back."], 429: ["busy", problem.message], 503: ["loading", problem.message] };
  const [state, text] = words[problem.status];
  let skip;
  const skipped = new Promise((done) => { skip = done; });
  const actions = [button("Try now", () => skip("now"))];
  for (let left = Math.ceil(problem.retryAfter || 3); left > 0; left--) {
    tell(state, text, { left, actions });
    if (await Promise.race([pause(1000, abort), skipped]) === "now") return;
  }
}

export function fail(problem, retry) {
  if (problem.name === "AbortError") return tell("cancelled", "Cancelled. What was shown before stays.");
  if (!(problem instanceof Refused)) { tell("failed", "The page failed; this is a fault of ours.", { problem: problem.message }); throw problem; }
  const text = problem.message + (problem.hint ? ` ${problem.hint}` : "");
  if (problem.status === 401) {
    const field = make("input", "", { type: "password", ariaLabel: "token" });
    return tell("token", "This server wants its token.", { problem: text, actions: [field, button("Go on", () => { if (field.value) setToken(field.value); now.start(); })] });
  }
  if (problem.status === 413) return tell("toolong", "Too long to answer at once.", { problem: text, actions: [button("Make it a job", now.job)] });
  const found = read($("box").value, genome());
  const record = found.records?.[$("record").selectedIndex] || found.records?.[0];
  if (problem.position != null && record) {
    const at = place(record, problem.position);
    $("box").focus();
    $("box").setSelectionRange(at, at + 1);
  }
  return tell("refused", problem.status >= 500 ? "The server failed." : "This cannot be answered.", { problem: text, actions: problem.status >= 500 ? [button("Try again", retry)] : [] });
}
