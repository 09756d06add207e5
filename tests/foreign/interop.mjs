// The published interop cases, after gRPC's doc/interop-test-descriptions.md, on @grpc/grpc-js.
//
//     node interop.mjs ADDRESS CASE...

import assert from 'node:assert/strict';
import { once } from 'node:events';

import { grpc, load, main, run, start } from './cases.mjs';
import { credentials } from './credentials.mjs';

const { TestService, UnimplementedService } = load('src/proto/grpc/testing/test.proto').grpc.testing;
const { OK, CANCELLED, INVALID_ARGUMENT, UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED } = grpc.status;

const REQUEST_SIZES = [27182, 8, 1828, 45904];
const REPLY_SIZES = [31415, 9, 2653, 58979];
const GZIP = { 'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip };

const connect = (address, options) => new TestService(address, credentials(grpc), options);
const zeros = (size) => ({ body: Buffer.alloc(size) });
const large = { responseSize: 314159, payload: zeros(271828) };
const inputRequest = (size) => ({ payload: zeros(size) });
const outputRequest = (size, ...sizes) => ({
  responseParameters: sizes.map((it) => ({ size: it })),
  payload: zeros(size),
});

function checkOk({ status }) {
  assert.equal(status.code, OK, status.details);
}

function checkSizes(ended, sizes) {
  checkOk(ended);
  assert.deepEqual(ended.replies.map((it) => it.payload.body.length), sizes);
}

async function checkUpload(client, sizes, sum) {
  const ended = await run(client, 'StreamingInputCall', sizes.map(inputRequest));
  checkOk(ended);
  assert.equal(ended.replies[0].aggregatedPayloadSize, sum);
}

async function checkStatus(address, message) {
  const client = connect(address);
  for (const method of ['UnaryCall', 'FullDuplexCall']) {
    const { status } = await run(client, method, [{ responseStatus: { code: 2, message } }]);
    assert.deepEqual([status.code, status.details], [UNKNOWN, message]);
  }
}

await main({
  async empty_unary(address) {
    const ended = await run(connect(address), 'EmptyCall', [{}]);
    checkOk(ended);
    assert.deepEqual({ ...ended.replies[0] }, {});
  },

  async large_unary(address) {
    checkSizes(await run(connect(address), 'UnaryCall', [large]), [314159]);
  },

  async client_compressed_unary(address) {
    const probe = { ...large, expectCompressed: { value: true } };
    assert.equal((await run(connect(address), 'UnaryCall', [probe])).status.code, INVALID_ARGUMENT);
    for (const value of [true, false]) {
      const client = connect(address, value ? GZIP : {});
      checkSizes(await run(client, 'UnaryCall', [{ ...large, expectCompressed: { value } }]), [314159]);
    }
  },

  async client_streaming(address) {
    await checkUpload(connect(address), REQUEST_SIZES, 74922);
  },

  async client_compressed_streaming(address) {
    // This client compresses all calls of a channel or none.
    const upload = (options, value) => {
      const requests = [27182, 45904].map((size) => ({ ...inputRequest(size), expectCompressed: { value } }));
      return run(connect(address, options), 'StreamingInputCall', requests);
    };
    assert.equal((await upload({}, true)).status.code, INVALID_ARGUMENT);
    for (const [options, value] of [[GZIP, true], [{}, false]]) {
      const ended = await upload(options, value);
      checkOk(ended);
      assert.equal(ended.replies[0].aggregatedPayloadSize, 73086);
    }
  },

  async server_streaming(address) {
    const ended = await run(connect(address), 'StreamingOutputCall', [outputRequest(0, ...REPLY_SIZES)]);
    checkSizes(ended, REPLY_SIZES);
  },

  async ping_pong(address) {
    const { call, ended } = start(connect(address), 'FullDuplexCall', [], { open: true });
    for (const [index, size] of REQUEST_SIZES.entries()) {
      call.write(outputRequest(size, REPLY_SIZES[index]));
      const [reply] = await once(call, 'data');
      assert.equal(reply.payload.body.length, REPLY_SIZES[index]);
    }
    call.end();
    checkSizes(await ended, REPLY_SIZES);
  },

  async empty_stream(address) {
    checkSizes(await run(connect(address), 'FullDuplexCall', []), []);
  },

  async custom_metadata(address) {
    const metadata = new grpc.Metadata();
    metadata.set('x-grpc-test-echo-initial', 'test_initial_metadata_value');
    metadata.set('x-grpc-test-echo-trailing-bin', Buffer.from('ababab', 'hex'));
    for (const [method, request] of [['UnaryCall', large], ['FullDuplexCall', outputRequest(271828, 314159)]]) {
      const ended = await run(connect(address), method, [request], { metadata });
      checkSizes(ended, [314159]);
      assert.deepEqual(ended.headers.get('x-grpc-test-echo-initial'), ['test_initial_metadata_value']);
      const trailer = ended.status.metadata.get('x-grpc-test-echo-trailing-bin');
      assert.deepEqual(trailer, [Buffer.from('ababab', 'hex')]);
    }
  },

  async status_code_and_message(address) {
    await checkStatus(address, 'test status message');
  },

  async special_status_message(address) {
    await checkStatus(address, '\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n');
  },

  async unimplemented_method(address) {
    const { status } = await run(connect(address), 'UnimplementedCall', [{}]);
    assert.equal(status.code, UNIMPLEMENTED);
  },

  async unimplemented_service(address) {
    const client = new UnimplementedService(address, credentials(grpc));
    const { status } = await run(client, 'UnimplementedCall', [{}]);
    assert.equal(status.code, UNIMPLEMENTED);
  },

  async cancel_after_begin(address) {
    const { call, ended } = start(connect(address), 'StreamingInputCall', [], { open: true });
    call.cancel();
    assert.equal((await ended).status.code, CANCELLED);
  },

  async cancel_after_first_response(address) {
    const { call, ended } = start(connect(address), 'FullDuplexCall', [outputRequest(27182, 31415)], { open: true });
    await once(call, 'data');
    call.cancel();
    assert.equal((await ended).status.code, CANCELLED);
  },

  async timeout_on_sleeping_server(address) {
    const options = { open: true, deadline: Date.now() + 1 };
    const { ended } = start(connect(address), 'FullDuplexCall', [outputRequest(27182)], options);
    assert.equal((await ended).status.code, DEADLINE_EXCEEDED);
  },
});
