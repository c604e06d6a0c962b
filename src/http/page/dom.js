// Makes elements, and writes numbers as people read them.

export const $ = (id) => document.getElementById(id);

/** An element with properties; `class` and those with a hyphen are attributes. Children are nodes or texts. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class" || name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** An element of a drawing. */
export function draw(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Runs `action` once `ms` have passed without another call. */
export function settled(ms, action) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, ms);
  };
}

export const still = matchMedia("(prefers-reduced-motion: reduce)");

/** `1 picture`, `2 pictures`. */
export const many = (count, noun) => `${whole(count)} ${noun}${count === 1 ? "" : "s"}`;

export const whole = (number) => number.toLocaleString("en", { maximumFractionDigits: 0 });

/** With as many digits as matter. */
export function short(number) {
  if (!Number.isFinite(number)) return "–";
  const digits = Math.abs(number) >= 100 ? 0 : Math.abs(number) >= 10 ? 1 : 2;
  return number.toLocaleString("en", { maximumFractionDigits: digits });
}

export function percent(share) {
  if (share > 0 && share < 0.0001) return "<0.01 %";
  return `${(share * 100).toFixed(share > 0 && share < 0.0995 ? 2 : 1)} %`;
}

/** A duration that is given in seconds. */
export function time(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds >= 1) return `${short(seconds)} s`;
  return seconds >= 0.001 ? `${short(seconds * 1e3)} ms` : `${short(seconds * 1e6)} µs`;
}

export function bytes(count) {
  const units = ["bytes", "KB", "MB", "GB"];
  const unit = Math.min(units.length - 1, Math.floor(Math.log10(Math.max(count, 1)) / 3));
  return `${short(count / 1000 ** unit)} ${units[unit]}`;
}
