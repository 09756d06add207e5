// What the published interop cases leave out, on @grpc/grpc-js.
//
//     node conformance.mjs ADDRESS CASE...

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';

import { grpc, load, main, run, start } from './cases.mjs';
import { credentials } from './credentials.mjs';

const { Conformance } = load('conformance.proto').touchdown.conformance;
const { OK, CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED } = grpc.status;

const KINDS = ['Unary', 'ServerStreaming', 'ClientStreaming', 'Bidirectional'];
const MIB = 1 << 20;
const MESSAGES = ['', 'plain', '100% of %41 is %', 'Grüße, 世界 🚀', 'line 1\r\nline 2\ttab', ' spaces  around '];
const DETAILS = Buffer.from('\x00details\xff', 'latin1');
const SENT = {
  'header-text': ['value with spaces, and ~!@#$%^&*()'],
  'header-repeated': ['first', 'second'],
  'header-empty': [''],
  'header-raw-bin': [Buffer.from(Array.from({ length: 256 }, (_, it) => it))],
  'trailer-text': ['last'],
  'trailer-raw-bin': [Buffer.from([0]), Buffer.from([]), Buffer.from([0xff, 0x2c, 0xff])],
};

const connect = (address, options) => new Conformance(address, credentials(grpc), options);
const body = (size, fields) => ({ body: Buffer.alloc(size), replies: 1, ...fields });

function metadataOf(entries) {
  const metadata = new grpc.Metadata();
  for (const [name, values] of Object.entries(entries)) values.forEach((it) => metadata.add(name, it));
  return metadata;
}

async function succeed(client, kind, requests, options) {
  const ended = await run(client, kind, requests, options);
  assert.equal(ended.status.code, OK, `${kind}: ${ended.status.details}`);
  return ended;
}

async function checkReceived(address, kind, requests, expected) {
  const { replies } = await succeed(connect(address), kind, requests);
  assert.deepEqual(replies.map((it) => Number(it.received)), expected);
}

async function checkLarge(client, kind, size) {
  const { replies } = await succeed(client, kind, [body(size, { replySize: size })]);
  assert.deepEqual(replies.map((it) => [Number(it.received), it.body.length]), [[size, size]], kind);
}

async function checkExhausted(client, kind, request) {
  const { status } = await run(client, kind, [request]);
  assert.equal(status.code, RESOURCE_EXHAUSTED, `${kind}: ${status.details}`);
  return status;
}

// Starts a call that waits, does `then` once its handler waits, and returns what the caller and what the
// handler saw of its end.
async function waiting(client, kind, options, then = () => {}) {
  const callId = randomUUID();
  const metadata = metadataOf({ 'call-id': [callId] });
  const observe = async (untilWaiting) => {
    const { replies } = await succeed(client, 'Observe', [{ callId, untilWaiting }]);
    return replies[0].end;
  };
  const { call, ended } = start(client, kind, [body(0, { wait: true })], { metadata, open: true, ...options });
  await observe(true);
  then(call);
  return [(await ended).status.code, await observe(false)];
}

await main({
  async unary(address) {
    const { replies } = await succeed(connect(address), 'Unary', [body(5, { replySize: 7 })]);
    assert.deepEqual([Number(replies[0].received), replies[0].body], [5, Buffer.from('xxxxxxx')]);
  },

  async server_streaming(address) {
    await checkReceived(address, 'ServerStreaming', [body(3, { replies: 1000 })], Array(1000).fill(3));
  },

  async client_streaming(address) {
    await checkReceived(address, 'ClientStreaming', Array(1000).fill(body(2)), [2000]);
  },

  async bidirectional(address) {
    const expected = Array.from({ length: 1000 }, (_, it) => 2 * (it + 1));
    await checkReceived(address, 'Bidirectional', Array(1000).fill(body(2)), expected);
  },

  async metadata(address) {
    for (const kind of KINDS) {
      const { headers, replies, status } = await succeed(connect(address), kind, [body(0)], { metadata: metadataOf(SENT) });
      for (const [name, values] of Object.entries(SENT)) {
        const seen = replies[0].metadata.filter((it) => it.name === name).map((it) => it.value);
        assert.deepEqual(seen, values.map((it) => Buffer.from(it)), `${kind} ${name}`);
        const echoed = name.startsWith('header-') ? headers : status.metadata;
        // Node joins the values of what is not binary.
        const expected = name.endsWith('-bin') ? values : [values.join(', ')];
        assert.deepEqual(echoed.get(name), expected, `${kind} ${name}`);
      }
    }
  },

  async statuses(address) {
    const client = connect(address);
    const metadata = metadataOf({ 'trailer-text': ['still sent'] });
    for (const kind of KINDS) {
      await succeed(client, kind, [body(0, { ending: { code: OK } })]);
      for (let code = 1; code <= 16; code += 1) {
        const message = MESSAGES[code % MESSAGES.length];
        const ending = { code, message, details: DETAILS };
        const { status } = await run(client, kind, [body(0, { ending })], { metadata });
        assert.deepEqual([kind, status.code, status.details], [kind, code, message]);
        assert.deepEqual(status.metadata.get('grpc-status-details-bin'), [DETAILS]);
        assert.deepEqual(status.metadata.get('trailer-text'), ['still sent']);
      }
    }
  },

  async deadline(address) {
    const client = connect(address);
    const { replies } = await succeed(client, 'Unary', [body(0)], { deadline: Date.now() + 60_000 });
    const remaining = Number(replies[0].timeRemainingMs);
    assert.ok(remaining > 0 && remaining <= 60_000, `${remaining}`);
    for (const kind of KINDS) {
      const [code, seen] = await waiting(client, kind, { deadline: Date.now() + 500 });
      assert.equal(code, DEADLINE_EXCEEDED, kind);
      // This client cancels the call then. Which of the two the server sees first is open.
      assert.ok(['DEADLINE_EXCEEDED', 'CANCELLED'].includes(seen), `${kind} ${seen}`);
    }
  },

  async cancellation(address) {
    for (const kind of KINDS) {
      const seen = await waiting(connect(address), kind, {}, (call) => call.cancel());
      assert.deepEqual([kind, ...seen], [kind, CANCELLED, 'CANCELLED']);
    }
  },

  async large_messages(address) {
    const client = connect(address);
    for (const kind of KINDS) {
      await checkLarge(client, kind, 3 * MIB);
      // The server's limit, and then this client's own.
      await checkExhausted(client, kind, body(4 * MIB));
      await checkExhausted(client, kind, body(0, { replySize: 4 * MIB }));
    }
    await succeed(client, 'Unary', [body(0)]);
  },

  async compression(address) {
    const { deflate, gzip } = grpc.compressionAlgorithms;
    for (const algorithm of [deflate, gzip]) {
      // This client compresses the first call of a channel, and then no more: it reads the spaces in C-core's
      // `grpc-accept-encoding: identity, deflate, gzip` as part of the names.
      const client = () => connect(address, { 'grpc.default_compression_algorithm': algorithm });
      for (const kind of KINDS) {
        await checkLarge(client(), kind, MIB);
        // A few KiB on the wire, and too much once decompressed.
        const { details } = await checkExhausted(client(), kind, body(5 * MIB));
        assert.match(details, /decompressed/, kind);
      }
    }
  },
});
