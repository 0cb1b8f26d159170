// The intervals of snnmlp_edu.ledger for two variants with equally many runs: variances pooled, and Student's factor.
const {alpha, power, freedom: least, most, many, count, colors} = constants;

// The normal distribution below x, by its series in x; beyond 7 nothing is left.
const normal = x => {
  if (Math.abs(x) > 7) return x > 0 ? 1 : 0;
  let term = x, sum = x;
  for (let k = 3; Math.abs(term) > 1e-17; k += 2) sum += term *= x * x / k;
  return 0.5 + sum * Math.exp(-x * x / 2) / Math.sqrt(2 * Math.PI);
};

// Values and weights for a mean over s, the estimated standard deviation by the true one: nu s² is chi-squared.
const ratios = nu => {
  const left = -Math.max(8 / Math.sqrt(2 * nu), 28 / nu), right = Math.log(1 + 8 / Math.sqrt(2 * nu));
  const values = Array.from({length: 61}, (_, k) => Math.exp(left + (right - left) * k / 60));
  const weights = values.map(s => Math.exp(nu * (Math.log(s) - (s * s - 1) / 2)));
  const sum = weights.reduce((a, b) => a + b, 0);
  return values.map((s, k) => [s, weights[k] / sum]).filter(([, weight]) => weight > 1e-14);
};

// The chance that |t| exceeds a factor, if the true difference is so many standard errors.
const exceeds = (pairs, factor, shift) =>
  pairs.reduce((sum, [s, w]) => sum + w * (normal(shift - factor * s) + normal(-shift - factor * s)), 0);

// Where a function that rises goes through zero.
const root = (rises, low, high) => {
  let below = rises(low), above = rises(high);
  for (let k = 0; k < 60 && high - low > 1e-9; k++) {
    // Regula falsi, and every third time the middle, so that both ends come closer.
    const at = k % 3 === 2 ? (low + high) / 2 : low - below * (high - low) / (above - below);
    const value = rises(at);
    if (value < 0) [low, below] = [at, value];
    else [high, above] = [at, value];
    if (Math.abs(value) < 1e-12) return at;
  }
  return (low + high) / 2;
};

const studied = new Map();
const student = nu => {
  if (!studied.has(nu)) {
    const pairs = ratios(nu);
    studied.set(nu, {pairs, factor: root(factor => alpha - exceeds(pairs, factor, 0), 1.9, 13)});
  }
  return studied.get(nu);
};

// An error of a difference: its variance and degrees of freedom; two of them together, by Satterthwaite.
const plus = (one, other) => {
  const variance = one.variance + other.variance;
  const parts = one.variance ** 2 / one.freedom + other.variance ** 2 / other.freedom;
  return {variance, freedom: variance ** 2 / parts};
};
const overSeeds = (variance, runs) => ({variance: variance * 2 / runs, freedom: 2 * (runs - 1)});
const pictures = Number(images.value);
const right = accuracy.value / 100;
const noise = 100 ** 2 * right * (1 - right) / pictures; // of one variant's accuracy, in points squared
const overImages = {variance: 2 * noise, freedom: pictures - 1};
const reach = error => student(error.freedom).factor * Math.sqrt(error.variance);
const chance = (error, gap) => {
  const {pairs, factor} = student(error.freedom);
  return exceeds(pairs, factor, gap / Math.sqrt(error.variance));
};
const finds = error => {
  const {pairs, factor} = student(error.freedom);
  return Math.sqrt(error.variance) * root(shift => exceeds(pairs, factor, shift) - power, 0, 10 * factor);
};

// Of the two intervals the wider decides; there is no verdict on a spread that nobody knows.
const judged = runs => {
  const alone = overSeeds(spread.value ** 2, runs), both = plus(alone, overImages);
  const known = alone.freedom >= least;
  const seen = known ? chance(alone, difference.value) : 0;
  return {
    alone: seen,
    both: known ? Math.min(seen, chance(both, difference.value)) : 0,
    interval: Math.max(reach(alone), reach(both)),
    errors: [alone, both],
  };
};
const now = judged(seeds.value);
const detectable = Math.max(...now.errors.map(finds));
const limit = judged(many).both;
result.data = {
  interval: [now.interval],
  alone: [now.alone],
  both: [now.both],
  many: [limit],
  detectable: [detectable],
};
const numbers = Array.from({length: most - 1}, (_, k) => k + 2);
const chances = numbers.map(judged);
curve.data = {seeds: numbers, alone: chances.map(each => each.alone), both: chances.map(each => each.both)};
here.data = {seeds: [seeds.value], chance: [now.both]};

// Experiments that are drawn: the same random numbers until the reader asks for others.
let state = 7919 * series.data.number[0];
const uniform = () => {
  state = (state + 0x9e3779b9) | 0;
  let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
  return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32 + 2 ** -33;
};
const gaussian = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
const average = values => values.reduce((a, b) => a + b, 0) / values.length;
const drawRuns = centre => {
  const luck = Math.sqrt(noise) * gaussian(); // with these test images, the same for all seeds
  const runs = Array.from({length: most}, () => centre + luck + spread.value * gaussian());
  return runs.slice(0, seeds.value);
};
const drawn = Array.from({length: count}, (_, k) => {
  const one = drawRuns(100 * right + difference.value), other = drawRuns(100 * right);
  const squares = [one, other].flatMap(runs => runs.map(each => (each - average(runs)) ** 2));
  const alone = overSeeds(squares.reduce((a, b) => a + b, 0) / (2 * (seeds.value - 1)), seeds.value);
  const found = average(one) - average(other);
  const half = Math.max(reach(alone), reach(plus(alone, overImages)));
  const separated = alone.freedom >= least && Math.abs(found) > half;
  const color = !separated ? colors[1] : found * difference.value < 0 ? colors[2] : colors[0];
  return {number: k + 1, difference: found, low: found - half, high: found + half, color, one, other};
});
experiments.data = Object.fromEntries(Object.keys(drawn[0]).map(key => [key, drawn.map(each => each[key])]));
true_line.location = difference.value;
const widest = Math.max(...drawn.map(each => Math.max(-each.low, each.high)));
points.end = [3, 5, 10, 15, 20, 30, 50, 100].find(each => each >= widest) ?? widest;
points.start = -points.end;

const percent = share => `${(100 * share).toFixed(0)} %`;
const separated = drawn.filter(each => each.color !== colors[1]).length;
const what = difference.value === 0 ? "A false alarm comes" : `${difference.value.toFixed(1)} points are separated`;
said.text =
  `<b>${seeds.value} seeds of each, ${pictures.toLocaleString("en")} test images:</b> the interval is the difference ` +
  `± ${now.interval.toFixed(1)} points. ` +
  (now.errors[0].freedom < least
    ? `But there is <b>no verdict</b> from so few runs: nobody knows how far they spread. `
    : `${what} in <b>${percent(now.both)}</b> of such experiments, and with ${many} seeds of each in ` +
      `${percent(limit)}. ${detectable.toFixed(1)} points would be found four times in five. `) +
  `Of the ${count} below, ${separated} ${separated === 1 ? "is" : "are"} separated.`;
