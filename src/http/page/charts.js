// Draws lines over the last minutes, and columns. A drawing says in words what its last values are, for those who do
// not see it; pointing at a moment shows that moment in all of them.

import { draw, el, whole } from "./dom.js";

const HEIGHT = 168;
const PLOT = { top: 14, bottom: 20 };
/** What the numbers at the side take, where something would stand on them. */
const TICKS = 36;

/** Seconds before now at which somebody points; null: at none. */
let pointed = null;
const charts = [];

/** The least round number that is no less than `number`, of those whose half is as round. */
function ceiling(number) {
  const power = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 4, 6, 8, 10].map((factor) => factor * power).find((step) => step >= number * 0.999);
}

/** Whence and how far values reach, and where lines are drawn across. */
function linear(most) {
  const top = ceiling(Math.max(most, 2));
  return { at: (value) => value / top, ticks: [0, top / 2, top] };
}

function logarithmic(least, most) {
  const low = Math.floor(Math.log10(least));
  const high = Math.max(low + 2, Math.ceil(Math.log10(most)));
  const ticks = Array.from({ length: high - low + 1 }, (_, decade) => 10 ** (low + decade));
  return { at: (value) => (Math.log10(value) - low) / (high - low), ticks };
}

class Chart {
  /** `series`: `[{ key, name }]`, in the order of their colours. `format` writes a value. */
  constructor(title, series, format) {
    Object.assign(this, { title, series, format, width: 0, values: new Map() });
    this.svg = draw("svg", { role: "img", height: HEIGHT, "aria-label": title });
    const legend = el("ul", { class: "legend" });
    series.forEach(({ key, name }, index) => {
      const value = el("b");
      this.values.set(key, value);
      legend.append(el("li", { class: `series-${index}` }, el("span", {}, name), value));
    });
    this.node = el("figure", { class: "chart" }, el("figcaption", {}, el("h2", {}, title), legend), this.svg);
    new ResizeObserver(([{ contentRect }]) => {
      this.width = contentRect.width;
      this.render();
    }).observe(this.node);
  }

  y(scale, value) {
    return HEIGHT - PLOT.bottom - Math.min(1, Math.max(0, scale.at(value))) * (HEIGHT - PLOT.top - PLOT.bottom);
  }

  /** Lines across the plot, and what is drawn between them and their numbers. */
  across(scale, format, drawn) {
    const at = scale.ticks.map((tick) => this.y(scale, tick).toFixed(1));
    const lines = at.map((y) => draw("line", { class: "across", x1: 0, x2: this.width, y1: y, y2: y }));
    const numbers = at.map((y, index) => draw("text", { class: "tick", x: 0, y: y - 4 }, format(scale.ticks[index])));
    return [...lines, ...drawn, ...numbers];
  }

  below(x, anchor, text) {
    return draw("text", { class: "tick", x, y: HEIGHT - 5, "text-anchor": anchor }, text);
  }

  /** Shows values by key, in the legend and in words. */
  say(values, when) {
    const parts = this.series.map(({ key, name }) => {
      const text = this.format(values?.[key] ?? NaN);
      this.values.get(key).textContent = text;
      return `${name} ${text}`;
    });
    this.svg.setAttribute("aria-label", `${this.title}, ${when}: ${parts.join(", ")}`);
  }
}

/** Values over time. */
export class Lines extends Chart {
  /** `log`: by powers of ten. */
  constructor(title, series, format, { log = false } = {}) {
    super(title, series, format);
    Object.assign(this, { log, span: 60, points: [] });
    charts.push(this);
    this.svg.addEventListener("pointermove", ({ clientX }) => {
      const { left } = this.svg.getBoundingClientRect();
      point((1 - (clientX - left) / this.width) * this.span);
    });
    this.svg.addEventListener("pointerleave", () => point(null));
  }

  /** `points`: `[{ ago, values: { key: number } }]`, oldest first; `ago` in seconds. `span`: seconds that are shown. */
  update(points, span) {
    Object.assign(this, { points, span });
    this.render();
  }

  render() {
    if (this.width === 0) return;
    const x = (ago) => (1 - ago / this.span) * this.width;
    const all = this.points
      .flatMap(({ values }) => this.series.map(({ key }) => values[key]))
      .filter((value) => value >= 0);
    const positive = all.filter((value) => value > 0);
    const scale = this.log
      ? logarithmic(Math.min(0.001, ...positive), Math.max(0.01, ...positive))
      : linear(Math.max(0, ...all));
    const lines = this.series.map(({ key }, index) =>
      draw("path", { class: `line series-${index}`, d: this.path(scale, x, key) }),
    );
    const shown = this.pointedAt();
    if (pointed !== null && shown) {
      const at = x(shown.ago).toFixed(1);
      lines.push(draw("line", { class: "pointed", x1: at, x2: at, y1: PLOT.top, y2: HEIGHT - PLOT.bottom }));
    }
    this.svg.replaceChildren(
      ...this.across(scale, this.format, lines),
      this.below(0, "start", this.span === 60 ? "a minute ago" : `${this.span / 60} minutes ago`),
      this.below(this.width, "end", "now"),
    );
    this.say(shown?.values, pointed === null || !shown ? "now" : `${Math.round(shown.ago)} seconds ago`);
  }

  /** A line through the values of one series, broken where there is none. */
  path(scale, x, key) {
    let path = "";
    let pen = "M";
    for (const { ago, values } of this.points) {
      const value = values[key];
      const drawn = Number.isFinite(value) && !(this.log && value <= 0);
      if (drawn) path += `${pen}${x(ago).toFixed(1)} ${this.y(scale, value).toFixed(1)}`;
      pen = drawn ? "L" : "M";
    }
    return path || "M0 0";
  }

  pointedAt() {
    if (pointed === null) return this.points.at(-1);
    const far = ({ ago }) => Math.abs(ago - pointed);
    return this.points.reduce((best, each) => (!best || far(each) < far(best) ? each : best), undefined);
  }
}

function point(ago) {
  pointed = ago;
  charts.forEach((chart) => chart.render());
}

/** How often each of some values was seen. */
export class Columns extends Chart {
  constructor(title, series, format) {
    super(title, series, format);
    this.groups = [];
  }

  /** `groups`: `[{ name, values: { key: count } }]`. `means`: by key, for the legend. */
  update(groups, means) {
    Object.assign(this, { groups, means });
    this.render();
  }

  render() {
    if (this.width === 0) return;
    const scale = linear(Math.max(0, ...this.groups.flatMap(({ values }) => Object.values(values))));
    const [floor, each] = [this.y(scale, 0), (this.width - TICKS) / Math.max(1, this.groups.length)];
    const thick = Math.min(20, (each * 0.7) / this.series.length);
    const middle = (place) => TICKS + (place + 0.5) * each;
    const columns = this.groups.flatMap(({ values }, place) =>
      this.series.map(({ key }, index) => {
        const top = this.y(scale, values[key]);
        const x = middle(place) + (index - this.series.length / 2) * thick;
        const size = { x: x.toFixed(1), y: top.toFixed(1), width: thick.toFixed(1), height: (floor - top).toFixed(1) };
        return draw("rect", { class: `column series-${index}`, ...size });
      }),
    );
    const names = this.groups.map(({ name }, place) => this.below(middle(place), "middle", name));
    this.svg.replaceChildren(...this.across(scale, whole, columns), ...names);
    this.say(this.means, "in the last minute");
  }
}
