// The living network. The engine is WebAssembly: the bytes of an image go in, whole logits come out, and all spikes
// stay in its memory. The page shows them moment by moment: a moment is one stage at one time step, and moment 0 is
// before the first. A block keeps all names but `showLiveNetwork` to this script.
{
  const here = document.currentScript.src;
  const [SPIKE, PAST_SPIKE, SILENT] = ["#D55E00", "#F0B98F", "#E6E6E6"];
  const CELL = 6; // units of a canvas for each neuron
  const PIXEL = 8; // and for each pixel of the image
  const MILLISECONDS = 600; // that a moment lasts
  const RIM = 128; // of a stroke of the brush: grey, as the edges in a photograph

  // The smallest module that makes a vector: valid only where the browser knows vectors.
  const VECTOR = Uint8Array.of(
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11);

  const bytesOf = base64 => {
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let k = 0; k < bytes.length; k++) bytes[k] = text.charCodeAt(k);
    return bytes;
  };
  const written = number => number.toLocaleString("en");

  const loadEngine = async engines => {
    const name = WebAssembly.validate(VECTOR) ? engines.simd : engines.plain;
    await new Promise((done, failed) => {
      const script = document.createElement("script");
      Object.assign(script, {src: new URL(name, here), onload: done, onerror: failed});
      document.head.append(script);
    });
    const {instance} = await WebAssembly.instantiate(bytesOf(window.liveNetworkEngine));
    return instance.exports;
  };

  // Spikes of a layer at one step, 0 or 1, channel by channel at each place. A column of bits holds one place and step.
  const spikesOf = (memory, layer, step) => {
    const channels = layer.order.length;
    const spikes = new Uint8Array(layer.places * channels);
    for (let place = 0; place < layer.places; place++) {
      const column = layer.at + (place * layer.steps + step) * layer.lanes / 8;
      for (let channel = 0; channel < channels; channel++) {
        const lane = layer.order[channel];
        spikes[place * channels + channel] = memory[column + (lane >> 3)] >> (lane & 7) & 1;
      }
    }
    return spikes;
  };

  // Additions that spikes cause: each adds as many weights as it has targets, which depends on its place.
  const additionsOf = (spikes, layer) => {
    const channels = layer.order.length;
    let sum = 0;
    spikes.forEach((spike, k) => {
      if (spike) sum += layer.additions[Math.floor(k / channels)];
    });
    return sum;
  };

  // Additions for the pixels: the first layer adds a row of weights for each bit that is 1.
  const additionsOfPixels = (pixels, facts) => {
    let bits = 0;
    for (const pixel of pixels) {
      for (let rest = pixel; rest; rest >>= 1) bits += rest & 1;
    }
    return bits * facts.additions.bit_of_a_pixel;
  };

  // Runs the network on an image. Returns the logits; spikes[step][stage], which leave a stage; evidence[n], after n
  // steps; and additions[moment], all so far.
  const run = (engine, facts, pixels) => {
    const image = engine.image(); // opens the network, after which the memory no longer grows
    new Uint8Array(engine.memory.buffer).set(pixels, image);
    engine.classify();
    const logits = [...new Int32Array(engine.memory.buffer, engine.logits(), facts.classes.length)];
    const memory = new Uint8Array(engine.memory.buffer, engine.spikes());

    const spikes = [];
    const evidence = [facts.classes.map(() => 0)];
    const additions = [0];
    let added = additionsOfPixels(pixels, facts);
    for (let step = 0; step < facts.steps; step++) {
      const caused = facts.stages.map(() => 0); // by the spikes of each stage
      const leaving = [];
      for (const layer of facts.layers) {
        const fired = spikesOf(memory, layer, step);
        caused[layer.stage] += additionsOf(fired, layer);
        if (layer.path === facts.stages[layer.stage].last) leaving[layer.stage] = fired;
      }
      spikes.push(leaving);

      const sums = evidence[step].map((before, k) => before + facts.bias[k]);
      leaving.at(-1).forEach((spike, k) => {
        if (!spike) return;
        facts.weights[k % facts.weights.length].forEach((weight, label) => (sums[label] += weight));
      });
      evidence.push(sums);

      caused[caused.length - 1] += facts.additions.shortcuts_of_a_step; // counted where a step ends
      for (const each of caused) additions.push(added += each);
    }
    return {logits, spikes, evidence, additions};
  };

  // White, then green, then nearly black, as in the book's figures.
  const shade = value => {
    const stops = [[255, 255, 255], [0, 158, 115], [0, 36, 27]];
    const at = value / 255 * 2, low = value < 128 ? 0 : 1;
    return `rgb(${stops[low].map((part, k) => Math.round(part + (stops[low + 1][k] - part) * (at - low)))})`;
  };

  const drawImage = (canvas, pixels, side, size) => {
    const context = canvas.getContext("2d");
    pixels.forEach((value, k) => {
      context.fillStyle = shade(value);
      context.fillRect(k % side * size, Math.floor(k / side) * size, size, size);
    });
  };

  // The maps of all channels side by side, a neuron a cell, three rows of maps for four columns.
  const mosaic = ({side, channels}) => {
    const across = Math.ceil(Math.sqrt(channels * 4 / 3)), down = Math.ceil(channels / across);
    return {across, width: across * (side + 1) + 1, height: down * (side + 1) + 1};
  };

  const drawSpikes = (canvas, stage, spikes, color) => {
    const {side, channels} = stage, {across} = mosaic(stage);
    const context = canvas.getContext("2d");
    for (let k = 0; k < side * side * channels; k++) {
      const channel = k % channels, place = Math.floor(k / channels);
      const x = channel % across * (side + 1) + 1 + place % side;
      const y = Math.floor(channel / across) * (side + 1) + 1 + Math.floor(place / side);
      context.fillStyle = spikes?.[k] ? color : SILENT;
      context.fillRect(x * CELL, y * CELL, CELL, CELL);
    }
  };

  window.showLiveNetwork = async facts => {
    const {place, figure} = placeExplorer("live_network");
    let engine;
    try {
      engine = await loadEngine(facts.engines);
    } catch {
      place.textContent = "The network runs in this page where WebAssembly is allowed. Here it is not, so this is a picture.";
      place.setAttribute("role", "note");
      return;
    }
    place.innerHTML = facts.html;
    const find = name => place.querySelector(`.live-${name}`);
    const calm = matchMedia("(prefers-reduced-motion: reduce)");
    const {side} = facts, numberOfStages = facts.stages.length, last = facts.steps * numberOfStages;

    let pixels = new Uint8Array(side * side);
    let label = null; // of the garment that was chosen; null for a drawing
    let cursor = {x: side >> 1, y: side >> 1}; // where the keyboard draws
    let result, moment = last, timer = null;

    // Parts of the page that there are several of.
    const garments = facts.garments.map(({name, pixels}, number) => {
      const choice = document.createElement("label");
      choice.innerHTML = `<input type="radio" name="live-garment"><canvas width="${side}" height="${side}"></canvas>${name}`;
      find("garments").append(choice);
      const garment = {name, pixels: bytesOf(pixels), input: choice.querySelector("input")};
      drawImage(choice.querySelector("canvas"), garment.pixels, side, 1);
      garment.input.checked = number === 0;
      garment.input.addEventListener("change", () => choose(garment));
      return garment;
    });
    const stages = facts.stages.map((stage, number) => {
      const box = document.createElement("div"), {width, height} = mosaic(stage);
      box.innerHTML = `<canvas width="${width * CELL}" height="${height * CELL}"></canvas><p class="live-small"></p>`;
      find("stages").append(box);
      return {box, canvas: box.firstChild, text: box.lastChild,
        title: `stage ${number}: ${stage.channels} maps of ${stage.side}\u00a0×\u00a0${stage.side}`};
    });
    const rows = facts.classes.map(name => {
      const row = document.createElement("li");
      row.innerHTML = `<span>${name}</span><i class="live-bar"></i><b></b>`;
      find("evidence").append(row);
      return {row, bar: row.querySelector("i"), number: row.querySelector("b")};
    });
    const picture = place.querySelector(".live-picture canvas");
    const slider = place.querySelector(".live-time input");
    slider.max = last;
    find("multiplications").textContent = written(facts.multiplications);

    // What a moment shows.
    const stepsDone = () => Math.floor(moment / numberOfStages);
    const leader = () => {
      const sums = result.evidence[stepsDone()];
      return sums.indexOf(Math.max(...sums));
    };

    const drawPicture = () => {
      drawImage(picture, pixels, side, PIXEL);
      if (!picture.matches(":focus-visible")) return;
      const context = picture.getContext("2d");
      Object.assign(context, {strokeStyle: "#0072B2", lineWidth: 3});
      context.strokeRect(cursor.x * PIXEL - PIXEL, cursor.y * PIXEL - PIXEL, 3 * PIXEL, 3 * PIXEL);
    };

    const drawStages = () => stages.forEach(({box, canvas, text, title}, number) => {
      const step = Math.floor((moment - number - 1) / numberOfStages); // the latest at which this stage fired
      const isPast = step + 1 < Math.ceil(moment / numberOfStages);
      const spikes = result.spikes[step]?.[number];
      drawSpikes(canvas, facts.stages[number], spikes, isPast ? PAST_SPIKE : SPIKE);
      box.classList.toggle("live-now", moment > 0 && (moment - 1) % numberOfStages === number);
      const fired = spikes ? spikes.reduce((sum, each) => sum + each, 0) : 0;
      text.textContent = `${title}, ${written(fired)} ${fired === 1 ? "spike" : "spikes"}`;
    });

    const drawEvidence = () => {
      const all = result.evidence.flat(), low = Math.min(...all), range = Math.max(...all) - low || 1;
      const sums = result.evidence[stepsDone()];
      rows.forEach(({row, bar, number}, k) => {
        number.textContent = written(sums[k]);
        bar.style.left = `${100 * (Math.min(sums[k], 0) - low) / range}%`;
        bar.style.width = `${100 * Math.abs(sums[k]) / range}%`;
        row.classList.toggle("live-first", stepsDone() > 0 && k === leader());
      });
    };

    const drawCounts = () => {
      const most = Math.max(facts.multiplications, result.additions[last]);
      find("additions").textContent = written(result.additions[moment]);
      find("adds").style.width = `${100 * result.additions[moment] / most}%`;
      find("multiplies").style.width = `${100 * facts.multiplications / most}%`;
    };

    const time = () => {
      const step = Math.ceil(moment / numberOfStages), stage = (moment - 1) % numberOfStages;
      return moment ? `step ${step} of ${facts.steps}, stage ${stage}` : "before the first step";
    };
    const drawTime = () => {
      const when = time();
      slider.value = moment;
      slider.setAttribute("aria-valuetext", when);
      find("when").textContent = when;
      find("back").disabled = moment === 0;
      find("next").disabled = moment === last;
      find("play").textContent = timer ? "Pause" : "Play";
    };

    // The rest of the picture in words, at this moment.
    const sentence = () => {
      const painted = pixels.filter(value => value > 0).length;
      const drawing = painted === 0 ? "Nothing is drawn, but the network has to answer one of the ten all the same. "
        : painted === pixels.length ? "The whole picture is painted. " : "";
      const answer = facts.classes[leader()], steps = stepsDone(), atStepsEnd = moment % numberOfStages === 0;
      const verdict = label === null ? "" : label === answer ? ", which is right" : `, but its label is ${label}`;
      const when = moment === 0 ? "Before the first step: " : atStepsEnd ? "" : `In ${time()}: `;
      const after = atStepsEnd ? `After ${steps} of ${facts.steps} steps` : `after ${steps} step${steps === 1 ? "" : "s"}`;
      const seen = steps === 0 ? "no evidence has arrived yet." : `${after} the picture is seen as ${answer}${verdict}.`;
      const additions = `${written(result.additions[moment])} additions${moment === last ? "" : " so far"}`;
      return `${drawing}${when}${seen} The network has made ${additions}; ` +
        `its twin makes ${written(facts.multiplications)} multiplications.`;
    };

    const draw = () => {
      [drawPicture, drawStages, drawEvidence, drawCounts, drawTime].forEach(part => part());
      find("said").textContent = sentence();
    };

    // What a screen reader announces: it keeps still while the network plays.
    const say = () => {
      find("announced").textContent = sentence();
    };

    // What the reader does.
    const show = to => {
      moment = Math.min(last, Math.max(0, to));
      draw();
    };
    const pause = () => {
      clearInterval(timer);
      timer = null;
    };
    const goTo = to => {
      pause();
      show(to);
      say();
    };
    const play = () => {
      pause();
      if (moment === last) moment = 0;
      timer = setInterval(() => {
        if (moment + 1 < last) show(moment + 1);
        else goTo(last);
      }, MILLISECONDS);
      draw();
    };
    const compute = () => {
      result = run(engine, facts, pixels);
    };
    const choose = garment => {
      pixels = garment.pixels.slice();
      label = garment.name;
      compute();
      goTo(last);
      if (!calm.matches) play();
    };
    const changed = () => {
      label = null;
      for (const each of garments) each.input.checked = false;
      compute();
      goTo(last);
    };
    const paint = ({x, y}) => {
      for (let row = Math.max(0, y - 1); row <= Math.min(side - 1, y + 1); row++) {
        for (let column = Math.max(0, x - 1); column <= Math.min(side - 1, x + 1); column++) {
          const at = row * side + column, brush = row === y && column === x ? 255 : RIM;
          pixels[at] = find("erase").checked ? 0 : Math.max(pixels[at], brush);
        }
      }
    };

    let pen = null; // where mouse or finger was last
    const under = ({clientX, clientY}) => {
      const box = picture.getBoundingClientRect();
      return {
        x: Math.floor((clientX - box.left) / box.width * side),
        y: Math.floor((clientY - box.top) / box.height * side),
      };
    };
    const draws = event => {
      const to = under(event), from = pen ?? to;
      const length = Math.max(1, Math.abs(to.x - from.x), Math.abs(to.y - from.y));
      for (let k = 0; k <= length; k++) {
        const along = axis => Math.round(from[axis] + (to[axis] - from[axis]) * k / length);
        paint({x: along("x"), y: along("y")});
      }
      pen = cursor = to;
      changed();
    };
    picture.addEventListener("pointerdown", event => {
      picture.setPointerCapture(event.pointerId);
      pen = null;
      draws(event);
    });
    picture.addEventListener("pointermove", event => {
      if (event.buttons) draws(event);
    });

    const MOVES = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    picture.addEventListener("keydown", event => {
      if (!(event.key in MOVES) && event.key !== " ") return;
      event.preventDefault();
      if (event.key === " ") {
        paint(cursor);
        changed();
      } else {
        const [x, y] = MOVES[event.key], within = value => Math.min(side - 1, Math.max(0, value));
        cursor = {x: within(cursor.x + x), y: within(cursor.y + y)};
        drawPicture();
      }
      find("cursor").textContent = `Row ${cursor.y + 1}, column ${cursor.x + 1}`;
    });
    for (const event of ["focus", "blur"]) picture.addEventListener(event, drawPicture);

    find("clear").addEventListener("click", () => {
      pixels.fill(0);
      changed();
    });
    find("play").addEventListener("click", () => (timer ? goTo(moment) : play()));
    find("back").addEventListener("click", () => goTo(moment - 1));
    find("next").addEventListener("click", () => goTo(moment + 1));
    slider.addEventListener("input", () => goTo(slider.valueAsNumber));

    // The first garment, which plays once it is seen.
    pixels = garments[0].pixels.slice();
    label = garments[0].name;
    compute();
    goTo(last);
    figure.classList.add("explored");
    place.dataset.ready = "true";
    if (!calm.matches) {
      new IntersectionObserver(([entry], observer) => {
        if (!entry.isIntersecting) return;
        observer.disconnect();
        play();
      }).observe(find("stages"));
    }
  };
}
