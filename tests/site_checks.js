// What tests/test_site.py asks of a page.
const NO_GROUND = "rgba(0, 0, 0, 0),none,1,none";
window.siteChecks = {
  // Folded answers, hidden cells and drop-downs are to be read as well.
  unfold() {
    for (const each of document.querySelectorAll("details")) each.open = true;
    for (const each of document.querySelectorAll(".toggle-hidden")) each.classList.remove("toggle-hidden");
  },

  // Elements that reach past the right edge, unless something around them scrolls or hides them on purpose.
  sideways() {
    const article = document.querySelector("article.bd-article");
    const width = document.documentElement.scrollWidth;
    const found = width > innerWidth ? [`the page is ${width} pixels wide`] : [];
    const isBox = each => getComputedStyle(each).overflowX !== "visible";
    for (const each of article?.querySelectorAll("*") ?? []) {
      if (each.getBoundingClientRect().right <= innerWidth + 1 || !each.checkVisibility()) continue;
      let around = each.parentElement;
      while (around !== article && !isBox(around)) around = around.parentElement;
      if (around === article) found.push(each.outerHTML.slice(0, 120));
    }
    return found.slice(0, 5);
  },

  async mathematics() {
    const asked = [...document.querySelectorAll("article .math")].filter(each => !each.querySelector(".math"));
    if (window.MathJax?.startup) await MathJax.startup.promise;
    return {
      asked: asked.length,
      set: asked.filter(each => each.querySelector("mjx-container")).length,
      broken: [...document.querySelectorAll("mjx-merror")].map(each => each.textContent),
    };
  },

  // Mathematics has the colour of the text around it, and is read aloud by MathJax's own means. Of thousands
  // of coloured words, one of each kind is enough.
  thin() {
    const kept = new Set(this.oneOfEachKind());
    for (const each of document.querySelectorAll("mjx-container")) each.remove();
    for (const word of document.querySelectorAll(":is(.highlight pre, dt.sig) span:not(:has(*))")) {
      if (!kept.has(word)) word.remove();
    }
  },

  // The page has answered a change of the reader's taste by the time of its next frame but one.
  nextFrame() {
    return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  },

  // Every rule but contrast. `preload` would fetch style sheets a second time, from a wrong address.
  rules() {
    return this.violations(document, {rules: {"color-contrast": {enabled: false}}});
  },

  // Contrast follows from what `oneOfEachKind` compares, so one text stands for thousands like it.
  contrast() {
    return this.violations({include: this.oneOfEachKind()}, {runOnly: ["color-contrast"]});
  },

  async violations(context, options) {
    const quick = {preload: false, resultTypes: ["violations"]};
    return (await axe.run(context, {...quick, ...options})).violations;
  },

  // The first of all elements with text that have the same class, letters, colour and grounds behind them.
  oneOfEachKind() {
    const kinds = new Map();
    const visit = (root, behind) => {
      for (const each of root.children) {
        const style = getComputedStyle(each);
        const ground = [style.backgroundColor, style.backgroundImage, style.opacity, style.filter].join();
        const behindText = ground === NO_GROUND ? behind : `${behind};${ground}`;
        const letters = [style.color, style.fontSize, style.fontWeight, style.textShadow].join();
        const kind = [each.tagName, each.className, each.matches(":disabled"), letters, behindText].join();
        const hasText = [...each.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
        if (hasText && !kinds.has(kind) && each.checkVisibility()) kinds.set(kind, each);
        if (each.shadowRoot) visit(each.shadowRoot, behindText);
        visit(each, behindText);
      }
    };
    visit(document.documentElement, "");
    return [...kinds.values()];
  },
};
