// Opens the place of an explorer, before the picture of the figure that stands for it in notebooks and on paper. Of
// class "explored", the figure shows its picture on paper only.
window.placeExplorer ??= name => {
  const place = document.getElementById(`explorer-${name}`);
  const figure = document.getElementById(place.dataset.figure);
  const picture = figure.querySelector("img");
  (picture.closest("a") ?? picture).before(place);
  place.hidden = false;
  return {place, figure};
};

// Shows an explorer that is a Bokeh document.
window.showExplorer ??= async (name, item) => {
  const {place, figure} = placeExplorer(name);
  await Bokeh.embed.embed_item(item);
  if (place.dataset.beside === undefined) figure.classList.add("explored");
  // Draw once what the controls say, so that page and script agree from the start.
  const shown = Bokeh.documents.find(each => each.get_model_by_name(name));
  await shown.get_model_by_name(name).execute(null);

  // Bokeh writes a slider's title above it, but does not tell a screen reader.
  const nameSliders = root => {
    for (const each of root.querySelectorAll("*")) {
      if (each.shadowRoot) nameSliders(each.shadowRoot);
    }
    const title = root.querySelector(".bk-slider-title");
    for (const handle of root.querySelectorAll(".noUi-handle")) {
      handle.setAttribute("aria-label", title?.textContent.split(":")[0].trim() || name);
    }
  };
  nameSliders(place);
  place.dataset.ready = "true";
};
