// Logits of raw images, in Node: node classify.mjs network.wasm CLASSES IMAGE...
import { readFileSync } from "node:fs";

const [file, classes, ...images] = process.argv.slice(2);
const { exports } = (await WebAssembly.instantiate(readFileSync(file))).instance;
const image = exports.image(); // opens the network, after which the memory no longer grows
for (const name of images) {
  new Uint8Array(exports.memory.buffer).set(readFileSync(name), image);
  exports.classify();
  console.log(new Int32Array(exports.memory.buffer, exports.logits(), Number(classes)).join(" "));
}
