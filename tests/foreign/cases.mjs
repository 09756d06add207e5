// What the Node clients share: protos, and a way to run cases by name.
//
// A case is an async function that takes the server's address and throws if something is not as it must be. A program
// of cases is called with that address and the names of the cases to run, and writes a line for each that has passed.
//
// TOUCHDOWN_NODE_MODULES is the node_modules folder that has @grpc/grpc-js and @grpc/proto-loader.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const require = createRequire(join(process.env.TOUCHDOWN_NODE_MODULES, 'any'));
export const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const PROTOS = fileURLToPath(new URL('../interop/proto', import.meta.url));
const TIMEOUT_MS = 30_000; // for calls that have no other; a call that takes as long as this hangs

export function load(file) {
  return grpc.loadPackageDefinition(protoLoader.loadSync(file, { includeDirs: [PROTOS], defaults: true }));
}

// Starts a call of any kind. `requests` are sent at once; with `open` more may come, by `call.write`.
// The result has `call`, and `ended`, a promise of { replies, headers, status }, where the status has the trailers.
export function start(client, method, requests, { metadata = new grpc.Metadata(), open = false, ...options } = {}) {
  const { requestStream, responseStream } = client[method];
  const result = { replies: [], headers: null };
  const all = { deadline: Date.now() + TIMEOUT_MS, ...options };
  const args = [...(requestStream ? [] : requests), metadata, all];
  const onReply = (error, reply) => {
    if (!error) result.replies.push(reply);
  };
  const call = client[method](...args, ...(responseStream ? [] : [onReply]));
  call.on('metadata', (headers) => { result.headers = headers; });
  const ended = new Promise((resolve) => {
    call.on('status', (status) => {
      // The callback of a unary reply comes after its status.
      setImmediate(() => resolve({ ...result, status }));
    });
  });
  if (responseStream) {
    call.on('data', (reply) => result.replies.push(reply));
    call.on('error', () => {}); // the status says as much
  }
  if (requestStream) {
    requests.forEach((request) => call.write(request));
    if (!open) call.end();
  }
  return { call, ended };
}

export async function run(client, method, requests, options) {
  return start(client, method, requests, options).ended;
}

export async function main(cases) {
  const [address, ...names] = process.argv.slice(2);
  for (const name of names) {
    if (!cases[name]) throw new Error(`there is no case ${name}`);
    try {
      await cases[name](address);
    } catch (error) {
      console.error(`failed: ${name}`);
      throw error;
    }
    console.log(`passed ${name}`);
  }
  process.exit(0);
}
