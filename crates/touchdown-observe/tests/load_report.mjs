// Calls servers that report their load, and balances by that:
//
//     TOUCHDOWN_NODE_MODULES=… node load_report.mjs METHOD ADDRESS ADDRESS
//
// It writes how many calls each of them was sent in five seconds, once their reports had been heard. It needs
// @grpc/grpc-js 1.14. tests/load_report.rs runs it.

import { createRequire } from "node:module";
import process from "node:process";

const require = createRequire(`${process.env.TOUCHDOWN_NODE_MODULES}/`);
const grpc = require("@grpc/grpc-js");

const [method, ...addresses] = process.argv.slice(2);
if (addresses.length === 0) {
    console.error("usage: load_report.mjs METHOD ADDRESS...");
    process.exit(2);
}
const serviceConfig = {
    methodConfig: [],
    loadBalancingConfig: [{ weighted_round_robin: { blackout_period: "1s", weight_update_period: "1s" } }],
};
const client = new grpc.Client(`ipv4:${addresses.join(",")}`, grpc.credentials.createInsecure(), {
    "grpc.service_config": JSON.stringify(serviceConfig),
});
const counts = new Map(addresses.map((it) => [it, 0]));
let isCounting = false;
const bytes = (it) => it;
const call = () =>
    new Promise((done, fail) => {
        const one = client.makeUnaryRequest(method, bytes, bytes, Buffer.alloc(0), (error) =>
            error ? fail(error) : done(),
        );
        one.on("status", () => {
            const peer = one.getPeer();
            if (isCounting) counts.set(peer, counts.get(peer) + 1);
        });
    });

// A call for each 25 ms, whether those before have ended or not, and also if a busy machine has let a moment pass. More would
// be too many: this version of grpc-js compiles a .proto file for each report that it reads.
const calls = [];
const began = performance.now();
const timer = setInterval(() => {
    while (calls.length * 25 < performance.now() - began) calls.push(call());
}, 25);
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
await wait(4000);
isCounting = true;
await wait(5000);
isCounting = false;
clearInterval(timer);
await Promise.all(calls);
client.close();
console.log(addresses.map((it) => counts.get(it)).join(" "));
