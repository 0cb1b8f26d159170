// Logits of raw images, in Node: node classify.mjs network.wasm CLASSES IMAGE...
import { readFileSync } from "node:fs";

const fail = (message) => {
  console.error(`error: ${message}`);
  process.exit(1);
};
const read = (name) => {
  try {
    return readFileSync(name);
  } catch {
    return fail(`${name} cannot be read`);
  }
};

const [file, classes, ...images] = process.argv.slice(2);
if (!(Number(classes) > 0) || !images.length) fail("usage: node classify.mjs network.wasm CLASSES IMAGE...");
const { exports } = (await WebAssembly.instantiate(read(file))).instance;
const image = exports.image(); // opens the network, after which the memory no longer grows
for (const name of images) {
  const pixels = read(name);
  const size = exports.image_bytes();
  if (pixels.length !== size) fail(`${name} has ${pixels.length} bytes; a raw image of this network has ${size}`);
  new Uint8Array(exports.memory.buffer).set(pixels, image);
  exports.classify();
  console.log(new Int32Array(exports.memory.buffer, exports.logits(), Number(classes)).join(" "));
}
