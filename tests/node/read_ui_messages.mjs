// Read responses with the AI SDK, as useChat does: node read_ui_messages.mjs PACKAGE
// Each line of the input is JSON: the headers and the body of a response, or the url of a view. The output has a
// line for each: the message, and the errors.
import { createInterface } from "node:readline";

const { DefaultChatTransport, readUIMessageStream } = await import(process.argv[2]);

for await (const line of createInterface({ input: process.stdin })) {
  const { headers, body, url = "http://localhost/" } = JSON.parse(line);
  const fetch = body === undefined ? undefined : async () => new Response(body, { headers });
  console.log(JSON.stringify(await read(new DefaultChatTransport({ api: url, fetch }))));
}

async function read(transport) {
  const errors = [];
  let message = null;
  const question = { id: "1", role: "user", parts: [{ type: "text", text: "hello" }] };
  const stream = await transport.sendMessages({ chatId: "1", trigger: "submit-message", messages: [question] });
  const onError = (error) => errors.push(String(error.message ?? error));
  for await (const state of readUIMessageStream({ stream, onError })) message = state;
  return { message, errors };
}
