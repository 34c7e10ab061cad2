"use strict";
/* What the charts share: the data, the colours, and the window of time that all of them show. */

const data = JSON.parse(document.getElementById("data").textContent);

const LABELS = () => (document.body.clientWidth < 560 ? 66 : 104); /* pixels left of a chart */
const END = Math.max(data.end, 0.001);
const LEAST_SPAN = 0.002; /* seconds: to zoom in further shows nothing */

const view = { from: data.focus[0], to: Math.max(data.focus[1], data.focus[0] + 0.05), cursor: null };
const drawers = []; /* functions that draw a chart anew */
let due = false;

function redraw() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    for (const draw of drawers) draw();
    document.getElementById("span").textContent =
      `${view.from.toFixed(3)} to ${view.to.toFixed(3)} of ${END.toFixed(1)} s`;
  });
}

function show(from, to) {
  const span = Math.min(Math.max(to - from, LEAST_SPAN), END);
  view.from = Math.min(Math.max(from, 0), END - span);
  view.to = view.from + span;
  redraw();
}

function zoom(factor, at = (view.from + view.to) / 2) {
  const from = at - (at - view.from) * factor;
  show(from, from + (view.to - view.from) * factor);
}

function pan(share) {
  const by = (view.to - view.from) * share;
  show(view.from + by, view.to + by);
}

function setCursor(at) {
  view.cursor = at;
  if (at !== null && (at < view.from || at > view.to)) {
    const half = (view.to - view.from) / 2;
    show(at - half, at + half);
  }
  redraw();
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

const SERIES = ["s1", "s2", "s3", "s4", "s5", "s6"];
const DASHES = [[], [6, 3], [2, 2]];

/* The n-th of several lines: colours first, then dashes, so that colour alone tells nothing apart for long. */
function stroke(pen, n) {
  pen.strokeStyle = pen.fillStyle = colour(SERIES[n % SERIES.length]);
  pen.setLineDash(DASHES[Math.floor(n / SERIES.length) % DASHES.length]);
}

/* A canvas as wide as its place, sharp on any screen: its pen, width and height in CSS pixels. */
function prepare(canvas, height) {
  const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "12px system-ui, 'DejaVu Sans', sans-serif";
  pen.textBaseline = "middle";
  const left = LABELS();
  return { pen, width, height, left, x: (s) => left + ((s - view.from) / (view.to - view.from)) * (width - left) };
}

function secondsAt(canvas, clientX) {
  const box = canvas.getBoundingClientRect(), left = LABELS();
  return view.from + ((clientX - box.left - left) / (box.width - left)) * (view.to - view.from);
}

/* Round times, about 90 pixels apart: vertical lines, labelled at the top if `top` says where. */
function axis(box, top) {
  const { pen, width, height, left, x } = box;
  const rough = ((view.to - view.from) * 90) / Math.max(width - left, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  pen.lineWidth = 1;
  pen.setLineDash([]);
  for (let n = Math.ceil(view.from / step); n * step <= view.to; n++) {
    const at = Math.round(x(n * step)) + 0.5;
    pen.strokeStyle = colour("line");
    pen.beginPath();
    pen.moveTo(at, top === undefined ? 0 : top + 9);
    pen.lineTo(at, height);
    pen.stroke();
    if (top === undefined) continue;
    const text = `${(n * step).toFixed(digits)} s`, half = pen.measureText(text).width / 2;
    pen.fillStyle = colour("soft");
    pen.textAlign = "center";
    if (at - half > left && at + half < width) pen.fillText(text, at, top);
  }
}

/* Faults, over the whole height; at least three pixels wide, or a kill could not be seen. */
function bands(box, top = 0) {
  const { pen, width, height, left, x } = box;
  for (const [from, to] of data.bands) {
    const a = Math.max(x(from), left), b = Math.min(Math.max(x(to), x(from) + 3), width);
    if (b < left || a > width) continue;
    pen.fillStyle = colour("band");
    pen.fillRect(a, top, b - a, height - top);
    pen.fillStyle = colour("band-edge");
    if (x(from) >= left) pen.fillRect(a, top, 1, height - top);
  }
}

function cursor(box, top = 0) {
  if (view.cursor === null || view.cursor < view.from || view.cursor > view.to) return;
  box.pen.fillStyle = colour("ink");
  box.pen.fillRect(Math.round(box.x(view.cursor)), top, 1, box.height - top);
}

const sizes = new ResizeObserver(redraw);

/* What pans and zooms any chart with a mouse or a finger. `moved` is told where the pointer is. */
function movable(canvas, moved) {
  let grabbed = null;
  sizes.observe(canvas);
  canvas.addEventListener("pointerdown", (event) => {
    grabbed = { x: event.clientX, from: view.from, to: view.to };
    canvas.setPointerCapture(event.pointerId);
    canvas.classList.add("dragging");
  });
  canvas.addEventListener("pointermove", (event) => {
    if (grabbed === null) return moved(event);
    const by = ((grabbed.x - event.clientX) / (canvas.clientWidth - LABELS())) * (grabbed.to - grabbed.from);
    show(grabbed.from + by, grabbed.to + by);
  });
  const release = () => {
    grabbed = null;
    canvas.classList.remove("dragging");
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; /* the page scrolls */
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, secondsAt(canvas, event.clientX));
  }, { passive: false });
  canvas.addEventListener("dblclick", (event) => zoom(0.5, secondsAt(canvas, event.clientX)));
}
