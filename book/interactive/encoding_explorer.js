// The spikes were computed by the library when the page was built; here they are chosen and drawn.
const own = garments[garment.value];
const t = step.value - 1;
const at = Number(node.value);
const nodes = names.map((_, k) => own[`${graph.value} ${k}`]);
const chosen = nodes[at];
const cut = graph.value === "cut";

// One character for each place, rows from above; pictures are drawn from below.
[own.arriving[t], ...nodes.map(each => each.fired[t])].forEach((code, k) => {
  const pixels = maps[k].data.image[0];
  const side = Math.sqrt(code.length);
  for (let i = 0; i < code.length; i++) {
    pixels[(side - 1 - Math.floor(i / side)) * side + (i % side)] = parseInt(code[i], 36);
  }
  maps[k].change.emit();
});
drawn.forEach((image, k) => (image.visible = shown[k] === garment.value));

const {name, node: into, lit} = lines.data;
const missing = k => cut && name[k].startsWith("Q");
const bright = k => into[k] === at && !missing(k);
lines.data = {
  ...lines.data,
  color: name.map((_, k) => (missing(k) ? "#FFFFFF" : bright(k) ? lit[k] : "#C8C8C8")),
  width: name.map((_, k) => (bright(k) ? 4 : 2)),
};
frames.data = {
  ...frames.data,
  color: names.map((_, k) => (k === at ? "#000000" : "#C8C8C8")),
  width: names.map((_, k) => (k === at ? 3 : 1)),
};
const percent = rate => `${(100 * rate).toFixed(1)} %`;
labels.data = {...labels.data, text: ["arriving", ...nodes.map((each, k) => `${names[k]}: ${percent(each.rate[t])}`)]};
result.data = {rate: nodes.map(each => each.rate[t])};

const strength = part => chosen.sums[part][t].toPrecision(2);
const words = Object.keys(chosen.sums).map(part =>
  part.startsWith("P") ? `${part} of the arriving spikes (mean size ${strength(part)})`
    : part.startsWith("Q") ? `${part} of the spikes on ${names[at - 1]} (${strength(part)})`
    : `${part} as it is, a current (${strength(part)})`);
const last = words.pop();
const whole = own[`whole ${at}`].rate[t];
said.text =
  `<b>${garment.value}, step ${step.value} of ${step.end}:</b> ` +
  `<b>${percent(chosen.rate[t])}</b> of the ${room} neurons on ${names[at]} fire. The node ` +
  (words.length ? `sums ${words.join(", ")} and ${last}.` : `is ${last}, and no other node.`) +
  (cut && at > 0 ? ` With Q${names[at - 1][1]}, ${percent(whole)} fire.` : "");
back.disabled = step.value === 1;
next.disabled = step.value === step.end;
