// Everything was computed by the library when the page was built; here it is only chosen and drawn.
const kind = kinds.value;
const network = networks[kind];
const block = network.blocks[place.value - 1];
const drawing = drawings[kind];
lines.data = drawing.lines;
tips.data = drawing.tips;
boxes.data = drawing.boxes;
rings.data = drawing.rings;

// Long sets are shortened in the diagram; the sentence has them in full.
const short = each => {
  if (!each.whole || each.x.length <= 3) return each.words;
  return `{${each.x[0]}, …, ${each.x[each.x.length - 1]}}`;
};
const binary = each => each.whole && each.x.every(value => value === 0 || value === 1);
const symbols = {tau: "τ: ", c: "c: ", first: {stage: "h: ", membrane: "m: "}[kind] ?? ""};
const drawn = Object.keys(drawing.places);
labels.data = {
  wire: drawn,
  x: drawn.map(name => drawing.places[name][0]),
  y: drawn.map(name => drawing.places[name][1]),
  align: drawn.map(name => drawing.places[name][2]),
  text: drawn.map(name => (symbols[name] ?? "") + short(block.wires[name])),
  color: drawn.map(name => (read.includes(name) && !binary(block.wires[name]) ? "#B00020" : "#222222")),
};

// A wire that a diagram does not draw apart is the current above it.
const same = {sum1: "tau", sum2: "c"};
const name = chosen.value;
const values = block.wires[name];
const at = drawing.places[name] ?? drawing.places[same[name]];
here.data = values && at ? {x: [at[0] + (at[2] === "left" ? 0.95 : -0.95)], y: [at[1]]} : {x: [], y: []};
if (values) {
  const color = values.whole ? colors.spike : colors.current;
  bars.data = {x: values.x, share: values.share, color: values.x.map(() => color)};
  bar.width = values.width;
  const last = values.x.length - 1;
  below.x_range.start = values.whole ? -0.7 : values.x[0] - values.width;
  below.x_range.end = values.whole ? Math.max(7.7, values.x[last] + 0.7) : values.x[last] + values.width;
  below.y_range.end = Math.min(1.02, 1.15 * Math.max(...values.share));
} else {
  bars.data = {x: [], share: [], color: []};
}

const maps = number => `${number} map${number === 1 ? "" : "s"} that multipl${number === 1 ? "ies" : "y"}`;
let words = "In the chapter's small network of two stages, not trained: ";
words += network.free
  ? `<b>${kind} passes the audit.</b> No map multiplies. `
  : `<b>${kind} fails the audit.</b> It finds ${maps(network.multiply)}, ${block.multiply} of them in block ` +
    `${place.value} of the first stage. `;
const title = titles[name][0].toUpperCase() + titles[name].slice(1);
if (!values) {
  words += `${title}: this wiring has no such wire.`;
} else if (!values.whole) {
  words += `${title}: real numbers` + (read.includes(name) ? "." : ", and neurons turn them into spikes.");
} else {
  words += `${title}: ${values.words}`;
  words += binary(values) ? "." : `; ${(100 * values.other).toFixed(0)} % are neither 0 nor 1.`;
}
said.text = words;
