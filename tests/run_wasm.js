// node run_wasm.js MODULE IMAGES BYTES CLASSES LAYERS: prints for each image, as JSON, the logits and the number of
// spikes at each place of each layer, which is given by its offset, the bytes of a place, and how many places it has.
const fs = require("fs");
const [file, images, bytes, classes, spikes] = process.argv.slice(2);
WebAssembly.instantiate(fs.readFileSync(file), {}).then(({ instance }) => {
  const { memory, image, logits, spikes: begin, classify } = instance.exports;
  const given = fs.readFileSync(images), found = [];
  const at = image(), layers = JSON.parse(spikes);
  for (let i = 0; i < given.length; i += Number(bytes)) {
    new Uint8Array(memory.buffer).set(given.subarray(i, i + Number(bytes)), at);
    classify();
    const held = new Uint8Array(memory.buffer, begin());
    const bits = (from, to) => {
      let sum = 0;
      for (const byte of held.subarray(from, to)) for (let b = byte; b; b >>= 1) sum += b & 1;
      return sum;
    };
    const count = ([offset, size, places]) =>
      Array.from({ length: places }, (_, k) => bits(offset + k * size, offset + (k + 1) * size));
    found.push({ logits: [...new Int32Array(memory.buffer, logits(), Number(classes))], spikes: layers.map(count) });
  }
  console.log(JSON.stringify(found));
});
