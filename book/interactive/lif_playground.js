// The neuron of snnmlp_edu.lif_step, operation by operation and in the same order: a test compares the bits.
const lif = (currents, beta, gain, threshold, reset) => {
  const before = [], after = [], spikes = [];
  let membrane = 0;
  for (const current of currents) {
    const potential = beta * membrane + gain * current;
    const fires = potential - threshold >= 0;
    membrane = !fires ? potential : reset === "hard" ? 0 : potential - threshold;
    before.push(potential);
    after.push(membrane);
    spikes.push(fires ? 1 : 0);
  }
  return {before, after, spikes};
};

const count = steps.data.step.length;
const time = Array.from({length: count}, (_, i) => i + 1);
const every = period.value;
const current = time.map(t => (input.value === "constant" || t % every === 0) ? strength.value : 0);
const {before, after, spikes} = lif(current, leak.value, gain.value, threshold.value, reset.value);
steps.data = {step: time, current, before, after, spikes};

const path = {x: [0], y: [0]};
time.forEach((t, i) => {
  path.x.push(t, t);
  path.y.push(before[i], after[i]);
});
membrane.data = path;
fired.data = {step: time.filter((_, i) => spikes[i])};
mark.location = threshold.value;
period.visible = input.value === "train";

const number = spikes.reduce((sum, each) => sum + each, 0);
const rheobase = threshold.value * (1 - leak.value) / gain.value;
let words = `<b>${number} spike${number === 1 ? "" : "s"}</b> in ${count} steps: rate ${(number / count).toFixed(2)}. `;
if (input.value === "constant") {
  words += `A constant current must be above ${rheobase.toFixed(2)} for this neuron ever to fire.`;
} else {
  const peak = gain.value * strength.value / (1 - Math.pow(leak.value, every));
  words += leak.value === 1 ? "Without a leak every input spike is kept."
    : `Input spikes ${every} step${every === 1 ? "" : "s"} apart lift the membrane to at most ${peak.toFixed(2)}.`;
}
said.text = words;
