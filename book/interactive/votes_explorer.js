// One step of three votes: what each neuron got, what it holds, whether it fires, and what changed since the vote before.
const token = tokens[garment.value];
const t = step.value - 1;
const colours = {
  kept: ["#D55E00", "#D55E00"],
  new: ["#D55E00", "#000000"],
  "taken back": ["#FFFFFF", "#D55E00"],
  "": ["#F0F0F0", "#F0F0F0"],
};

const votes = [first, second, third].map((source, k) => {
  const fired = token.fired[k][t];
  const before = k > 0 ? token.fired[k - 1][t] : fired;
  const verdict = fired.map((now, c) => (now ? (before[c] ? "kept" : "new") : before[c] ? "taken back" : ""));
  source.data = {
    x: source.data.x,
    top: source.data.top,
    current: token.current[k][t],
    membrane: token.membrane[k][t],
    left: token.left[k][t],
    fired,
    verdict,
    fill: verdict.map(each => colours[each][0]),
    line: verdict.map(each => colours[each][1]),
  };
  return verdict;
});

drawn.forEach((image, i) => (image.visible = shown[i] === garment.value));
place.data = {x: [size * (token.column + 0.5)], y: [side - size * (token.row + 0.5)]};

// "channels 2, 5 and 7" of those with one of these verdicts
const channels = (vote, ...wanted) => {
  const found = vote.flatMap((each, c) => (wanted.includes(each) ? [c + 1] : []));
  if (found.length === 0) return null;
  const last = found.pop();
  return found.length ? `channels ${found.join(", ")} and ${last}` : `channel ${last}`;
};
const change = vote => {
  const gained = channels(vote, "new");
  const lost = channels(vote, "taken back");
  if (!gained && !lost) return "nothing changes";
  return [gained && `${gained} new`, lost && `${lost} taken back`].filter(Boolean).join("; ");
};
said.text =
  `<b>Step ${step.value} of ${step.end}.</b> First vote: ${channels(votes[0], "kept") ?? "no channel"}. ` +
  `Second vote: ${change(votes[1])}. Hidden neurons that fire: ${token.hidden[t]} of ${token.room}. ` +
  `Third vote: ${change(votes[2])}.`;
back.disabled = step.value === 1;
next.disabled = step.value === step.end;
