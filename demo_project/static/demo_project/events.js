/* Post JSON and read the server-sent events of the response. EventSource cannot send a POST. */

/** An error whose message is a sentence for the user. */
export class UserError extends Error {}

/** Yields {name, data} for each event. Throws UserError, or AbortError after `signal` is aborted. */
export async function* post(url, body, signal) {
  const response = await send(url, body, signal);
  if (!response.ok) throw await responseError(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await read(reader, signal);
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function send(url, body, signal) {
  const token = document.querySelector("input[name=csrfmiddlewaretoken]").value;
  const headers = { "Content-Type": "application/json", "X-CSRFToken": token };
  try {
    return await fetch(url, { method: "POST", headers, body: JSON.stringify(body), signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new UserError("The demo's server does not answer. Is it still running?");
  }
}

async function read(reader, signal) {
  try {
    return await reader.read();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new UserError("The connection to the demo's server was lost during the answer.");
  }
}

async function responseError(response) {
  if (response.status === 403) return new UserError("This page is out of date. Reload it and try again.");
  const body = await response.json().catch(() => ({}));
  return new UserError(body.error ?? `The demo's server answered with status ${response.status}.`);
}

function parse(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  return data.length ? { name, data: JSON.parse(data.join("\n")) } : null;
}

/** Formats seconds: "<1 ms", "12 ms" or "1.23 s". */
export function duration(seconds) {
  const ms = seconds * 1000;
  if (ms < 0.95) return "<1 ms";
  return ms < 999.5 ? `${ms.toFixed(0)} ms` : `${seconds.toFixed(2)} s`;
}
