// Calls Greeter.SayHello without a pause, over one channel, and says what became of every call.
//
// It runs as a child of restarts.py and is told what to do on standard input: for every line it answers with
// a line of JSON that counts the calls so far; at the end of input its callers finish the call they are in, and
// the last line it writes also has the times and examples of what was lost.
//
// There is no retry policy. `--retries none` takes transparent retries away, too: `grpc.enable_retries: 0`. A call
// made while the channel connects still waits for the outcome; that cannot be turned off.
//
// TOUCHDOWN_NODE_MODULES is the node_modules folder that has @grpc/grpc-js and @grpc/proto-loader.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const require = createRequire(join(process.env.TOUCHDOWN_NODE_MODULES, 'any'));
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const PROTO = fileURLToPath(new URL('../../proto/greeter.proto', import.meta.url));
const DEADLINE_MS = 30_000;
const PAUSE_AFTER_REFUSED_MS = 5;
const CHANNEL_OPTIONS = {
  'grpc.initial_reconnect_backoff_ms': 50,
  'grpc.max_reconnect_backoff_ms': 100,
};

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    callers: { type: 'string', default: '16' },
    'think-ms-min': { type: 'string', default: '0' },
    'think-ms-max': { type: 'string', default: '5' },
    'name-bytes': { type: 'string', default: '0' },
    retries: { type: 'string', default: 'transparent' },
    // Speak TLS, and trust the certificates in this file.
    ca: { type: 'string' },
  },
});
const [address] = positionals;
const callerCount = Number(values.callers);
const thinkMsMin = Number(values['think-ms-min']);
const thinkMsMax = Number(values['think-ms-max']);
const nameBytes = Number(values['name-bytes']);

const counts = { calls: 0, ok: 0, refused: 0, lost: 0 };
const lostExamples = [];
const timesMs = [];
let stopping = false;

const { Greeter } = grpc.loadPackageDefinition(protoLoader.loadSync(PROTO)).greeter;
const credentials = values.ca
  ? grpc.credentials.createSsl(readFileSync(values.ca))
  : grpc.credentials.createInsecure();
const client = new Greeter(address, credentials, {
  ...CHANNEL_OPTIONS,
  'grpc.enable_retries': values.retries === 'transparent' ? 1 : 0,
});

function sayHello(request) {
  return new Promise((resolve) => {
    const deadline = Date.now() + DEADLINE_MS;
    client.sayHello(request, { deadline }, (error, reply) => resolve({ error, reply }));
  });
}

// A call is not lost if the server could not be reached because nobody listened, and only then.
function outcomeOf(error, reply, name) {
  if (!error) return reply.text === `Hello, ${name}!` ? 'ok' : 'lost';
  const nobodyListens = error.code === grpc.status.UNAVAILABLE && error.details.includes('ECONNREFUSED');
  return nobodyListens ? 'refused' : 'lost';
}

async function callUntilStopped(caller) {
  for (let number = 0; !stopping; number += 1) {
    const name = `caller ${caller} call ${number} `.padEnd(nameBytes, 'x');
    const thinkMs = thinkMsMin + Math.floor(Math.random() * (thinkMsMax - thinkMsMin + 1));
    const beganMs = Date.now();
    const started = performance.now();
    const { error, reply } = await sayHello({ name, thinkMs });
    const tookMs = performance.now() - started;

    const outcome = outcomeOf(error, reply, name);
    counts.calls += 1;
    counts[outcome] += 1;
    if (outcome === 'ok') {
      timesMs.push(tookMs);
    } else if (outcome === 'refused') {
      await setTimeout(PAUSE_AFTER_REFUSED_MS);
    } else {
      lostExamples.push({
        began_ms: beganMs,
        took_ms: Math.round(tookMs * 10) / 10,
        code: error ? grpc.status[error.code] : 'OK',
        detail: error ? error.details : `wrong reply of ${reply.text.length} characters: ${reply.text.slice(0, 80)}`,
      });
    }
  }
}

const callers = Array.from({ length: callerCount }, (_, caller) => callUntilStopped(caller));
for await (const _ of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(counts));
}
stopping = true;
await Promise.all(callers);
client.close();

timesMs.sort((a, b) => a - b);
const round = (ms) => Math.round((ms ?? 0) * 100) / 100;
console.log(JSON.stringify({
  ...counts,
  lost_examples: lostExamples.slice(0, 50),
  p50_ms: round(timesMs[Math.floor(timesMs.length / 2)]),
  max_ms: round(timesMs.at(-1)),
}));
