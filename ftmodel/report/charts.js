/* Lines over the same window of time: the tokens of each request, and the gauges of each process. */

function chart(place, height, label, draw, readout) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  place.append(canvas);
  drawers.push(() => {
    const box = prepare(canvas, height);
    axis(box);
    bands(box);
    draw(box);
    cursor(box);
    readout();
  });
  movable(canvas, (event) => setCursor(secondsAt(canvas, event.clientX)));
  canvas.addEventListener("pointerleave", () => setCursor(null));
}

/* A value that holds until the next one (`steps`), or goes straight there. */
function line(box, points, most, steps) {
  const { pen, height, left, width, x } = box;
  const y = (value) => height - 8 - (value / most) * (height - 20);
  pen.save();
  pen.beginPath();
  pen.rect(left, 0, width - left, height);
  pen.clip();
  pen.lineWidth = 1.8;
  pen.beginPath();
  points.forEach(([at, value], i) => {
    if (i === 0) return pen.moveTo(x(at), y(value));
    if (steps) pen.lineTo(x(at), y(points[i - 1][1]));
    pen.lineTo(x(at), y(value));
  });
  pen.stroke();
  pen.restore();
}

function valueAt(points, at) {
  let found = null;
  for (const [when, value] of points) {
    if (when > at) break;
    found = value;
  }
  return found;
}

function scale(box, most, unit) {
  const { pen, height, left } = box;
  pen.fillStyle = colour("soft");
  pen.textAlign = "right";
  pen.fillText(`${Number(most.toPrecision(3))}`, left - 6, 12);
  pen.fillText("0", left - 6, height - 8);
  pen.textAlign = "left";
  if (left > 80) pen.fillText(unit, 4, height / 2);
}

/* What the lines are at the cursor, each in its line's colour. */
function write(place, at, parts) {
  place.textContent = at === null ? "" : `at ${at.toFixed(3)} s: `;
  parts.forEach(([n, words], i) => {
    const part = document.createElement("span");
    part.style.color = `var(--${SERIES[n % SERIES.length]})`;
    part.textContent = words;
    place.append(i ? ", " : "", part);
  });
}

/* --- tokens --- */

const which = document.getElementById("which");
const everything = data.tokens.length > 1 ? ["all", ...data.tokens.map((one) => one.request)]
  : data.tokens.map((one) => one.request);
for (const name of everything) which.add(new Option(name, name));
if (everything.includes(data.subject)) which.value = data.subject;
which.addEventListener("change", redraw);

function shownTokens() {
  return data.tokens.map((one, n) => ({ ...one, n })).filter((one) => ["all", one.request].includes(which.value));
}

function drawTokens(box) {
  const shown = shownTokens(), most = Math.max(1, ...shown.map((one) => one.points[one.points.length - 1][1]));
  scale(box, most, "tokens");
  for (const one of shown) {
    if (one.gap) {
      const { pen, x, height, left, width } = box, [from, to] = one.gap;
      const a = Math.max(x(from), left), b = Math.min(x(to), width);
      if (b > left && a < width) {
        stroke(pen, one.n);
        pen.globalAlpha = 0.18;
        pen.fillRect(a, 0, Math.max(b - a, 1), height);
        pen.globalAlpha = 1;
        const text = `moved: ${((to - from) * 1000).toFixed(0)} ms without a token`;
        pen.textAlign = b + pen.measureText(text).width + 6 > width ? "right" : "left";
        pen.fillText(text, pen.textAlign === "right" ? a - 6 : b + 6, height - 18 - 14 * (one.n % 6));
      }
    }
    stroke(box.pen, one.n);
    line(box, one.points, most, false);
    box.pen.setLineDash([]);
  }
}

function tokensReadout() {
  const at = view.cursor;
  write(document.getElementById("tokens-readout"), at, shownTokens().slice(0, 12).map((one) => {
    const has = at === null ? one.points[one.points.length - 1][1] : valueAt(one.points, at);
    return [one.n, `${one.request} ${has === null ? "not sent" : `${has} of ${one.asked} tokens`}`];
  }));
}

if (data.tokens.length) {
  chart(document.getElementById("tokens"), 190, "Tokens that each client has, over time", drawTokens, tokensReadout);
} else {
  which.parentElement.hidden = true;
  document.getElementById("tokens-readout").textContent = "No streamed request had a token.";
}

/* --- gauges --- */

for (const gauge of data.gauges) {
  const place = document.getElementById("gauges");
  const heading = document.createElement("h3"), holder = document.createElement("div");
  const words = document.createElement("p");
  heading.textContent = gauge.title;
  holder.className = "chart";
  words.className = "readout";
  place.append(heading, holder, words);
  const most = Math.max(gauge.unit === "share" ? 0.01 : 1, ...gauge.series.flatMap((s) => s.points.map((p) => p[1])));
  chart(holder, 84, `${gauge.title}, ${gauge.unit}, of each process over time`, (box) => {
    scale(box, most, gauge.unit);
    gauge.series.forEach((series, n) => {
      stroke(box.pen, n);
      line(box, series.points, most, true);
      box.pen.setLineDash([]);
    });
  }, () => {
    const at = view.cursor;
    write(words, at, gauge.series.map((series, n) => {
      const values = series.points.map((point) => point[1]);
      const value = at === null ? `at most ${Math.max(...values)}` : valueAt(series.points, at);
      return [n, `${series.title} ${value === null ? "not there" : value}`];
    }));
  });
}
if (!data.gauges.length) document.getElementById("gauges").textContent = "No process was asked for its gauges.";

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
redraw();
