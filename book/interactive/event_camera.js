// The rule of chapter 16: a pixel sends an event when the logarithm of its light has changed by the threshold since
// its last event. The logarithms of the 256 bytes are a table, so that page and library compare the same numbers.
const {pictures, levels, ways, side, colors} = constants;
const [down, right] = ways[direction.value].map(way => way * speed.value);
const printed = pictures[picture.value].map(byte => (light.value === "swapped" ? 255 - byte : byte));
const around = place => ((place % side) + side) % side;
// The byte of each pixel when the drum has turned for so many steps.
const seen = t => printed.map((_, k) => {
  const row = around(Math.floor(k / side) - t * down);
  return printed[side * row + around((k % side) - t * right)];
});

const reference = seen(0).map(byte => levels[byte]);
const steps = [];
for (let t = 1; t <= step.end; t++) {
  const bytes = seen(t);
  const on = [], off = [];
  bytes.forEach((byte, k) => {
    const level = levels[byte];
    on.push(level - reference[k] >= contrast.value ? 1 : 0);
    off.push(reference[k] - level >= contrast.value ? 1 : 0);
    if (on[k] || off[k]) reference[k] = level;
  });
  steps.push({bytes, on, off});
}

const sum = values => values.reduce((a, b) => a + b, 0);
const on = steps.map(each => sum(each.on));
const off = steps.map(each => sum(each.off));
counts.data = {step: counts.data.step, on, off, below: off.map(each => -each)};
const shown = steps[step.value - 1];
pixels.data = {
  ...pixels.data,
  light: shown.bytes,
  on: shown.on,
  off: shown.off,
  view: shown.bytes.map(byte => `#${byte.toString(16).padStart(2, "0").repeat(3)}`),  // bright is bright
  color: shown.on.map((each, k) => colors[each ? 1 : shown.off[k] ? 2 : 0]),
};
now.data = {step: [step.value]};

const all = sum(on) + sum(off);
const t = step.value - 1;
const percent = Math.round(100 * (Math.exp(contrast.value) - 1));
const events = count => `${count} ${count === 1 ? "event" : "events"}`;
// While the recording plays, the sentence keeps still: a screen reader would not get to the end of any.
let words = play.label === "Pause" ? `<b>The recording plays</b>, ${step.end} steps. `
  : `<b>Step ${step.value} of ${step.end}: ${on[t]} ON and ${off[t]} OFF</b>, of ${side * side} pixels. `;
words += `In all steps: ${events(all)}. `;
if (speed.value === 0) {
  words += "The picture stands still, so nothing is sent. ";
} else if (all === 0) {
  words += "No pixel's light has changed enough. ";
}
said.text = words + `The threshold asks for light that is ${percent} % brighter, or darker by the same factor.`;
back.disabled = step.value === 1;
next.disabled = step.value === step.end;
