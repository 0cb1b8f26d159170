// Bets on the paper's claims. The browser keeps them from the page where they are placed to the one where they are
// settled; a window that keeps nothing forgets them. A block keeps all names but `showBets` to this script.
{
  const KEY = "snnmlp-edu bets";

  const stored = known => {
    try {
      const found = JSON.parse(localStorage.getItem(KEY));
      return Array.isArray(found) ? found.filter(each => known.has(each)) : [];
    } catch {
      return [];
    }
  };
  const store = chosen => {
    try {
      localStorage.setItem(KEY, JSON.stringify(chosen));
    } catch {
      // The bets are on the page all the same, until it is closed.
    }
  };

  const element = (tag, properties, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const named = each => [element("b", {}, `${each.number}`), ` ${each.claim}`];

  const place = (root, {claims, bets}, chosen) => {
    const said = element("p", {role: "status", className: "bets-said"});
    const boxes = claims.map(each => element("input", {type: "checkbox", value: each.claim}));
    const changed = () => {
      const placed = claims.filter((_, k) => boxes[k].checked);
      for (const box of boxes) box.disabled = placed.length >= bets && !box.checked;
      const numbers = placed.map(each => each.number).join(", ");
      const left = bets - placed.length;
      said.textContent = !placed.length
        ? `No bet is placed. Choose ${bets} claims.`
        : left
          ? `Your bets: ${numbers}. ${left} more to place.`
          : `Your bets: ${numbers}. Chapter 15 settles them. To change one, take it back first.`;
      store(placed.map(each => each.claim));
    };
    for (const group of new Set(claims.map(each => each.group))) {
      const field = element("fieldset", {}, element("legend", {}, group));
      claims.forEach((each, k) => {
        if (each.group === group) field.append(element("label", {}, boxes[k], element("span", {}, ...named(each))));
      });
      root.append(field);
    }
    boxes.forEach((box, k) => {
      box.checked = chosen.includes(claims[k].claim);
      box.addEventListener("change", changed);
    });
    root.append(said);
    changed();
  };

  const outcome = ({verdict}) =>
    verdict.startsWith("reproduced") ? "won" : verdict === "not reproduced" ? "lost" : "stake back";

  const settle = (root, {claims}, chosen) => {
    const placed = claims.filter(each => chosen.includes(each.claim));
    const count = words => placed.filter(each => outcome(each) === words).length;
    const said = element("p", {role: "status", className: "bets-said"});
    said.textContent = placed.length
      ? `You placed ${placed.length} bets: ${count("won")} won, ${count("lost")} lost, ${count("stake back")} with the stake back.`
      : "You placed no bets in the preface, or this browser has not kept them.";
    root.append(said);
    if (!placed.length) return;
    const rows = placed.map(each =>
      element("li", {}, element("span", {}, ...named(each)), element("em", {}, `${each.verdict}: ${outcome(each)}`)));
    root.append(element("ul", {}, ...rows));
  };

  window.showBets = facts => {
    const {place: root} = placeExplorer("bets");
    const chosen = stored(new Set(facts.claims.map(each => each.claim)));
    (root.dataset.figure === facts.settledAt ? settle : place)(root, facts, chosen);
    root.dataset.ready = "true";
  };
}
