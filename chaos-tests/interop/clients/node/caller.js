// Calls Echo over xDS at a steady rate, and prints what became of the calls as JSON lines.
//
// The first line says which client this is. Each later line counts what ended since the one before, by backend or by error.
"use strict";

const { parseArgs } = require("node:util");
const grpc = require("@grpc/grpc-js");

const METHOD = "/portolan.chaos.v1.Echo/Call";
const PRINT_EVERY_MS = 100;
const TICK_MS = 10;

// `CallReply.backend`: field 1, a string shorter than 128 bytes.
const backendOf = (reply) => reply.subarray(2, 2 + reply[1]).toString();

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");

let answered = {};
let failed = {};

function ended(error, backend) {
  const [counts, key] = error ? [failed, `${grpc.status[error.code]}: ${error.details}`] : [answered, backend];
  counts[key] = (counts[key] ?? 0) + 1;
}

function main() {
  const option = { type: "string" };
  const { target, rate, timeout } = parseArgs({ options: { target: option, rate: option, timeout: option } }).values;
  require("@grpc/grpc-js-xds").register();
  say({ client: "grpc-js", version: require("@grpc/grpc-js/package.json").version });

  // Of every second call: a route tells them by it.
  const [plain, blue] = [new grpc.Metadata(), new grpc.Metadata()];
  blue.set("lane", "blue");
  const client = new grpc.Client(target, grpc.credentials.createInsecure());
  let made = 0;
  const call = () => {
    const deadline = Date.now() + Number(timeout) * 1000;
    client.makeUnaryRequest(METHOD, (bytes) => bytes, backendOf, Buffer.alloc(0), made % 2 ? blue : plain, { deadline }, ended);
  };
  const began = performance.now();
  setInterval(() => {
    // Timers are late now and then: what is due goes out at once.
    for (const due = ((performance.now() - began) / 1000) * Number(rate); made < due; made += 1) call();
  }, TICK_MS);
  setInterval(() => {
    say({ answered, failed });
    [answered, failed] = [{}, {}];
  }, PRINT_EVERY_MS);
}

main();
