/* The timeline: a row for each request, frontend, worker and service; bars for what lasts, marks for events. */

const ROW = 24, AXIS = 20;
const EVENT = { LANE: 0, FROM: 1, TO: 2, KIND: 3, WORDS: 4 };
/* How each kind of event is drawn: form, colour, and what the legend says. The first is drawn first. */
const KINDS = {
  poll: ["dot", "soft", "asked of a process"],
  log: ["low", "s6", "line of a log"],
  text: ["tick", "s1", "text came"],
  step: ["tick", "s6", "step of the plan"],
  sent: ["ring", "s1", "sent, head of the answer"],
  end: ["square", "s3", "answer ended"],
  start: ["plus", "s3", "process started"],
  void: ["hollow", "s2", "step not done, tester stalled"],
  cancel: ["wedge", "s4", "client left"],
  fault: ["diamond", "bad", "fault"],
  trouble: ["cross", "bad", "error"],
};
const ORDER = Object.keys(KINDS);

const plot = document.querySelector("#timeline canvas");
const tip = document.querySelector("#timeline .tip");
const rows = data.lanes.map(() => []); /* of each row, its events in the order of time */
data.events.forEach((event) => rows[event[EVENT.LANE]].push(event));
let chosen = null; /* the event that the tip tells of */
let row = Math.max(0, data.lanes.findIndex((lane) => lane.label === data.subject));

function mark(pen, form, x, y) {
  pen.beginPath();
  switch (form) {
    case "dot": pen.arc(x, y + 6, 1.2, 0, 7); return pen.fill();
    case "low": pen.rect(x - 0.5, y + 2, 1.5, 7); return pen.fill();
    case "tick": pen.rect(x - 0.5, y - 7, 1.2, 12); return pen.fill();
    case "ring": pen.arc(x, y, 3.5, 0, 7); pen.lineWidth = 1.8; return pen.stroke();
    case "square": pen.rect(x - 3.5, y - 3.5, 7, 7); return pen.fill();
    case "plus": pen.rect(x - 5, y - 1, 10, 2.5); pen.rect(x - 1, y - 5, 2.5, 10); return pen.fill();
    case "hollow":
      pen.lineWidth = 1.8;
      pen.moveTo(x - 4, y + 4); pen.lineTo(x + 4, y + 4); pen.lineTo(x, y - 4); pen.closePath();
      return pen.stroke();
    case "wedge": pen.moveTo(x - 5, y - 5); pen.lineTo(x + 5, y - 5); pen.lineTo(x, y + 5); return pen.fill();
    case "diamond":
      pen.moveTo(x, y - 7); pen.lineTo(x + 6, y); pen.lineTo(x, y + 7); pen.lineTo(x - 6, y);
      return pen.fill();
    case "cross":
      pen.lineWidth = 2.5;
      pen.moveTo(x - 5, y - 5); pen.lineTo(x + 5, y + 5); pen.moveTo(x + 5, y - 5); pen.lineTo(x - 5, y + 5);
      return pen.stroke();
  }
}

function drawMark(pen, kind, x, y) {
  const [form, name] = KINDS[kind];
  pen.fillStyle = pen.strokeStyle = colour(name);
  mark(pen, form, x, y);
}

/* The first of a row's events that ends at this time or later. */
function firstFrom(list, at) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle][EVENT.TO] < at) low = middle + 1;
    else high = middle;
  }
  return low;
}

function drawRow(box, lane, number) {
  const { pen, width, left, x } = box, y = AXIS + number * ROW + ROW / 2;
  for (const [from, to, kind] of lane.bars) {
    const a = Math.max(x(from), left), b = Math.min(x(to), width);
    if (b < left || a > width) continue;
    const [top, high] = kind === "work" ? [4, 5] : kind === "life" ? [-8, 17] : [-7, 14];
    pen.fillStyle = colour(kind);
    pen.fillRect(a, y + top, Math.max(b - a, 1), high);
  }
  const drawn = new Map(); /* of each kind, the last pixel that has a mark: more would not be seen */
  const marks = [], list = rows[number];
  for (let i = firstFrom(list, view.from); i < list.length && list[i][EVENT.TO] <= view.to; i++) {
    const kind = list[i][EVENT.KIND], at = Math.round(x(list[i][EVENT.TO]));
    if (drawn.get(kind) === at) continue;
    drawn.set(kind, at);
    marks.push([kind, at]);
  }
  marks.sort((a, b) => ORDER.indexOf(a[0]) - ORDER.indexOf(b[0]));
  for (const [kind, at] of marks) drawMark(pen, kind, at, y);
}

function drawLabel(box, lane, number) {
  const { pen, left } = box, y = AXIS + number * ROW + ROW / 2;
  pen.fillStyle = colour("ground");
  pen.fillRect(0, y - ROW / 2, left - 2, ROW);
  pen.fillStyle = colour(lane.label === data.subject ? "bad" : "ink");
  pen.textAlign = "left";
  let text = lane.label;
  while (pen.measureText(text).width > left - 8) text = text.slice(0, -1);
  pen.fillText(text, 4, y);
  if (number === row && document.activeElement === plot) {
    pen.strokeStyle = colour("focus");
    pen.lineWidth = 1.5;
    pen.setLineDash([]);
    pen.strokeRect(1, y - ROW / 2 + 2, left - 5, ROW - 4);
  }
}

function drawTimeline() {
  const box = prepare(plot, AXIS + data.lanes.length * ROW + 4);
  axis(box, AXIS / 2);
  data.lanes.forEach((lane, number) => {
    box.pen.fillStyle = colour("line");
    box.pen.fillRect(0, AXIS + number * ROW, box.width, 1);
  });
  bands(box, AXIS);
  data.lanes.forEach((lane, number) => drawRow(box, lane, number));
  data.lanes.forEach((lane, number) => drawLabel(box, lane, number));
  cursor(box, AXIS);
  if (chosen) {
    const y = AXIS + chosen[EVENT.LANE] * ROW + ROW / 2;
    box.pen.strokeStyle = colour("ink");
    box.pen.lineWidth = 2;
    box.pen.beginPath();
    box.pen.arc(box.x(chosen[EVENT.TO]), y, 9, 0, 7);
    box.pen.stroke();
  }
}

function told(event) {
  const [, from, to, , words] = event;
  return `${to - from < 0.001 ? to.toFixed(3) : `${from.toFixed(3)} to ${to.toFixed(3)}`} s: ${words}`;
}

function tell(words, at, number) {
  tip.hidden = words === null;
  if (words === null) return;
  tip.textContent = words;
  const box = plot.getBoundingClientRect(), left = LABELS();
  const x = left + ((at - view.from) / (view.to - view.from)) * (box.width - left);
  tip.style.left = `${Math.max(0, Math.min(x + 10, box.width - tip.offsetWidth - 4))}px`;
  tip.style.top = `${AXIS + (number + 1) * ROW + 6}px`;
}

function choose(event) {
  chosen = event;
  setCursor(event ? event[EVENT.TO] : null);
  tell(event ? told(event) : null, event ? event[EVENT.TO] : 0, event ? event[EVENT.LANE] : 0);
}

/* What the pointer is on: the nearest event of the row within some pixels, else the bar. */
function hover(pointer) {
  const box = plot.getBoundingClientRect();
  const number = Math.floor((pointer.clientY - box.top - AXIS) / ROW);
  const at = secondsAt(plot, pointer.clientX), reach = (7 * (view.to - view.from)) / (box.width - LABELS());
  const list = rows[number];
  view.cursor = at;
  if (!list) return choose(null);
  let best = null;
  for (let i = firstFrom(list, at - reach); i < list.length && list[i][EVENT.TO] <= at + reach; i++) {
    const far = Math.abs(list[i][EVENT.TO] - at), weight = ORDER.indexOf(list[i][EVENT.KIND]);
    const score = far / reach - weight / 4; /* what is drawn on top is meant */
    if (best === null || score < best.score) best = { event: list[i], score };
  }
  if (best) return choose(best.event);
  chosen = null;
  const bar = data.lanes[number].bars.filter(([from, to]) => from <= at && at <= to).pop();
  setCursor(at);
  tell(bar ? `${bar[0].toFixed(3)} to ${bar[1].toFixed(3)} s: ${bar[3]}` : null, at, number);
}

/* Another event of the row: the next one, or the previous. From outside the row, the nearest to the cursor. */
function step(by) {
  const list = rows[row];
  if (!list.length) return;
  let i = chosen && chosen[EVENT.LANE] === row ? list.indexOf(chosen) + by
    : firstFrom(list, view.cursor === null ? view.from : view.cursor);
  i = Math.min(Math.max(i, 0), list.length - 1);
  choose(list[i]);
}

function changeRow(by) {
  row = Math.min(Math.max(row + by, 0), data.lanes.length - 1);
  const list = rows[row];
  if (list.length) step(0);
  else {
    choose(null);
    tell(`${data.lanes[row].label}: no event`, view.from, row);
  }
}

const ACTS = {
  in: () => zoom(0.5, chosen ? chosen[EVENT.TO] : undefined),
  out: () => zoom(2),
  left: () => pan(-0.25),
  right: () => pan(0.25),
  all: () => show(0, END),
  focus: () => show(data.focus[0], data.focus[1]),
};

const KEYS = {
  ArrowLeft: (event) => (event.shiftKey ? ACTS.left() : step(-1)),
  ArrowRight: (event) => (event.shiftKey ? ACTS.right() : step(1)),
  ArrowUp: () => changeRow(-1),
  ArrowDown: () => changeRow(1),
  "+": ACTS.in, "=": ACTS.in, "-": ACTS.out, 0: ACTS.all, f: ACTS.focus, F: ACTS.focus,
  Home: () => rows[row].length && choose(rows[row][0]),
  End: () => rows[row].length && choose(rows[row][rows[row].length - 1]),
  Escape: () => choose(null),
};

plot.addEventListener("keydown", (event) => {
  if (!KEYS[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  KEYS[event.key](event);
});
plot.addEventListener("focus", redraw);
plot.addEventListener("blur", () => choose(null));
plot.addEventListener("pointerleave", () => document.activeElement !== plot && choose(null));
movable(plot, hover);
document.querySelectorAll("[data-act]").forEach((button) => button.addEventListener("click", ACTS[button.dataset.act]));

/* The legend has the same marks; only what occurs. */
const occurring = new Set(data.events.map((event) => event[EVENT.KIND]));
const legend = ORDER.filter((kind) => occurring.has(kind)).reverse().map((kind) => {
  const item = document.createElement("li"), icon = document.createElement("canvas");
  icon.setAttribute("aria-hidden", "true");
  item.append(icon, KINDS[kind][2]);
  document.getElementById("legend").append(item);
  return [icon, kind];
});

function drawLegend() {
  for (const [icon, kind] of legend) {
    const ratio = window.devicePixelRatio || 1;
    icon.width = 18 * ratio;
    icon.height = 12 * ratio;
    const pen = icon.getContext("2d");
    pen.setTransform(ratio * 0.8, 0, 0, ratio * 0.8, 0, 0);
    drawMark(pen, kind, 11, 7.5);
  }
}

drawers.push(drawTimeline, drawLegend);
