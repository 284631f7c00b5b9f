"use strict";
// The state of the page is the object `state`; the address after # holds it. Texts are set as text, never as HTML.

const MAX_FACTOR = 4, ROWS_A_PAGE = 25;
const MAGMA = [[0, 0, 4], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]];
const $ = id => document.getElementById(id);
const state = { pair: null, upload: null, texts: [], mapped: 0, scope: "all", factors: new Map(), maps: true,
                place: null, latent: null };
let study, table, answer = null, images = [], imagesOf = "", sort = { by: "effect gap", down: true }, nShown = ROWS_A_PAGE, hashTimer;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// ---- questions to the server

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", body: body instanceof Blob ? body : JSON.stringify(body) };
  let response;
  try { response = await fetch(path, options); } catch { throw new Error("the explorer has been stopped; start it again"); }
  const said = await response.json();
  if (!response.ok) throw new Error(said.error);
  return said;
}

function tell(error) {
  $("error").textContent = error ? error.message : "";
  $("error").hidden = !error;
}

async function trying(work) {
  try { await work(); tell(null); } catch (error) { tell(error); }
}

const shown = () => state.upload === null ? { pair: state.pair } : { upload: state.upload };
const imagePath = (of, i) => "upload" in of ? `picture/upload/${of.upload}/${i}` : `picture/pair/${of.pair}/${i}`;
const isShown = of => imagePath(of, 0) === imagePath(shown(), 0);

let running = null, waiting = false;
function refresh() {  // one request at a time; requests that come meanwhile are skipped, except the last
  waiting = true;
  running ??= refreshing();
  return running;  // ends when the last request is drawn
}

async function refreshing() {
  while (waiting) {
    waiting = false;
    await trying(askAndDraw);
  }
  running = null;
  keepInAddress();
}

async function askAndDraw() {
  const started = performance.now(), of = shown();
  const said = await ask("view", { ...of, texts: state.texts, mapped: state.mapped, scope: state.scope, factors: [...state.factors] });
  if (imagesOf !== imagePath(of, 0) || !isShown(of)) return;  // other pictures are loading
  answer = said;
  drawAnswer();
  $("latency").textContent = `Computed in ${(performance.now() - started).toFixed(0)} ms.`;
  document.body.dataset.drawn = Number(document.body.dataset.drawn || 0) + 1;
}

// ---- the state in the address

function keepInAddress() {
  clearTimeout(hashTimer);
  hashTimer = setTimeout(() => history.replaceState(null, "", address()), 250);
}

function address() {
  const kept = new URLSearchParams();
  if (state.upload === null) kept.set("pair", state.pair);
  kept.set("edit", [...state.factors].map(([latent, factor]) => `${latent}:${factor}`).join(","));
  kept.set("scope", state.scope);
  state.texts.forEach(text => kept.append("text", text));
  kept.set("map", state.mapped);
  if (!state.maps) kept.set("maps", "0");
  if (state.place) kept.set("place", `${state.place.image}.${state.place.token}`);
  if (state.latent !== null) kept.set("latent", state.latent);
  return "#" + String(kept).replaceAll("%3A", ":").replaceAll("%2C", ",");
}

function whole(text, below) {
  const number = Number(text);
  return text !== null && text !== "" && Number.isInteger(number) && number >= 0 && number < below ? number : null;
}

function readAddress() {  // whatever is wrong or missing is as in the study
  const kept = new URLSearchParams(location.hash.slice(1));
  const pair = whole(kept.get("pair"), 2 ** 31);
  const first = study.pairs.find(row => row.split === "confirmation") || study.pairs[0];
  state.upload = null;
  state.pair = study.pairs.some(row => row.pair === pair) ? pair : first.pair;
  state.texts = allowed(kept.getAll("text"));
  const scopes = [...$("scope").options].map(option => option.value);
  state.scope = scopes.includes(kept.get("scope")) ? kept.get("scope") : study.scope;
  state.factors = kept.has("edit") ? readFactors(kept.get("edit")) : new Map(study.factors);
  state.maps = kept.get("maps") !== "0";
  const [image, token] = (kept.get("place") || "").split(".").map(text => whole(text, 2 ** 31));
  state.place = image === null || token === undefined || token === null ? null : { image, token };
  state.latent = whole(kept.get("latent"), study.d_sae);
  const texts = state.texts.length || study.emotions.length;
  state.mapped = whole(kept.get("map"), texts) ?? emotionOfPair();
}

const allowed = texts => texts.map(text => text.trim().slice(0, 200)).filter(Boolean).slice(0, 8);

function readFactors(text) {
  const found = new Map();
  for (const part of text.split(",").slice(0, 256)) {
    const [latent, factor] = [whole(part.split(":")[0], study.d_sae), Number(part.split(":")[1])];
    if (latent !== null && factor >= 0 && factor <= MAX_FACTOR) found.set(latent, factor);
  }
  return found;
}

function emotionOfPair() {
  const row = study.pairs.find(row => row.pair === state.pair);
  return state.texts.length ? 0 : study.emotions.indexOf(row.emotion);
}

// ---- pictures and texts

function fillChoices() {
  const row = study.pairs.find(row => row.pair === state.pair);
  const women = [...new Set(study.pairs.map(row => row.woman))];
  const splits = new Map(study.pairs.map(row => [row.woman, row.split]));
  $("woman").replaceChildren(...women.map(woman =>
    element("option", { value: woman, selected: woman === row.woman }, `${woman} (${splits.get(woman)})`)));
  const hers = study.pairs.filter(other => other.woman === row.woman);
  $("expression").replaceChildren(...hers.map(other =>
    element("option", { value: other.pair, selected: other.pair === state.pair }, other.expression)));
  $("texts").value = state.texts.join("\n");
  $("texts-box").open = state.texts.length > 0;
  $("scope").value = state.scope;
  $("maps").checked = state.maps;
  const texts = state.texts.length ? state.texts : study.emotions;
  $("mapped").replaceChildren(...texts.map((text, i) => element("option", { value: i, selected: i === state.mapped }, text)));
}

async function choosePictures(pair, upload = null) {
  Object.assign(state, { pair, upload, place: null });
  state.mapped = state.texts.length ? state.mapped : emotionOfPair();
  $("place").replaceChildren();
  fillChoices();
  await showPictures();
}

async function showPictures() {
  const of = shown(), n = state.upload === null ? 2 : 1;
  answer = null;
  await trying(async () => {
    const found = await Promise.all([...Array(n).keys()].map(i => loaded(imagePath(of, i))));
    if (isShown(of)) buildPictures(of, found);  // else other pictures have been chosen meanwhile
  });
  if (imagesOf === imagePath(of, 0)) await refresh();
}

function loaded(path) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("the picture could not be loaded"));
    image.src = path;
  });
}

function buildPictures(of, found) {
  [images, imagesOf] = [found, imagePath(of, 0)];
  const names = state.upload === null ? ["semi-nude", "clothed"] : ["your picture"];
  $("pictures").replaceChildren(...names.map((name, i) => element("div", { class: "twin" },
    element("h3", {}, name), ...["original", "edited"].map(arm => element("figure", { class: arm },
      element("div", { class: "map", tabindex: 0, role: "group", id: `map-${i}-${arm}`,
                       "aria-label": `${name}, ${arm}: arrow keys choose a patch, Enter lists its latents`,
                       onclick: event => clickPatch(event, i), onkeydown: event => movePatch(event, i) },
        element("canvas", { width: 272, height: 272, role: "img", "aria-label": `${name}, ${arm}, with its map` })),
      element("figcaption", {}, arm),
      element("ul", { class: "bars", id: `bars-${i}-${arm}` }))))));
}

// ---- results

function drawAnswer() {
  drawMaps();
  answer.pictures.forEach((one, i) => ["original", "edited"].forEach(arm => {
    const box = $(`map-${i}-${arm}`);
    const kept = arm === "edited" ? `, cosine with the original ${one.cosine_to_original.toFixed(3)}` : "";
    box.nextSibling.textContent = `${arm}: cosine with the text ${one[arm].cosine.toFixed(3)}${kept}`;
    drawBars($(`bars-${i}-${arm}`), one[arm].probabilities, one.truth);
  }));
  $("params").textContent = answer.params;
  $("python").textContent = answer.python;
}

function drawMaps() {  // with the patch that is chosen; all else stays as it is
  if (!answer) return;
  const highest = Math.max(1e-12, ...answer.pictures.flatMap(one => [one.original.map, one.edited.map].flat(2)));
  answer.pictures.forEach((one, i) => ["original", "edited"].forEach(arm =>
    drawMap($(`map-${i}-${arm}`).firstChild, images[i], one[arm].map, highest, state.place && state.place.image === i ? state.place.token : null)));
}

function drawBars(list, probabilities, truth) {
  const best = probabilities.indexOf(Math.max(...probabilities));
  list.replaceChildren(...probabilities.map((p, i) => {
    const fill = element("span", { class: "fill" });
    fill.style.width = `${100 * p}%`;
    return element("li", { class: i === best ? "best" : "" },
      element("span", {}, answer.texts[i] + (i === truth ? " (true)" : "")),
      element("span", { "data-p": p }, `${(100 * p).toFixed(1)} %`),
      element("span", { class: "track" }, fill));
  }));
}

function magma(share) {
  const at = Math.min(share, 1) * (MAGMA.length - 1), i = Math.min(Math.floor(at), MAGMA.length - 2);
  return MAGMA[i].map((low, c) => Math.round(low + (at - i) * (MAGMA[i + 1][c] - low)));
}

function drawMap(canvas, image, map, highest, token) {
  const context = canvas.getContext("2d"), [rows, columns] = [map.length, map[0].length];
  const [h, w] = [canvas.height / rows, canvas.width / columns];
  context.imageSmoothingEnabled = image.width > 200;
  context.filter = state.maps ? "grayscale(1) brightness(1.15)" : "none";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  context.filter = "none";
  if (state.maps) map.forEach((row, r) => row.forEach((value, c) => {
    const share = Math.max(value, 0) / highest;
    context.fillStyle = `rgba(${magma(share).join()}, ${share ? .25 + .6 * share : .12})`;
    context.fillRect(Math.round(c * w), Math.round(r * h), Math.ceil(w), Math.ceil(h));
  }));
  if (token) outline(context, (token - 1) % columns * w, Math.floor((token - 1) / columns) * h, w, h);
}

function outline(context, x, y, w, h) {
  for (const [colour, width] of [["black", 4], ["white", 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.strokeRect(x + 1, y + 1, w - 2, h - 2);
  }
}

// ---- a patch

function clickPatch(event, image) {
  if (!answer) return;  // the maps are not there yet
  const box = event.currentTarget.firstChild.getBoundingClientRect(), [rows, columns] = study.grid;
  const at = (x, size, n) => Math.max(0, Math.min(n - 1, Math.floor(x / size * n)));
  choosePlace(image, 1 + at(event.clientY - box.top, box.height, rows) * columns + at(event.clientX - box.left, box.width, columns));
}

function movePatch(event, image) {
  const [rows, columns] = study.grid, token = state.place && state.place.image === image && state.place.token || 1;
  const [r, c] = [Math.floor((token - 1) / columns), (token - 1) % columns];
  const to = { ArrowUp: [r - 1, c], ArrowDown: [r + 1, c], ArrowLeft: [r, c - 1], ArrowRight: [r, c + 1],
               Enter: [r, c], " ": [r, c] }[event.key];
  if (!to) return;
  event.preventDefault();
  if (!answer) return;
  const next = 1 + Math.max(0, Math.min(rows - 1, to[0])) * columns + Math.max(0, Math.min(columns - 1, to[1]));
  if (event.key === "Enter" || event.key === " ") choosePlace(image, next);
  else { state.place = { image, token: next }; drawMaps(); $("place").textContent = placeName(); }
}

function placeName() {
  const { image, token } = state.place, columns = study.grid[1], one = answer.pictures[image];
  if (!token) return `Class token of ${one.name}`;
  const [r, c] = [Math.floor((token - 1) / columns), (token - 1) % columns];
  return `${one.name}, patch in row ${r + 1}, column ${c + 1}: map ${one.original.map[r][c].toPrecision(2)} original, `
    + `${one.edited.map[r][c].toPrecision(2)} edited`;
}

async function choosePlace(image, token) {
  const place = { image, token }, of = shown();
  state.place = place;
  drawMaps();
  keepInAddress();
  await trying(async () => {
    const found = await ask("firing", { ...of, ...place });
    if (state.place !== place || !isShown(of) || !answer) return;  // another patch or picture has been chosen meanwhile
    $("place").replaceChildren(
      element("h3", {}, placeName()),
      element("p", { class: "soft small" }, found.length ? "Latents that fire most there, without an edit:" : "No latent fires there."),
      element("table", {}, ...found.map(row => element("tr", {},
        element("td", {}, latentButton(row.latent)), element("td", {}, row.activation.toPrecision(3)),
        element("td", { class: "text" }, (row.lists || "on no list") + (isEdited(row.latent) ? " (edited)" : "")), element("td", {}, addButton(row.latent))))),
      element("button", { type: "button", onclick: () => choosePlace(image, 0) }, "Class token of this picture"));
  });
}

const latentButton = latent => element("button", { type: "button", class: "latent", onclick: () => openCard(latent, true) }, `latent ${latent}`);
const isEdited = latent => study.factors.some(([edited]) => edited === latent);  // by the study
const addButton = latent => element("button", { type: "button", onclick: () => addSlider(latent), "aria-label": `slider for latent ${latent}` }, "slider");

// ---- sliders

function buildSliders() {
  $("sliders").replaceChildren(...[...state.factors].map(([latent, factor]) => element("div", { class: "slider" },
    latentButton(latent),
    element("input", { type: "range", id: `latent-${latent}`, min: 0, max: MAX_FACTOR, step: .05, value: factor, list: "ticks",
                       "aria-label": `factor of latent ${latent}`, oninput: event => setFactor(latent, Number(event.target.value)) }),
    element("output", { for: `latent-${latent}` }, factor.toFixed(2)),
    element("button", { type: "button", "aria-label": `remove the slider of latent ${latent}`, onclick: () => removeSlider(latent) }, "×"))));
  showWhole();
}

function showWhole() {
  const factors = new Set(state.factors.values()), same = factors.size === 1;
  $("whole").disabled = !factors.size;
  if (same) $("whole").value = [...factors][0];
  $("whole-out").textContent = same ? [...factors][0].toFixed(2) : "mixed";
}

function setFactor(latent, factor) {
  state.factors.set(latent, factor);
  document.querySelector(`output[for="latent-${latent}"]`).textContent = factor.toFixed(2);
  showWhole();
  refresh();
}

function setAll(factor) {
  for (const latent of state.factors.keys()) {
    state.factors.set(latent, factor);
    $(`latent-${latent}`).value = factor;
    document.querySelector(`output[for="latent-${latent}"]`).textContent = factor.toFixed(2);
  }
  showWhole();
  refresh();
}

function addSlider(latent) {
  if (!state.factors.has(latent)) { state.factors.set(latent, 1); buildSliders(); keepInAddress(); }
  $(`latent-${latent}`).focus();
}

function removeSlider(latent) {
  state.factors.delete(latent);
  buildSliders();
  refresh();
}

// ---- a card

async function openCard(latent, move) {
  $("card-box").hidden = false;
  $("h-card").textContent = `Latent ${latent}: being computed`;
  $("card").replaceChildren();
  state.latent = latent;
  await trying(async () => {
    const card = await ask(`card/${latent}`);
    if (state.latent !== latent) return;  // another card has been asked for meanwhile
    keepInAddress();
    $("h-card").textContent = `Latent ${latent}${card.lists ? ` (${card.lists})` : ", on no list"}`;
    $("card").replaceChildren(...cardParts(card));
    await drawTops($("tops"), card);
    if (move && state.latent === latent) { $("card-box").scrollIntoView({ block: "nearest" }); $("h-card").focus(); }
  });
}

const number = (value, digits = 3) => value === null ? "not computed" : String(Number(value.toPrecision(digits)));

function cardParts(card) {
  const share = card.encodes === "none" ? "no label" : `${card.encodes} (${(100 * card[card.encodes]).toFixed(0)} % of its variance)`;
  const gaps = card.gaps.map(gap => `${gap.name}: ${number(gap.mean)} [${number(gap.low)}, ${number(gap.high)}], p ${number(gap.p_max_t)}`);
  const lines = [`Encodes ${share}, p ${number(card.encodes_p)}. Fires on ${(100 * card.firing).toFixed(1)} % of tokens. Monosemanticity ${number(card.monosemanticity, 2)}.`,
                 `On the women used for choosing: ${gaps.join("; ")}.`,
                 `Nearest prompts: ${card.prompts}.`, `Nearest decoder directions: ${card.neighbours}.`];
  return [addButton(card.latent), ...lines.map(line => element("p", { class: "small" }, line)), meansTable(card),
          element("h3", {}, "Pictures of held-out women that activate it most"), element("div", { class: "tops", id: "tops" })];
}

function meansTable(card) {
  const keys = [...new Set(card.means.map(row => `${row.label}\t${row.value}`))];
  const cell = (key, condition) => {
    const row = card.means.find(row => `${row.label}\t${row.value}` === key && row.condition === condition);
    return element("td", {}, row ? `${number(row.estimate)} [${number(row.low)}, ${number(row.high)}]` : "");
  };
  const caption = card.pooling === "cls" ? "class token" : "largest patch";
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Mean activation" }, element("table", {},
    element("caption", { class: "small" }, `Mean activation (${caption}), with intervals over held-out women`),
    element("tr", {}, ...["label", "semi-nude", "clothed"].map(name => element("th", { scope: "col" }, name))),
    ...keys.map(key => element("tr", {}, element("th", { scope: "row" }, key.split("\t")[1]), cell(key, "semi_nude"), cell(key, "clothed")))));
}

async function drawTops(place, card) {
  const loadedOnes = await Promise.all(card.top.map(top => loaded(imagePath({ pair: top.pair }, top.image))));
  place.replaceChildren(...card.top.map((top, i) => {
    const canvas = element("canvas", { width: 136, height: 136, role: "img", "aria-label": `${top.name}, bright where the latent is active` });
    spotlight(canvas, loadedOnes[i], top.grid);
    return element("figure", {}, canvas, element("figcaption", {}, `${top.name}; class ${top.cls.toFixed(1)}, largest patch ${Math.max(...top.grid.flat()).toFixed(1)} `,
      element("button", { type: "button", class: "latent", onclick: () => choosePictures(top.pair) }, "show this pair")));
  }));
}

function spotlight(canvas, image, grid) {
  const context = canvas.getContext("2d"), highest = Math.max(...grid.flat()) || 1;
  context.imageSmoothingEnabled = image.width > 100;
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const [h, w] = [canvas.height / grid.length, canvas.width / grid[0].length];
  grid.forEach((row, r) => row.forEach((value, c) => {
    context.fillStyle = `rgba(255, 255, 255, ${.7 * (1 - Math.max(value, 0) / highest)})`;
    context.fillRect(Math.round(c * w), Math.round(r * h), Math.ceil(w), Math.ceil(h));
  }));
}

// ---- the table of latents

function drawTable() {
  const wanted = $("of-list").value, index = $("index").value.trim(), least = Number($("least").value) / 100;
  const fits = i => (wanted === "" || (wanted === "edited" ? table.edited[i] : wanted === "none" ? !table.lists[i] : table.lists[i].split(" ").includes(wanted)))
    && (index === "" || String(table.latent[i]) === index) && table.firing[i] >= least;
  const rows = [...table.latent.keys()].filter(fits), values = table[sort.by];
  const blank = value => value === null || value === "";
  rows.sort((a, b) => blank(values[a]) - blank(values[b]) || (values[a] < values[b] ? -1 : values[a] > values[b] ? 1 : 0) * (sort.down ? -1 : 1) || a - b);
  const columns = Object.keys(table).filter(name => name !== "edited");
  const cell = (name, i) => name === "latent" ? element("td", {}, latentButton(table.latent[i]))
    : name === "lists" ? element("td", { class: "text" }, table.lists[i] + (table.edited[i] ? " (edited)" : ""))
    : element("td", {}, table[name][i] === null ? "" : String(Number(table[name][i].toPrecision(3))));
  $("latents").replaceChildren(element("thead", {}, element("tr", {}, ...columns.map(heading), element("th", { scope: "col" }, "slider"))),
    element("tbody", {}, ...rows.slice(0, nShown).map(i => element("tr", {}, ...columns.map(name => cell(name, i)), element("td", {}, addButton(table.latent[i]))))));
  $("count").textContent = `${rows.length} of ${table.latent.length} latents, ${Math.min(nShown, rows.length)} shown`;
  $("more").hidden = rows.length <= nShown;
}

function heading(name) {
  const sorted = sort.by === name;
  return element("th", { scope: "col", class: name === "lists" ? "text" : "", "aria-sort": sorted ? (sort.down ? "descending" : "ascending") : "none" },
    element("button", { type: "button", "data-column": name, onclick: () => {
      sort = { by: name, down: sorted ? !sort.down : name !== "latent" };
      drawTable();
      document.querySelector(`button[data-column="${name}"]`).focus();
    } }, name + (sorted ? (sort.down ? " ▾" : " ▴") : "")));
}

// ---- start

function listen() {
  $("woman").onchange = () => choosePictures(study.pairs.find(row => row.woman === $("woman").value).pair);
  $("expression").onchange = () => choosePictures(Number($("expression").value));
  const step = by => {
    const at = study.pairs.findIndex(row => row.pair === state.pair) + by;
    choosePictures(study.pairs[(at + study.pairs.length) % study.pairs.length].pair);
  };
  $("previous").onclick = () => step(-1);
  $("next").onclick = () => step(1);
  $("file").onchange = () => trying(async () => {
    if (!$("file").files.length) return;
    const { upload } = await ask("upload", $("file").files[0]);
    if (["bust", "not_bust"].includes(state.scope)) state.scope = "all";
    await choosePictures(state.pair, upload);
  });
  $("texts").onchange = () => {
    state.texts = allowed($("texts").value.split("\n"));
    state.mapped = emotionOfPair();
    fillChoices();
    refresh();
  };
  $("mapped").onchange = () => { state.mapped = Number($("mapped").value); refresh(); };
  $("maps").onchange = () => { state.maps = $("maps").checked; drawMaps(); keepInAddress(); };
  $("scope").onchange = () => { state.scope = $("scope").value; refresh(); };
  $("whole").oninput = () => setAll(Number($("whole").value));
  $("as-study").onclick = () => { state.factors = new Map(study.factors); state.scope = study.scope; fillChoices(); buildSliders(); refresh(); };
  $("as-is").onclick = () => setAll(1);
  $("add").onsubmit = event => { event.preventDefault(); addSlider(Number($("added").value)); };
  $("copy").onclick = () => copy($("params").textContent, "The lines are copied.");
  $("link").onclick = () => copy(location.origin + "/" + address(), state.upload === null ? "The link is copied." : "The link is copied; it cannot hold your picture.");
  const filter = () => { nShown = ROWS_A_PAGE; drawTable(); };
  $("of-list").onchange = filter;
  $("index").oninput = $("least").oninput = filter;
  $("more").onclick = () => { nShown += ROWS_A_PAGE; drawTable(); };
  window.onhashchange = enter;
}

async function copy(text, said) {
  try { await navigator.clipboard.writeText(text); $("copied").textContent = said; }
  catch { $("copied").textContent = "The browser does not allow copying; select the text instead."; }
}

async function enter() {
  readAddress();
  fillChoices();
  buildSliders();
  await showPictures();
  if (state.latent !== null) await openCard(state.latent, false);
  if (state.place && answer && state.place.image < answer.pictures.length) await choosePlace(state.place.image, state.place.token);
}

trying(async () => {
  [study, table] = await Promise.all([ask("study"), ask("latents")]);
  $("about").textContent = `An SAE of ${study.d_sae} latents after block ${study.layer}. The study edits ${study.factors.length} of them (edit.latents: ${study.list}, edit.kind: ${study.kind}).`
    + (study.last ? " This is the last block: only the class token reaches the embedding, so editing patches changes nothing." : "");
  const scaled = ["zero", "scale"].includes(study.kind);
  $("edit-note").textContent = "0 is off, 1 as it is, up to 4 times." + (scaled ? "" : ` The study's edit is of kind ${study.kind}, which no slider can make; the sliders start from 0 instead.`);
  $("added").max = study.d_sae - 1;
  listen();
  drawTable();
  await enter();
});
