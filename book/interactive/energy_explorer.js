// The bill of chapter 10: MACs of the stem, and additions for the spikes that arrive, for the head and the shortcuts.
const counts = networks[network.value];
const bill = rate => mac.value * counts.stem +
  add.value * steps.value * (rate * (counts.dense + counts.head) + counts.skip) +
  neuron.value * steps.value * counts.neurons;
const twin = mac.value * counts.twin_macs + add.value * counts.twin_additions;
const millijoules = picojoules => picojoules * 1e-9;

const rates = Array.from({length: 101}, (_, i) => i / 100);
spiking.data = {rate: rates, energy: rates.map(rate => millijoules(bill(rate)))};
reference.location = millijoules(twin);
here.data = {rate: [rate.value], energy: [millijoules(bill(rate.value))]};
const counted = counts.counted.filter(() => steps.value === counts.time_steps);
dots.data = {
  rate: counted.map(each => each.rate),
  energy: counted.map(each => millijoules(mac.value * counts.stem + add.value * each.additions +
    neuron.value * steps.value * counts.neurons)),
};
const fixed = bill(0);
const even = (twin - fixed) / (bill(1) - fixed);
crossing.location = even;
crossing.visible = even >= 0 && even <= 1;
plot.y_range.end = 1.08 * Math.max(millijoules(twin), millijoules(bill(1)));

const share = bill(rate.value) / twin;
said.text = `At an arrival rate of ${rate.value.toFixed(2)}: <b>${millijoules(bill(rate.value)).toPrecision(3)} mJ</b>, ` +
  `${(100 * share).toPrecision(3)} % of the ${millijoules(twin).toPrecision(3)} mJ of its ReLU twin. ` +
  (even > 1 ? "No rate is high enough for the twin to be cheaper."
    : even < 0 ? "The twin is cheaper even if no neuron fires."
    : `Above a rate of <b>${even.toFixed(2)}</b> the twin is cheaper.`);
