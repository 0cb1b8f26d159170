// Plays the steps of a slider to the last one. Whoever moves the step, by the slider or by a button, pauses it.
const tape = play.tape ??= {timer: null, at: null};

// Bokeh draws a button anew when its label changes: a keyboard that was on it stays there.
const rename = label => {
  const view = cb_context.index.find_one(play);
  const focused = view.shadow_el.activeElement !== null;
  const redrawn = new MutationObserver(() => {
    redrawn.disconnect();
    if (focused) view.button_el.focus({preventScroll: true});
  });
  redrawn.observe(view.shadow_el, {childList: true});
  play.label = label;
};
const playing = play.label === "Pause";
const stop = () => {
  clearInterval(tape.timer);
  rename("Play");
};

if (cb_obj === step) {
  if (playing && step.value !== tape.at) stop();
} else if (playing) {
  stop();
} else {
  tape.at = step.value === step.end ? step.start : step.value;
  step.value = tape.at;
  rename("Pause");
  // Not often enough to flash, and slower still where less motion is wanted.
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  tape.timer = setInterval(() => {
    step.value = tape.at += 1;
    if (tape.at === step.end) stop();
  }, calm ? 2000 : 600);
}
