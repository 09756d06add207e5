// Calls that begin when they are told to, over clients of grpc-js, each with a connection of its own.
//
// It runs as a child of pauses.py, and understands what pauses_callers.py does, which says more.
//
// TOUCHDOWN_NODE_MODULES is the node_modules folder that has @grpc/grpc-js and @grpc/proto-loader.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const require = createRequire(join(process.env.TOUCHDOWN_NODE_MODULES, 'any'));
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const PROTO = fileURLToPath(new URL('../../proto/greeter.proto', import.meta.url));
const OPTIONS = {
  'grpc.use_local_subchannel_pool': 1,
  'grpc.initial_reconnect_backoff_ms': 50,
  'grpc.max_reconnect_backoff_ms': 100,
  'grpc.max_receive_message_length': -1,
};

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { channels: { type: 'string' }, 'deadline-s': { type: 'string' }, ca: { type: 'string' } },
});
const { Greeter } = grpc.loadPackageDefinition(protoLoader.loadSync(PROTO)).greeter;
const credentials = values.ca
  ? grpc.credentials.createSsl(readFileSync(values.ca))
  : grpc.credentials.createInsecure();
const clients = Array.from(
  { length: Number(values.channels) },
  () => new Greeter(positionals[0], credentials, OPTIONS),
);
const deadlineMs = 1000 * Number(values['deadline-s']);
const calls = [];

function sentenceOf(error) {
  return `${grpc.status[error.code]}: ${error.details}`;
}

// Resolves to null if all is well, or to what is not.
function call(client, name, thinkMs, answers) {
  const metadata = new grpc.Metadata({ waitForReady: true });
  const options = { deadline: Date.now() + deadlineMs };
  const isRight = (reply) => reply.text === `Hello, ${name}!`;
  return new Promise((resolve) => {
    if (answers > 1) {
      let right = 0;
      const stream = client.sayManyHellos({ name, count: answers }, metadata, options);
      stream.on('data', (reply) => { right += isRight(reply) ? 1 : 0; });
      stream.on('error', (error) => resolve(sentenceOf(error)));
      // Comes after the last answer.
      stream.on('status', (status) => {
        if (status.code) resolve(sentenceOf(status));
        else resolve(right === answers ? null : 'a wrong answer');
      });
    } else {
      client.sayHello({ name, thinkMs }, metadata, options, (error, reply) => {
        resolve(error ? sentenceOf(error) : isRight(reply) ? null : 'a wrong answer');
      });
    }
  });
}

function begin(each, thinkMs, length, answers) {
  for (let number = 0; number < each; number += 1) {
    clients.forEach((client, place) => {
      calls.push(call(client, `channel ${place} call ${number} `.padEnd(length, 'x'), thinkMs, answers));
    });
  }
}

async function problems() {
  return (await Promise.all(calls)).filter((problem) => problem !== null);
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  const said = {};
  if (command.do === 'connect') {
    begin(1, 0, 0, 1);
    said.problems = await problems();
  } else if (command.do === 'call') {
    begin(command.each, command.think_ms, command.bytes, command.answers);
  } else {
    said.problems = await problems();
    if (command.do === 'finish') clients.forEach((client) => client.close());
  }
  said.calls = calls.length;
  console.log(JSON.stringify(said));
}
