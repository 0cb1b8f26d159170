// Ways from each token to the chosen one: in a block a token sends to itself, and to those it is mixed with.
const sees = {
  axial: (r, c, i, j) => (r === i ? 1 : 0) + (c === j ? 1 : 0) + (r === i && c === j ? 1 : 0),
  full: (r, c, i, j) => 1 + (r === i && c === j ? 1 : 0),
  none: (r, c, i, j) => (r === i && c === j ? 1 : 0),
}[mixing.value];

const side = Math.round(Math.sqrt(tokens.data.ways.length));
let ways = Array.from({length: side * side}, (_, k) =>
  Math.floor(k / side) === line.value - 1 && k % side === place.value - 1 ? 1 : 0);
for (let block = 0; block < blocks.value; block++) {
  ways = ways.map((_, to) => {
    let sum = 0;
    for (let from = 0; from < side * side; from++) {
      if (ways[from]) sum += ways[from] * sees(Math.floor(to / side), to % side, Math.floor(from / side), from % side);
    }
    return sum;
  });
}

const most = Math.max(...ways);
// White where nothing arrives; elsewhere the more ways, the darker, on a logarithmic scale.
const shade = n => {
  if (n === 0) return "#FFFFFF";
  const depth = most === 1 ? 1 : 0.35 + 0.65 * Math.log(n + 1) / Math.log(most + 1);
  const mix = (from, to) => Math.round(from + (to - from) * depth).toString(16).padStart(2, "0");
  return `#${mix(255, 213)}${mix(255, 94)}${mix(255, 0)}`;
};
tokens.data = {
  ...tokens.data,
  ways,
  color: ways.map(shade),
  text: ways.map(n => (n ? String(n) : "")),
};
chosen.data = {x: [place.value], y: [line.value]};

const reached = ways.filter(n => n > 0).length;
const pixels = patch * patch;
said.text = `After ${blocks.value} block${blocks.value === 1 ? "" : "s"}, <b>${reached} of ${side * side} tokens</b> ` +
  `(${reached * pixels} of ${side * side * pixels} pixels) reach row ${line.value}, column ${place.value}. ` +
  (reached === side * side ? "Nothing is out of reach." : "White is out of reach.");
