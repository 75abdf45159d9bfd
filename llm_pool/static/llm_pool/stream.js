/* Posts to a view that returns event_stream(...), and reads the answer as it comes. An ES module:

   import { stream } from "../llm_pool/stream.js"; // from a script in a folder beside llm_pool/ in your static files

   const answer = stream("/chat/", new FormData(form), { onText: (text) => output.append(text) });
   stop.onclick = () => answer.abort();
   const { text, usage } = await answer.done; // throws a StreamError, whose message is a sentence for the user
*/

/** An error whose message is a sentence for the user.
 *
 * code    the name of the error, as "PoolFull"; "" if the server has sent none
 * status  the status of the response; 0 without a response
 */
export class StreamError extends Error {
  constructor(message, { code = "", status = 0 } = {}) {
    super(message);
    this.name = "StreamError";
    this.code = code;
    this.status = status;
  }
}

/** Posts `data` and returns at once: { done, abort }.
 *
 * data        a FormData or URLSearchParams, or a value that is sent as JSON
 * onText      is called with each piece of text
 * onReasoning is called with each piece of reasoning, if the view includes it
 * onToolCall  is called with each piece of a tool call, { index, id, name, arguments }, if the view includes it
 *
 * done        a promise of the data of the event "done". Rejected with a StreamError, with an AbortError after
 *             abort(), or with the error of a function above
 * abort       ends the request; the view's call to the model is then cancelled
 */
export function stream(url, data, functions = {}) {
  const control = new AbortController();
  const done = new Promise((resolve, reject) => {
    const incomplete = () => reject(new StreamError("The answer ended before it was complete. Please try again."));
    receive(events(url, data, control.signal), functions, resolve).then(incomplete, reject);
  });
  return { done, abort: () => control.abort() };
}

async function receive(received, { onText, onReasoning, onToolCall }, resolve) {
  for await (const event of received) {
    const data = JSON.parse(event.data);
    switch (event.name) {
      case "message":
        onText?.(data.text);
        break;
      case "reasoning":
        onReasoning?.(data.text);
        break;
      case "tool_call":
        onToolCall?.(data);
        break;
      case "failed":
        throw new StreamError(data.message, { code: data.error, status: 200 });
      case "done":
        resolve(data); // what follows is only the end of the response
    }
  }
}

/** Posts `data` as `stream` does, and yields { name, id, data } for each event of the response; `data` is a string.
 *
 * Throws a StreamError, or an AbortError after `signal` is aborted.
 */
export async function* events(url, data, signal) {
  const response = await post(url, data, signal);
  if (!response.ok) throw await errorOf(response);
  if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
    // For example the page of a login, after a redirect.
    throw new StreamError("The server sent no answer. Reload this page and try again.", { status: response.status });
  }
  const parser = new EventParser();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { value, done } = await read(reader, signal);
      if (done) return;
      yield* parser.feed(value);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function post(url, data, signal) {
  const headers = { Accept: "text/event-stream, application/json" };
  const isForm = data instanceof FormData || data instanceof URLSearchParams;
  if (!isForm) headers["Content-Type"] = "application/json";
  if (new URL(url, document.baseURI).origin === location.origin) headers["X-CSRFToken"] = csrfToken();
  try {
    return await fetch(url, { method: "POST", headers, body: isForm ? data : JSON.stringify(data), signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new StreamError("The server cannot be reached. Please try again.");
  }
}

/** Returns Django's token: from {% csrf_token %}, from <meta name="csrf-token">, or from the cookie. */
function csrfToken() {
  const field = document.querySelector("input[name=csrfmiddlewaretoken]")?.value;
  const meta = document.querySelector("meta[name=csrf-token]")?.content;
  return field || meta || document.cookie.match(/(?:^|; )csrftoken=([^;]*)/)?.[1] || "";
}

async function read(reader, signal) {
  try {
    return await reader.read();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new StreamError("The connection was lost before the answer was complete. Please try again.");
  }
}

const SENTENCES = {
  403: "You may not do this, or this page is out of date. Reload it and try again.",
  429: "There are too many requests. Please try again in a few seconds.",
  503: "The server is busy. Please try again in a few seconds.",
};

/** Returns the error for a response: with the "message" of its JSON, as PoolMiddleware sends it, or with ours. */
async function errorOf(response) {
  const { status } = response;
  const body = await response.json().catch(() => null);
  const message = body?.message ?? SENTENCES[status] ?? `The server answered with status ${status}.`;
  return new StreamError(message, { code: body?.error, status });
}

/** Parses server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation */
class EventParser {
  #rest = ""; // the line that has not ended
  #afterCR = false; // the last piece ended with CR: LF at the beginning of the next belongs to it
  #name = "";
  #id = "";
  #data = [];

  *feed(piece) {
    if (this.#afterCR && piece.startsWith("\n")) piece = piece.slice(1);
    this.#afterCR = piece.endsWith("\r");
    const lines = (this.#rest + piece).split(/\r\n|\n|\r/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line) this.#add(line);
      else yield* this.#end();
    }
  }

  #add(line) {
    const [, field, value] = line.match(/^([^:]*):? ?(.*)$/s); // a comment has an empty field
    if (field === "event") this.#name = value;
    else if (field === "data") this.#data.push(value);
    else if (field === "id" && !value.includes("\0")) this.#id = value;
  }

  *#end() {
    const event = { name: this.#name || "message", id: this.#id, data: this.#data.join("\n") };
    const isEmpty = this.#data.length === 0;
    this.#name = "";
    this.#data = [];
    if (!isEmpty) yield event;
  }
}
