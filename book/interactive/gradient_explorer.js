// The slopes of snnmlp_edu.surrogate_derivative at a distance x from the threshold.
const derivatives = {
  sigmoid: (x, k) => {
    const s = 1 / (1 + Math.exp(-k * x));
    return k * s * (1 - s);
  },
  atan: (x, k) => (k / 2) / (1 + (Math.PI / 2 * k * x) ** 2),
  fast_sigmoid: (x, k) => 1 / (1 + k * Math.abs(x)) ** 2,
  triangle: (x, k) => Math.max(0, k - Math.abs(x)) / k ** 2,
  dspike: (x, k) => Math.abs(x) <= 0.5 ? k / (2 * Math.tanh(k / 2)) * (1 - Math.tanh(k * x) ** 2) : 0,
};

// The neuron of snnmlp_edu.lif_step forward, and the way that autograd walks back through it.
const {currents, threshold, gain, defaults, marks, highest} = constants;
const current = currents.map(x => strength.value * x);
const count = current.length;
const hard = reset.value === "hard";
const before = [], after = [], spikes = [];
let kept = 0;
for (const x of current) {
  const potential = leak.value * kept + gain * x;
  const fires = potential - threshold >= 0;
  kept = !fires ? potential : hard ? 0 : potential - threshold;
  before.push(potential);
  after.push(kept);
  spikes.push(fires ? 1 : 0);
}
const phi = before.map(u => derivatives[surrogate.value](u - threshold, slope.value));
const gradient = new Array(count).fill(0);
let toKept = 0; // what the membrane after the reset is told by later steps
for (let t = count - 1; t >= 0; t--) {
  const wanted = loss.value === "all" || t === count - 1 ? 1 : 0;
  const toPotential = phi[t] * wanted + (hard && spikes[t] ? 0 : toKept);
  gradient[t] = gain * toPotential;
  toKept = leak.value * toPotential;
}

const time = current.map((_, i) => i + 1);
steps.data = {step: time, current, before, after, spikes, slope: phi, gradient};
const path = {x: [0], y: [0]};
time.forEach((t, i) => {
  path.x.push(t, t);
  path.y.push(before[i], after[i]);
});
membrane.data = path;
const firing = time.filter((_, i) => spikes[i]);
fired.data = {step: firing, low: firing.map(() => marks[0]), high: firing.map(() => marks[1])};
// A spike of the last step stops nothing: no step comes after it.
walls.data = {x: hard ? firing.filter(t => t < count).map(t => t + 0.5) : []};
// Scales stay as they are, so that a flat surrogate looks flat beside a steep one. Only the other loss, which is
// another quantity, has another one.
gradients.end = highest[loss.value];
const cut = [["slope", phi, slopes.end], ["gradient", gradient, gradients.end]]
  .filter(([, values, end]) => Math.max(...values) > end)
  .map(([name, values]) => `the ${name} goes up to ${Math.max(...values).toPrecision(2)}`);

const reached = gradient.filter(g => g > 0).length;
const asked = loss.value === "all" ? "The sum of all spikes" : "The last spike";
const preset = `The default slope of ${surrogate.value} is ${defaults[surrogate.value]}.`;
const wall = walls.data.x.at(-1);
let words;
if (reached === 0) {
  words = `<b>No current gets a gradient:</b> every membrane that counts is out of reach of the surrogate. `;
} else {
  const most = gradient.indexOf(Math.max(...gradient));
  words = `${asked} answers to <b>${reached} of ${count} currents</b>, most to that of step ${most + 1}, `
    + `with ${gradient[most].toPrecision(2)}. `;
  if (leak.value === 0) {
    words += "Without a membrane that is kept, no gradient walks back. ";
  } else if (loss.value === "last" && wall !== undefined) {
    words += `The spike at step ${wall - 0.5} is a wall: nothing before it counts. `;
  }
}
said.text = words + (cut.length ? `Too high for the scale: ${cut.join(", and ")}. ` : "") + preset;
