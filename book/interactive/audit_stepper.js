// The audit ran when the page was built; here its rows are shown.
const all = rows[norm.value];
step.end = all.length;
if (step.value > all.length) step.value = all.length;
const at = step.value - 1;
const row = all[at];
const wrong = all.findIndex(each => each.violation);

operations.data = {
  number: all.map((_, k) => k + 1),
  height: all.map((_, k) => (k === at ? 1 : 0.7)),
  color: all.map(each => colors[each.kind]),
  line: all.map((_, k) => (k === at ? "#000000" : "#FFFFFF")),
};
range.end = all.length + 0.6;

const safe = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;");
const cell = (text, tag = "td") =>
  `<${tag} style="padding: 3px 4px; text-align: left; overflow-wrap: anywhere">${safe(text)}</${tag}>`;
const from = Math.max(0, Math.min(at - 2, all.length - 5));
const lines = all.slice(from, from + 5).map((each, k) => {
  const chosen = from + k === at;
  const edge = chosen ? "outline: 2px solid #000000" : "";
  const fill = each.violation ? "background: #C22229; color: #FFFFFF" : `background: ${colors[each.kind]}`;
  const cells = [`${from + k + 1}`, `${each.part}: ${each.name}`, each.values, each.kind];
  return `<tr style="${fill}; ${edge}"${chosen ? ' aria-current="true"' : ""}>${cells.map(text => cell(text)).join("")}</tr>`;
});
const head = ["", "operation", "reads", "needs"].map(text => cell(text, text ? "th" : "td")).join("");
const columns = [8, 36, 25, 31].map(each => `<col style="width: ${each}%">`).join("");
table.text =
  `<table style="border-collapse: separate; border-spacing: 0 3px; width: 100%; table-layout: fixed; line-height: 1.25">` +
  `<colgroup>${columns}</colgroup><thead><tr>${head}</tr></thead><tbody>${lines.join("")}</tbody></table>`;

const free = wrong < 0;
said.text =
  `<b>Operation ${at + 1} of ${all.length}</b> (${row.part}): ${row.name} of ${safe(row.values)}; ` +
  `${row.count.toLocaleString("en")} scalar operations. ` +
  (row.violation ? `<b>A violation: ${safe(row.violation)}.</b> ` : `Needs: ${row.kind}. ${why[row.kind]} `) +
  `That holds for ${row.holds}. ` +
  (free ? `With ${names[norm.value]}, nothing in this block multiplies. `
    : `With ${names[norm.value]}, the first multiplication is operation ${wrong + 1}. `) +
  `The audit of the network: <b>${verdicts[norm.value].split(":")[0]}</b>.`;
back.disabled = at === 0;
next.disabled = at === all.length - 1;
first.disabled = free;
