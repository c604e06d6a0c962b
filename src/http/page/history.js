// What the server did between two moments, from its totals. Nothing here knows the page.

/** Seconds that are remembered. */
export const WINDOW = 300;

/** Sum of the figures of a metric whose labels are as asked. */
export function total({ totals }, name, labels = {}) {
  const wanted = Object.entries(labels);
  const some = (totals[name] ?? []).filter((each) => wanted.every(([label, value]) => each[label] === value));
  return some.reduce((sum, { value }) => sum + value, 0);
}

/** Answers in a row of other servers after which the one that was watched is taken to be gone. */
const GONE = 12;

/** Moments of one server in the last minutes, oldest first. */
export class History {
  moments = [];
  /** When each server started that has answered here. */
  servers = new Set();
  others = 0;

  /** Forgets what is too old. Behind a balancer others answer too; they are left out, until the one is gone. */
  add(moment) {
    this.servers.add(moment.started);
    const last = this.last();
    if (last && last.started !== moment.started) {
      if (++this.others < GONE) return;
      this.forget();
      this.servers.add(moment.started);
    }
    this.others = 0;
    // The same moment is given to all who ask within half a second.
    if (this.last()?.seconds === moment.seconds) return;
    this.moments.push(moment);
    const oldest = moment.seconds - WINDOW;
    this.moments = this.moments.filter(({ seconds }) => seconds >= oldest);
  }

  forget() {
    this.moments = [];
    this.servers.clear();
  }

  last() {
    return this.moments.at(-1);
  }

  /** Pairs of moments about `span` seconds apart, one for each moment: what happened before it. */
  spans(span) {
    let from = 0;
    const pairs = [];
    this.moments.forEach((to, index) => {
      while (from + 1 < index && to.seconds - this.moments[from + 1].seconds >= span) from++;
      if (index > from) pairs.push([this.moments[from], to]);
    });
    return pairs;
  }

  /** The last `span` seconds, or less if less is known. */
  since(span) {
    return this.spans(span).at(-1);
  }
}

/** How much a total has grown. */
export const grown = ([from, to], name, labels) => Math.max(0, total(to, name, labels) - total(from, name, labels));

/** The same for each second. */
export const rate = (pair, name, labels) => grown(pair, name, labels) / (pair[1].seconds - pair[0].seconds);

/** By the value of one label, how much a total has grown: `[value, growth]`, without those that have not. */
export function grownBy(pair, name, label) {
  const values = new Set((pair[1].totals[name] ?? []).map((figure) => figure[label]));
  return [...values].map((value) => [value, grown(pair, name, { [label]: value })]).filter(([, growth]) => growth > 0);
}

/** Observations by bucket: `[upper bound, how many]`, in order. Several histograms with the same bounds are added. */
export function buckets(pair, names, labels = {}) {
  const cumulative = new Map();
  for (const name of names) {
    for (const { le } of pair[1].totals[name] ?? []) {
      if (cumulative.has(le)) continue;
      cumulative.set(
        le,
        names.reduce((sum, each) => sum + grown(pair, each, { ...labels, le }), 0),
      );
    }
  }
  const bound = (le) => (le === "+Inf" ? Infinity : Number(le));
  const ordered = [...cumulative].map(([le, count]) => [bound(le), count]).sort(([a], [b]) => a - b);
  return ordered.map(([le, count], index) => [le, Math.max(0, count - (ordered[index - 1]?.[1] ?? 0))]);
}

/**
 * As Prometheus' `histogram_quantile`: within a bucket, observations are taken to be evenly spread. NaN: there are
 * none.
 */
export function quantile(share, counts) {
  const all = counts.reduce((sum, [, count]) => sum + count, 0);
  if (all === 0) return NaN;
  let below = 0;
  let lower = 0;
  for (const [upper, count] of counts) {
    if (count > 0 && below + count >= share * all) {
      // Nobody knows how far the last bucket reaches.
      return upper === Infinity ? lower : lower + (upper - lower) * ((share * all - below) / count);
    }
    below += count;
    lower = upper;
  }
  return lower;
}
