// What is under the pointer: the legend of a place holds, as a picture, the class and probability of every pixel.
() => {
  const known = new WeakMap(); // legend element -> {width, height, pixels}
  let tip;

  function read(legend, loaded) {
    if (known.has(legend)) return known.get(legend);
    const found = {};
    known.set(legend, found);
    const picture = new Image();
    picture.onload = () => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
      const context = canvas.getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
      context.drawImage(picture, 0, 0);
      Object.assign(found, { width: canvas.width, height: canvas.height });
      found.pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
      loaded();
    };
    picture.src = legend.dataset.pixels;
    return found;
  }

  function hide() {
    if (tip) tip.hidden = true;
    document.querySelectorAll(".legend li.here").forEach((row) => row.classList.remove("here"));
  }

  // The part of an <img> that its picture covers, under object-fit: contain
  function covered(image) {
    const box = image.getBoundingClientRect();
    if (getComputedStyle(image).objectFit !== "contain") return box;
    const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
    const [width, height] = [image.naturalWidth * scale, image.naturalHeight * scale];
    return { left: box.left + (box.width - width) / 2, top: box.top + (box.height - height) / 2, width, height };
  }

  function show(event) {
    const slider = event.target.closest && event.target.closest(".segmented");
    const legend = slider && document.querySelector(`#legend_${slider.id.split("_")[1]} .legend`);
    const image = slider && slider.querySelector("img");
    if (!legend || !image || !image.naturalWidth) return hide();
    const map = read(legend, () => show(event));
    if (!map.pixels) return hide();
    const box = covered(image);
    const x = Math.floor(((event.clientX - box.left) / box.width) * map.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * map.height);
    if (x < 0 || y < 0 || x >= map.width || y >= map.height) return hide();
    const [low, high, probability] = map.pixels.subarray(4 * (y * map.width + x), 4 * (y * map.width + x) + 3);
    const number = low + 256 * high;
    if (!tip) {
      tip = document.createElement("div");
      tip.id = "tip";
      tip.append(document.createElement("i"), document.createElement("span"));
      document.body.append(tip);
    }
    const name = JSON.parse(legend.dataset.names)[number];
    tip.firstChild.style.background = JSON.parse(legend.dataset.colours)[number];
    tip.lastChild.textContent = `${name} ${((100 * probability) / 255).toFixed(0)} %`;
    tip.hidden = false;
    const right = event.clientX > window.innerWidth - 180;
    tip.style.left = `${event.clientX + (right ? -16 : 16)}px`;
    tip.style.top = `${event.clientY + 16}px`;
    tip.style.transform = right ? "translateX(-100%)" : "";
    legend.querySelectorAll("li").forEach((row) => row.classList.toggle("here", row.dataset.class === String(number)));
  }

  document.addEventListener("pointermove", show, { passive: true });
  document.addEventListener("pointerdown", show, { passive: true });
}
