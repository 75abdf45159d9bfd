// The same as echo.py, as a server on Node's own HTTP/2: node echo.mjs PORT CERTIFICATE KEY
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSecureServer } from "node:http2";

const [port, cert, key] = process.argv.slice(2);
const server = createSecureServer({ cert: readFileSync(cert), key: readFileSync(key) });
server.on("stream", (stream) => {
  const pieces = [];
  stream.on("error", () => {});
  stream.on("data", (piece) => pieces.push(piece));
  stream.on("end", () => {
    const body = Buffer.concat(pieces);
    stream.respond({
      ":status": 200,
      "x-digest": createHash("sha256").update(body).digest("hex"),
      "x-version": "2",
      "content-length": body.length,
    });
    stream.end(body);
  });
});
server.listen(Number(port), "127.0.0.1");
