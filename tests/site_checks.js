// What tests/test_site.py asks of a page.
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

  // Thousands of coloured words say the same about contrast: one of each kind in each kind of place is
  // enough. Mathematics has the colour of the text around it, and is read aloud by MathJax's own means.
  thin() {
    for (const each of document.querySelectorAll("mjx-container")) each.remove();
    const seen = new Set();
    for (const pre of document.querySelectorAll(".highlight pre")) {
      const place = pre.closest("[class*=cell_], .highlight").className + pre.parentElement.className;
      for (const word of pre.querySelectorAll("span:not(:has(*))")) {
        if (seen.has(place + word.className)) word.remove();
        else seen.add(place + word.className);
      }
    }
  },

  // Does not wait. `preload` would fetch style sheets a second time, from a wrong address.
  startAxe(options) {
    const running = axe.run(document, {preload: false, resultTypes: ["violations"], ...options});
    this.violations = running.then(results => results.violations);
  },
};
