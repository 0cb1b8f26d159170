// z = gamma (W x + b - mean) / sqrt(variance + epsilon) + delta, rewritten until nothing is left after W.
const x = [0, 1, 2].map(i => (inputs.active.includes(i) ? 1 : 0));
const tokens = axis.value === "token";
const groups = [0, 1].map(f => {
  const changed = f === 0 ? {gamma: gamma.value, variance: variance.value} : {};
  return {...constants.norm[f], ...changed};
});
const scale = groups.map(g => g.gamma / Math.sqrt(g.variance + constants.epsilon));
const shift = groups.map((g, f) => g.delta - scale[f] * g.mean);

// One row for each current: which row of W makes it, and whose constants normalise it.
const currents = tokens
  ? [0, 1].flatMap(token => [0, 1].map(output => ({output, feature: token, name: `tok ${token + 1}, out ${output + 1}`})))
  : [0, 1].map(output => ({output, feature: output, name: `out ${output + 1}`}));

const trained = ({output, feature}) => {
  const g = groups[feature];
  const y = constants.weight[output].reduce((sum, w, i) => sum + w * x[i], constants.bias[output]);
  return {y, z: g.gamma * (y - g.mean) / Math.sqrt(g.variance + constants.epsilon) + g.delta};
};
const folds = !tokens || scale[0] === scale[1];
const scaled = step.value >= 3;
const rows = currents.map(current => {
  const {output, feature} = current;
  const factor = scaled ? scale[feature] : 1;
  const weights = constants.weight[output].map(w => factor * w);
  let bias = factor * constants.bias[output];
  if (step.value === 4) bias += shift[feature];
  const inside = weights.reduce((sum, w, i) => sum + w * x[i], bias);
  const {y, z} = trained(current);
  const shown = step.value === 1 ? z : step.value === 2 ? scale[feature] * y + shift[feature]
    : step.value === 3 ? inside + shift[feature] : inside;
  return {...current, weights, bias, z, shown};
});

// The table: one cell for each number that is stored or used at this step.
const headings = step.value === 1 ? ["μ", "σ²", "γ", "δ"]
  : step.value === 2 ? ["a", "d"] : step.value === 3 ? ["d"] : [];
const titles = [scaled ? "a w₁" : "w₁", scaled ? "a w₂" : "w₂", scaled ? "a w₃" : "w₃",
  step.value === 4 ? "a b + d" : scaled ? "a b" : "b", ...headings, "z"];
const cell = {x: [], y: [], text: [], fill: []};
const put = (column, row, text, fill) => {
  cell.x.push(column);
  cell.y.push(row);
  cell.text.push(text);
  cell.fill.push(fill);
};
titles.forEach((title, column) => put(column, 0, title, "#FFFFFF"));
rows.forEach((row, i) => {
  const g = groups[row.feature];
  const own = {"μ": g.mean, "σ²": g.variance, "γ": g.gamma, "δ": g.delta,
    a: scale[row.feature], d: shift[row.feature]};
  row.weights.forEach((w, column) => put(column, i + 1, w.toFixed(2), x[column] ? "#F6D3B8" : "#F2F2F2"));
  put(3, i + 1, row.bias.toFixed(2), "#F2F2F2");
  headings.forEach((name, column) => put(4 + column, i + 1, own[name].toFixed(2), "#CFE3F1"));
  put(titles.length - 1, i + 1, row.shown.toFixed(2), "#CDEBE0");
});
// Letters as large as the longest number allows. Where that is too small, on a phone, one decimal has to do.
const pen = document.createElement("canvas").getContext("2d");
pen.font = "100px helvetica, arial, sans-serif";
const room = 0.94 * (plot.inner_width || 600) / titles.length - 4; // in a cell, between its edges
const size = () => Math.min(12, Math.floor(100 * room / Math.max(...cell.text.map(text => pen.measureText(text).width))));
if (size() < 10) {
  cell.text = cell.text.map(text => (isFinite(text) ? Number(text).toFixed(1).replace("-0.0", "0.0") : text));
}
letters.text_font_size = `${size()}px`;
cells.data = cell;
plot.x_range.end = titles.length - 0.5;
plot.y_range.start = rows.length + 0.6;
names.ticker.ticks = rows.map((_, i) => i + 1);
const phone = plot.outer_width < 500; // where a name in two lines leaves more room for numbers
names.major_label_overrides = new Map(rows.map(({name}, i) => [i + 1, phone ? name.replace(", ", ",\n") : name]));
result.data = {name: rows.map(row => row.name), z: rows.map(row => row.z), shown: rows.map(row => row.shown)};

const a = number => number.toFixed(2);
said.text = {
  1: "<b>Step 1: as trained.</b> The spikes pick columns of W (orange). Then each current is shifted and scaled " +
    "with four constants (blue). Every current costs a multiplication, at every time step.",
  2: "<b>Step 2: one scale, one shift.</b> The four constants are known before the first image arrives. They shrink " +
    `to a = γ / √(σ² + ε) and d = δ − a μ: a is ${a(scale[0])} and ${a(scale[1])}.`,
  3: folds
    ? "<b>Step 3: the scale goes into W.</b> a (W x + b) = (a W) x + a b. Each row of W is scaled once, by its own a. " +
      "No current is multiplied any more."
    : `<b>Step 3: here it breaks.</b> Token 1 needs the weights times ${a(scale[0])}, token 2 the same weights times ` +
      `${a(scale[1])}. There is one W for all tokens, and it cannot be both: <b>this norm does not fold.</b>`,
  4: folds
    ? "<b>Step 4: the shift goes into the bias.</b> What is left is a linear map. z is the same as in step 1, and " +
      "nothing after W multiplies."
    : "<b>Step 4: not reached.</b> It would take a copy of W for each token (the rows differ from token to token). " +
      "With shared weights, <b>the multiplication stays.</b>",
}[step.value];
back.disabled = step.value === 1;
next.disabled = step.value === 4;
