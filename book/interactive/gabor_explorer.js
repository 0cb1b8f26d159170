// The Gabor function of snnmlp_edu.receptive_fields.gabor, the variance that it leaves unexplained, and the rule of `judge`.
const {side, degrees} = constants;
const field = fields[choice.value];
const data = field.values;
const mean = values => values.reduce((sum, each) => sum + each, 0) / values.length;
const middle = mean(data);
const variance = mean(data.map(each => (each - middle) ** 2));

// Amplitude and offset are not for the reader to find: they are the best ones for all the rest.
const fitted = frequency => {
  const angle = orientation.value / degrees, turn = phase.value / degrees;
  const wave = data.map((_, k) => {
    const dx = (k % side) - x.value, dy = Math.floor(k / side) - y.value;
    const along = dx * Math.cos(angle) + dy * Math.sin(angle);
    const across = dy * Math.cos(angle) - dx * Math.sin(angle);
    const envelope = Math.exp(-0.5 * ((along / sigma_x.value) ** 2 + (across / sigma_y.value) ** 2));
    return envelope * Math.cos(2 * Math.PI * frequency * along + turn);
  });
  const level = mean(wave);
  const own = mean(wave.map(each => (each - level) ** 2));
  const shared = mean(wave.map((each, k) => (each - level) * (data[k] - middle)));
  const amplitude = own > 0 ? Math.max(0, shared / own) : 0;
  const offset = middle - amplitude * level;
  const values = wave.map(each => amplitude * each + offset);
  const left = data.map((each, k) => each - values[k]);
  return {amplitude, offset, values, left, unexplained: mean(left.map(each => each ** 2)) / variance};
};

const now = fitted(frequency.value);
const inside = each => each >= -0.5 && each <= side - 0.5;
const above = now.values.map(each => each - now.offset);
const high = Math.max(0, ...above), low = Math.max(0, ...above.map(each => -each));
const rules = [
  ["unexplained", now.unexplained > constants.unexplained, `more than ${constants.unexplained} is left`],
  ["centre", !inside(x.value) || !inside(y.value), "its centre lies outside the field"],
  ["envelope", Math.max(sigma_x.value, sigma_y.value) >= side, "its envelope is as wide as the field"],
  ["frequency", frequency.value > constants.nyquist, "the wave is finer than two pixels a period"],
  ["resolution", 2 * Math.PI * sigma_x.value * sigma_y.value < constants.parameters,
    `the envelope covers fewer than ${constants.parameters} pixels`],
  ["blob", Math.min(high, low) < constants.signed * Math.max(high, low), "the function has one sign"],
];
const broken = rules.find(([, holds]) => holds);
result.data = {
  unexplained: [now.unexplained],
  amplitude: [now.amplitude],
  offset: [now.offset],
  reason: [broken ? broken[0] : "well fitted"],
};

// Pictures are drawn from below.
[data, now.values, now.left].forEach((values, k) => {
  const pixels = drawn[k].data.image[0];
  values.forEach((each, i) => (pixels[(side - 1 - Math.floor(i / side)) * side + (i % side)] = each));
  drawn[k].change.emit();
});
const steps = Array.from({length: 76}, (_, i) => constants.highest * i / 75);
curve.data = {frequency: steps, unexplained: steps.map(each => fitted(each).unexplained)};
here.data = {frequency: [frequency.value], unexplained: [now.unexplained]};

said.text =
  `Your function explains <b>${(100 * (1 - now.unexplained)).toFixed(0)} % of the variance</b> and leaves ` +
  `${now.unexplained.toFixed(2)} unexplained. The library's fit leaves ${field.unexplained.toFixed(2)}. By the rule ` +
  `it is ` + (broken ? `<b>rejected: ${broken[0]}</b>, because ${broken[2]}.` : "<b>well fitted</b>.");
