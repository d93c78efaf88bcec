"use strict";

// Two pictures of one place, one above the other; the slider says how much of the upper one is seen.
function startCompare(figure) {
  const stack = figure.querySelector(".stack");
  const views = [...stack.querySelectorAll(".view")];
  const [left, right] = ["left", "right"].map((side) => figure.querySelector(`select.${side}`));
  const slider = figure.querySelector("input[type=range]");

  function draw() {
    const [below, above] = [views[left.selectedIndex], views[right.selectedIndex]];
    for (const view of views) {
      view.classList.toggle("shown", view === below || view === above);
      view.style.clipPath = "";
      view.style.zIndex = "";
    }
    above.style.zIndex = 1;
    if (above !== below) above.style.clipPath = `inset(0 0 0 ${slider.value}%)`;
    stack.querySelector(".divider").style.left = `${slider.value}%`;
    stack.querySelector(".tag.left").textContent = left.value;
    stack.querySelector(".tag.right").textContent = right.value;
    slider.setAttribute("aria-valuetext", `${slider.value} % ${left.value}, the rest ${right.value}`);
  }
  for (const control of [left, right, slider]) control.addEventListener("input", draw);
  draw();
}

function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function wordsOf(text) {
  const bytes = bytesOf(text);
  return Array.from({ length: bytes.length / 2 }, (_, k) => bytes[2 * k] + 256 * bytes[2 * k + 1]);
}

// The spikes of one sensor pixel over the ticks; the pixel is chosen on the picture or by its numbers.
function startSpikes(section) {
  const patch = JSON.parse(section.querySelector("script").textContent);
  const [firstRow, firstColumn, numRows, numColumns] = patch.cells;
  const [rows, columns, bits] = [wordsOf(patch.rows), wordsOf(patch.columns), bytesOf(patch.bits)];
  const [rowInput, columnInput] = [section.querySelector("input.row"), section.querySelector("input.column")];
  const raster = section.querySelector(".raster");
  const [width, top, height] = raster.dataset.area.split(" ").map(Number);
  const stack = document.getElementById(section.dataset.picture).querySelector(".stack");
  const over = stack.querySelector(".over");
  const told = section.querySelector("output");

  function draw(cell) {
    let path = "";
    let [inAll, inExposure] = [0, 0];
    for (let tick = 0; tick < patch.ticks; tick++) {
      const bit = cell * patch.ticks + tick;
      if (!((bits[bit >> 3] >> (bit & 7)) & 1)) continue;
      inAll++;
      const at = patch.start + tick;
      if (at >= patch.exposure[0] && at < patch.exposure[1]) inExposure++;
      path += `M${(((tick + 0.5) / patch.ticks) * width).toFixed(1)} ${top}v${height}`;
    }
    raster.querySelector(".ticks").setAttribute("d", path);
    const exposure = patch.exposure[1] - patch.exposure[0];
    told.textContent = `Sensor row ${rows[cell]}, column ${columns[cell]}: ${inExposure} spikes in the ` +
      `${exposure} ticks of the exposure (${(inExposure / exposure).toFixed(3)} a tick), ` +
      `${inAll} in the ${patch.ticks} ticks shown.`;
    rowInput.value = rows[cell];
    columnInput.value = columns[cell];
    const x = (firstColumn + (cell % numColumns) + 0.5) * patch.ratio;
    const y = (firstRow + Math.floor(cell / numColumns) + 0.5) * patch.ratio;
    over.querySelector(".cross").setAttribute("d", `M${x - 4} ${y}h8M${x} ${y - 4}v8`);
  }
  function refuse(text) {
    raster.querySelector(".ticks").setAttribute("d", "");
    told.textContent = text;
  }
  function byNumbers() {
    const found = rows.findIndex((row, k) => row === +rowInput.value && columns[k] === +columnInput.value);
    if (found >= 0) draw(found);
    else refuse(`Row ${rowInput.value}, column ${columnInput.value} is not among the pixels that this page holds.`);
  }
  function byPlace(event) {
    const box = stack.getBoundingClientRect();
    const [wide, high] = over.dataset.size.split(" ").map(Number);
    const column = Math.floor(((event.clientX - box.left) / box.width) * wide / patch.ratio) - firstColumn;
    const row = Math.floor(((event.clientY - box.top) / box.height) * high / patch.ratio) - firstRow;
    if (row < 0 || column < 0 || row >= numRows || column >= numColumns) {
      refuse("This page holds the spikes inside the dashed box only.");
    } else if (rows[row * numColumns + column] === patch.outside) {
      refuse("The spike sensor does not see this place.");
    } else {
      draw(row * numColumns + column);
    }
  }
  stack.addEventListener("click", byPlace);
  rowInput.addEventListener("change", byNumbers);
  columnInput.addEventListener("change", byNumbers);
  const middle = Math.floor(numRows / 2) * numColumns + Math.floor(numColumns / 2);
  const first = rows[middle] === patch.outside ? rows.findIndex((row) => row !== patch.outside) : middle;
  if (first >= 0) draw(first);
  else refuse("The spike sensor does not see this place.");
}

// A point's value beside it: on hover, on tap, on focus.
function startTips() {
  const tip = document.getElementById("tip");
  function show(event) {
    const point = event.target.closest("[data-tip]");
    tip.hidden = !point;
    if (!point) return;
    tip.textContent = point.dataset.tip;
    const [box, own] = [point.getBoundingClientRect(), tip.getBoundingClientRect()];
    const x = (box.left + box.right) / 2 - own.width / 2;
    tip.style.left = `${Math.max(4, Math.min(x, document.documentElement.clientWidth - own.width - 4))}px`;
    tip.style.top = `${box.top > own.height + 8 ? box.top - own.height - 4 : box.bottom + 4}px`;
  }
  for (const kind of ["pointerover", "focusin", "click"]) document.addEventListener(kind, show);
  for (const kind of ["focusout", "scroll"]) document.addEventListener(kind, () => { tip.hidden = true; });
}

document.documentElement.classList.add("js");
document.querySelectorAll(".compare").forEach(startCompare);
document.querySelectorAll(".spikes").forEach(startSpikes);
startTips();
document.documentElement.dataset.ready = "yes";
