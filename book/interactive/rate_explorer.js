// The neuron of snnmlp_edu.lif_step without a leak, with a gain of one: spikes for a constant current.
const hard = reset.value === "hard";
const spikesOf = current => {
  let membrane = 0, spikes = 0;
  for (let t = 0; t < steps.value; t++) {
    membrane += current;
    if (membrane - threshold.value < 0) continue;
    membrane = hard ? 0 : membrane - threshold.value;
    spikes += 1;
  }
  return spikes;
};

const current = Array.from(rates.data.current);
const spikes = current.map(spikesOf);
const rate = spikes.map(count => count / steps.value);
const relu = current.map(x => Math.min(Math.max(x / threshold.value, 0), 1));
const error = rate.map((each, k) => each - relu[k]);
rates.data = {current, spikes, rate, relu, error};

const distance = error.map(Math.abs);
const largest = Math.max(...distance), at = current[distance.indexOf(largest)];
const limit = 1 / steps.value;
result.data = {largest: [largest], current: [at], bound: [limit]};
bound.location = -limit;

const values = new Set(rate).size;
const step = steps.value === 1 ? "one step" : `${steps.value} steps`;
const says = !hard ? "What is missing is still in the neuron, and that is less than one threshold."
  : largest < limit ? "With so few steps a hard reset does no worse than a soft one."
  : "A hard reset pours away what is above the threshold, and more steps do not bring it back.";
said.text = `<b>After ${step} the rate is at most ${largest.toFixed(3)} from the ReLU</b>, `
  + `at the current ${at.toFixed(2)}; 1 / T is ${Number(limit.toPrecision(3))}. It can take ${values} values. ` + says;
