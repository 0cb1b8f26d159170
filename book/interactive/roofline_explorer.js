// The roofline of chapter 13: a training step is no faster than its arithmetic, and no faster than its memory.
const {networks, room, weight_bytes, colors, ends} = constants;
const {stem, dense, kept, parameters} = networks[network.value];
const operations = 6 * (stem + dense * steps.value); // of an image, forward and backward
const image = kept * steps.value * Number(numbers.value) / 4; // bytes that it keeps
const traffic = 2 * image; // written once, and read once
const fastest = peak.value * 1e12, bandwidth = speed.value * 1e12;

const scale = batch.value / efficiency.value;
const arithmetic = scale * operations / fastest, memory = scale * traffic / bandwidth;
const seconds = Math.max(arithmetic, memory);
const bytes = weight_bytes * parameters + batch.value * image;
const intensity = operations / traffic, ridge = fastest / bandwidth;
result.data = Object.fromEntries(
  Object.entries({seconds, arithmetic, memory, bytes, intensity, ridge}).map(([key, value]) => [key, [value]]));

const best = at => Math.min(fastest, at * bandwidth) / 1e12;
const along = [ends[0], ridge, ends[1]];
roof.data = {intensity: along, best: along.map(best), reached: along.map(at => efficiency.value * best(at))};
here.data = {intensity: [intensity], reached: [efficiency.value * best(intensity)]};
const color = arithmetic >= memory ? colors : [...colors].reverse();
times.data = {what: ["arithmetic", "memory"], seconds: [arithmetic, memory], color};
seconds_range.end = 1.1 * seconds;

const written = value => value < 0.9995 ? `${(1000 * value).toPrecision(3)} ms` : `${value.toPrecision(3)} s`;
const images = batch.value === 1 ? "one image" : `${batch.value} images`;
const longer = arithmetic >= memory ? "arithmetic" : "memory";
const idle = arithmetic >= memory ? "Faster memory would change nothing" : "Faster arithmetic would change nothing";
const gigabytes = value => (value / 1e9).toFixed(value < 1e10 ? 1 : 0);
said.text = `A training step of ${images} takes <b>${written(seconds)}: the ${longer} decides</b>. `
  + `Arithmetic takes ${written(arithmetic)}, memory ${written(memory)}. ${idle}. `
  + `The training makes ${intensity.toFixed(0)} operations for each byte; `
  + `from ${ridge.toFixed(0)} on, this device waits for its arithmetic. `
  + (bytes > room ? `But it needs ${gigabytes(bytes)} GB, and there are ${gigabytes(room)}: <b>it does not fit</b>.`
    : `It needs ${gigabytes(bytes)} of ${gigabytes(room)} GB.`);
