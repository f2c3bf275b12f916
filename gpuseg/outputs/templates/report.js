// Draws the charts of the report again, so that they answer to mouse, finger and keyboard.
// Texts from the data are only ever set as text: Plot and the DOM escape them.
"use strict";
(() => {
  const { segments, charts } = JSON.parse(document.getElementById("data").textContent);
  // matrices of the charts have a column for each segment, in this order; ids may have gaps
  const ids = segments.map((segment) => segment.id);
  const segment = (id) => segments[ids.indexOf(id)];
  const color = (id) => segment(id).color;
  const label = (id) => `Segment ${id} · ${segment(id).name}`;
  const short = (text, most = 30) =>
    text.length <= most
      ? text
      : `${text.slice(0, most - 1 - ((most - 1) >> 1))}…${text.slice(-((most - 1) >> 1))}`;
  const figures = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
  const number = (value) => (value == null ? "–" : figures.format(value).replace("-", "−"));
  const room = (names, most) =>
    18 + 6.9 * Math.max(4, ...names.map((name) => Math.min(name.length, most)));
  const range = (n) => Array.from({ length: n }, (_, i) => i);
  const plain = { tickSize: 0, label: null };

  // -- what each kind of chart is drawn from -------------------------------------------
  // A kind returns panels: options for Plot, the points that the keyboard goes through
  // and, where the mouse has more to find, those that it does.

  function line({ data, x, y }) {
    const points = data.k.map((k, i) => ({
      x: k, y: data.silhouette[i], error: data.reach[i],
      title: `k = ${k}${k === data.chosen ? " (chosen)" : ""}\nsilhouette ${data.silhouette[i].toFixed(4)}` +
        (data.reach[i] ? ` ± ${data.reach[i].toFixed(4)} (95 %)` : " (exact)"),
    }));
    const chosen = points.filter((point) => point.x === data.chosen);
    return [{
      points, pointer: Plot.pointerX,
      options: {
        height: 320, marginLeft: 52, marginBottom: 42, marginTop: 34, insetLeft: 14, insetRight: 14,
        x: { label: x, ticks: data.k.length > 20 ? 10 : data.k, tickFormat: String, labelAnchor: "center" },
        y: { label: y, grid: true, nice: true },
        marks: [
          Plot.ruleX(chosen, { x: "x", stroke: "var(--above)", strokeDasharray: "3 3" }),
          Plot.ruleX(points.filter((p) => p.error), {
            x: "x", y1: (p) => p.y - p.error, y2: (p) => p.y + p.error, marker: "tick",
            stroke: "var(--accent)", strokeWidth: 1.6,
          }),
          Plot.lineY(points, { x: "x", y: "y", stroke: "var(--accent)", strokeWidth: 2 }),
          Plot.dot(points, { x: "x", y: "y", fill: "var(--accent)", r: 4 }),
          Plot.dot(chosen, { x: "x", y: "y", fill: "var(--above)", r: 6.5 }),
          Plot.text(chosen, {
            x: "x", y: "y", text: (p) => `chosen: k = ${p.x}`, dy: -14, fill: "var(--above)",
            textAnchor: data.chosen === data.k[0] ? "start" : data.chosen === data.k.at(-1) ? "end" : "middle",
            fontWeight: 700, stroke: "var(--card)", strokeWidth: 4,
          }),
        ],
      },
    }];
  }

  function knife({ data, x, y }) {
    const gap = 0.012;
    let top = 0;
    const edges = [], points = [];
    for (const own of data.segments) {
      const steps = Math.max(own.outline.length - 1, 1);
      own.outline.forEach((s, i) => edges.push({
        s, x: s, y: top + (own.share * i) / steps, id: own.id,
        title: `${label(own.id)}\n${Math.round((100 * i) / steps)} % of its rows have at least ${s.toFixed(2)}`,
      }));
      points.push({
        id: own.id, share: own.share, x: own.mean, y: top + own.share / 2,
        title: `${label(own.id)}\nmean silhouette ${own.mean.toFixed(3)}\n` +
          `${number(100 * own.below_zero)} % of its rows are below 0`,
      });
      top += own.share + gap;
    }
    return [{
      points, hover: edges,
      options: {
        height: 380, marginLeft: 44, marginBottom: 42, marginTop: 30,
        x: { label: x, grid: true, labelAnchor: "center" },
        y: { label: y, domain: [top - gap, 0], ticks: [], labelAnchor: "top" },
        marks: [
          ...data.segments.map((own) => Plot.areaX(edges.filter((e) => e.id === own.id), {
            y: "y", x1: 0, x2: "s", fill: color(own.id),
          })),
          Plot.text(points.filter((p) => p.share > 0.035), {
            y: "y", text: (p) => String(p.id), frameAnchor: "left", dx: -14, fontWeight: 600,
          }),
          Plot.ruleX([0], { stroke: "var(--muted)" }),
          Plot.ruleX([data.mean], { stroke: "var(--ink)", strokeDasharray: "4 3" }),
        ],
      },
    }];
  }

  function scatter({ data, x, y }, state, width) {
    const visible = (c) => !state.hidden.has(c);
    const rows = data.points
      .map(([px, py], i) => ({ x: px, y: py, id: data.labels[i], title: label(data.labels[i]) }))
      .filter((row) => visible(row.id));
    const points = data.centres
      .map((centre, place) => centre && {
        x: centre[0], y: centre[1], id: ids[place], title: `${label(ids[place])}\nmiddle of its rows`,
      })
      .filter((point) => point && visible(point.id));
    return [{
      points, hover: rows,
      options: {
        height: Math.min(560, Math.max(360, width * 0.5)), marginLeft: 44, marginBottom: 42, marginTop: 30,
        x: { label: x, grid: true, labelAnchor: "center", domain: ends(data.points, 0) },
        y: { label: y, grid: true, domain: ends(data.points, 1) },
        marks: [
          Plot.dot(rows, { x: "x", y: "y", fill: (row) => color(row.id), r: 2.6, fillOpacity: 0.7 }),
          Plot.dot(points, { x: "x", y: "y", fill: (p) => color(p.id), stroke: "var(--card)", strokeWidth: 2, r: 11 }),
          Plot.text(points, { x: "x", y: "y", text: (p) => String(p.id), fill: (p) => segment(p.id).on_color, fontWeight: 700 }),
        ],
      },
    }];
  }

  const ends = (points, axis) => {
    const values = points.map((point) => point[axis]);
    const low = Math.min(...values), high = Math.max(...values), pad = 0.03 * (high - low) || 1;
    return [low - pad, high + pad];
  };

  function groups({ data, x, y }) {
    const domain = [], points = [], heads = [], names = new Map();
    data.groups.forEach(({ id, bars }) => {
      domain.push(`${id}`);
      heads.push({ y: `${id}`, title: `Segment ${id}` });
      bars.forEach((bar, i) => {
        const key = `${id}/${i}`;
        domain.push(key);
        names.set(key, bar.feature);
        points.push({ x: bar.value, y: key, id, title: `${label(id)}\n${bar.feature}\nmean |SHAP| ${number(bar.value)}` });
      });
    });
    const left = room([...names.values()], 30);
    return [{
      points, pointer: Plot.pointerY,
      options: {
        height: 70 + 21 * domain.length, marginLeft: left, marginBottom: 42, marginRight: 48, marginTop: 8,
        x: { label: x, grid: true, labelAnchor: "center", ticks: 5 },
        y: { domain, ...plain, tickFormat: (key) => short(names.get(key) ?? ""), padding: 0.16 },
        marks: [
          Plot.barX(points, { x: "x", y: "y", fill: (p) => color(p.id) }),
          Plot.text(heads, { y: "y", text: "title", frameAnchor: "left", dx: 6 - left, textAnchor: "start", fontWeight: 700 }),
          Plot.text(points, { x: "x", y: "y", text: (p) => number(p.x), dx: 5, textAnchor: "start", fill: "var(--muted)" }),
        ],
      },
    }];
  }

  function bars({ data, x }) {
    const points = data.features.map((feature, i) => ({
      x: data.values[i], y: i, title: `${feature}\n${number(data.values[i])}`,
    }));
    return [{ points, pointer: Plot.pointerY, options: horizontal(data.features, points, x, "var(--accent)") }];
  }

  const horizontal = (features, points, x, fill, more = {}) => ({
    height: 60 + 24 * points.length, marginLeft: room(features, 30), marginBottom: 42, marginRight: 48, marginTop: 8,
    x: { label: x, grid: true, labelAnchor: "center", ticks: 4, ...more },
    y: { domain: range(points.length), ...plain, tickFormat: (i) => short(features[i]), padding: 0.25 },
    marks: [
      Plot.barX(points, { x: "x", y: "y", fill }),
      Plot.text(points, { x: "x", y: "y", text: (p) => number(p.x), dx: 5, textAnchor: "start", fill: "var(--muted)" }),
    ],
  });

  function stacked({ data, x }, state) {
    const points = [];
    data.features.forEach((feature, y) => {
      let start = 0;
      data.values[y].forEach((value, place) => {
        const id = ids[place];
        if (state.hidden.has(id)) return;
        points.push({ x: start + value / 2, x1: start, x2: start + value, y, id,
          title: `${feature}\n${label(id)}\nmean |SHAP| ${number(value)}` });
        start += value;
      });
    });
    return [{
      points,
      options: {
        height: 60 + 24 * data.features.length, marginLeft: room(data.features, 30), marginBottom: 42, marginTop: 8,
        x: { label: x, grid: true, labelAnchor: "center", ticks: 5 },
        y: { domain: range(data.features.length), ...plain, tickFormat: (i) => short(data.features[i]), padding: 0.25 },
        marks: [Plot.barX(points, { x1: "x1", x2: "x2", y: "y", fill: (p) => color(p.id), insetRight: 0.6 })],
      },
    }];
  }

  function facets({ data, x }, state, width) {
    const longest = Math.max(...data.values.flat());
    const shown = state.chosen === "all" ? ids : [Number(state.chosen)];
    const most = shown.length > 1 ? data.most : data.features.length;
    return shown.map((id) => {
      const place = ids.indexOf(id);
      const ranked = range(data.features.length)
        .sort((a, b) => data.values[b][place] - data.values[a][place] || a - b).slice(0, most);
      const names = ranked.map((f) => data.features[f]);
      const points = ranked.map((f, y) => ({
        x: data.values[f][place], y,
        title: `${label(id)}\n${data.features[f]}\nmean |SHAP| ${number(data.values[f][place])}\n` +
          `its own rows: ${number(data.signed[f][place])}`,
      }));
      const options = horizontal(names, points, x, color(id), { domain: [0, longest] });
      if (shown.length > 1) {
        Object.assign(options, { height: 22 * points.length + 34, marginBottom: 28, marginLeft: room(names, 16) });
        options.x = { ...options.x, label: null, ticks: 2 };
        options.y = { ...options.y, tickFormat: (i) => short(names[i], 16) };
      }
      return { points, pointer: Plot.pointerY, options, head: shown.length > 1 ? id : null };
    });
  }

  function heatmap({ data, x }, _state, width) {
    const points = [];
    data.features.forEach((feature, y) => data.values[y].forEach((value, place) => {
      const id = ids[place];
      if (value == null) return;
      const shade = data.limit ? Math.max(-1, Math.min(1, value / data.limit)) : 0;
      points.push({
        x: id, y, shade, value,
        title: `${feature}\n${label(id)}\n${number(value)} ${data.unit}\n(${shade > 0 ? data.high : shade < 0 ? data.low : "as all rows"})`,
      });
    }));
    const most = width < 480 ? 14 : 30;
    const left = room(data.features, most);
    const roomy = (width - left) / segments.length > 34;
    const written = (value) => {
      const text = value.toFixed(data.limit < 1 ? 2 : 1);
      return Number(text) === 0 ? "0" : text.replace("0.", data.limit < 1 ? "." : "0.").replace("-", "−").replace(/^(?=[.\d])/, "+");
    };
    return [{
      points,
      options: {
        height: 62 + 25 * data.features.length, marginLeft: left, marginTop: 8, marginBottom: 44,
        x: { domain: ids, label: x, tickSize: 0, tickFormat: String, labelAnchor: "center" },
        y: { domain: range(data.features.length), ...plain, tickFormat: (i) => short(data.features[i], most) },
        opacity: { type: "identity" },
        marks: [
          Plot.cell(points, {
            x: "x", y: "y", inset: 0.8, rx: 2, fill: (p) => `var(--${p.shade > 0 ? "above" : "below"})`,
            fillOpacity: (p) => 0.04 + 0.9 * Math.abs(p.shade),
          }),
          !roomy ? null : Plot.text(points, {
            x: "x", y: "y", text: (p) => written(p.value),
            fill: (p) => (Math.abs(p.shade) > 0.82 ? "var(--on-strong)" : "var(--ink)"),
          }),
        ],
      },
    }];
  }

  function spread({ data, y }, state) {
    const feature = data.features[state.chosen];
    const highest = Math.max(...feature.everyone, ...feature.segments.flat()) || 1;
    return segments.map(({ id }, place) => {
      const own = feature.segments[place];
      const points = own.map((share, i) => ({
        share, everyone: feature.everyone[i], i, x: feature.is_number ? i + 0.5 : share, y: feature.is_number ? share : i,
        title: `${label(id)}\n${feature.bins[i]}: ${number(share)} % of its rows\nall rows: ${number(feature.everyone[i])} %`,
      }));
      return feature.is_number
        ? numbers(feature, points, id, highest)
        : categories(feature, points, id, highest);
    });
  }

  function numbers(feature, points, id, highest) {
    const n = points.length;
    const steps = [...points.map((p) => ({ x: p.i, y: p.everyone })), { x: n, y: points[n - 1].everyone }];
    const whole = feature.ends[0] === feature.bins[0]; // a bin for each whole number
    const every = Math.max(1, Math.round(n / 3.2));
    const marked = range(n + (whole ? 0 : 1)).filter((i) => i % every === 0 && i <= n - every / 2 || i === n - (whole ? 1 : 0));
    return {
      points, head: id, pointer: Plot.pointerX,
      options: {
        height: 150, marginLeft: 34, marginBottom: 24, marginTop: 10, marginRight: 14,
        x: { domain: [0, n], label: null, ticks: marked.map((i) => i + (whole ? 0.5 : 0)), tickSize: 3,
          tickFormat: (i) => short(feature.ends[Math.floor(i)] ?? "", 10) },
        y: { domain: [0, highest], label: null, ticks: 3, grid: true, tickFormat: (v) => `${v} %` },
        marks: [
          Plot.rectY(points, { x1: "i", x2: (p) => p.i + 1, y: "share", fill: color(id), inset: 0.4, insetBottom: 0 }),
          Plot.lineY(steps, { x: "x", y: "y", curve: "step-after", stroke: "var(--muted)", strokeWidth: 1.6 }),
          Plot.ruleY([0], { stroke: "var(--muted)" }),
        ],
      },
    };
  }

  function categories(feature, points, id, highest) {
    return {
      points, head: id, pointer: Plot.pointerY,
      options: {
        height: 34 + 20 * points.length, marginLeft: room(feature.bins, 16), marginBottom: 24, marginTop: 4, marginRight: 14,
        x: { domain: [0, highest], label: null, ticks: 3, grid: true, tickFormat: (v) => `${v} %` },
        y: { domain: range(points.length), ...plain, tickFormat: (i) => short(feature.bins[i].trim(), 16), padding: 0.2 },
        marks: [
          Plot.barX(points, { x: "share", y: "y", fill: color(id) }),
          Plot.tickX(points, { x: "everyone", y: "y", stroke: "var(--ink)", strokeWidth: 2.2 }),
        ],
      },
    };
  }

  // -- what changed since the run before -------------------------------------------------

  const paint = (name) => `var(--${name})`;
  const figure = new Intl.NumberFormat("en");

  function flow({ data }, _state, width) {
    const narrow = width < 480;
    const words = (node) => (narrow ? node.short : `${node.name} · ${figure.format(node.n)}`);
    const side = room(data.nodes.map(words), 30) - 8;
    const bar = 10 / Math.max(width - 2 * side, 60); // as a share of the way
    const across = (node) => (node.side ? [1 - bar, 1] : [0, bar]);
    const points = data.flows.map((band) => ({
      x: 0.5, y: (band.from[0] + band.from[1] + band.to[0] + band.to[1]) / 4, title: band.words,
    }));
    // along a band the mouse finds it anywhere
    const hover = data.flows.flatMap((band) => range(9).map((i) => {
      const t = (i + 0.5) / 9, bend = t * t * (3 - 2 * t);
      const [from, to] = [band.from, band.to].map(([top, bottom]) => (top + bottom) / 2);
      return { x: bar + (1 - 2 * bar) * t, y: from + (to - from) * bend, title: band.words };
    }));
    const name = (which, textAnchor, dx) => Plot.text(data.nodes.filter((node) => node.side === which), {
      x: which, y: (node) => (node.top + node.bottom) / 2, text: words, textAnchor, dx,
    });
    return [{
      points, hover,
      options: {
        height: 280 + 14 * Math.max(...[0, 1].map((which) => data.nodes.filter((node) => node.side === which).length)),
        marginLeft: side, marginRight: side, marginTop: 30, marginBottom: 8,
        x: { domain: [0, 1], axis: null }, y: { domain: [1, 0], axis: null },
        marks: [
          ...data.flows.map((band) => Plot.areaY(
            [{ x: bar, y1: band.from[0], y2: band.from[1] }, { x: 1 - bar, y1: band.to[0], y2: band.to[1] }],
            { x: "x", y1: "y1", y2: "y2", curve: "bump-x", fill: paint(band.color), fillOpacity: band.stays ? 0.35 : 0.65 },
          )),
          Plot.rect(data.nodes, {
            x1: (node) => across(node)[0], x2: (node) => across(node)[1], y1: "top",
            y2: (node) => Math.max(node.bottom, node.top + 0.002), fill: (node) => paint(node.color),
          }),
          name(0, "end", -6), name(1, "start", 6),
          Plot.text(["the run before"], { x: 0, y: 0, text: String, textAnchor: "start", dy: -14, fill: "var(--muted)" }),
          Plot.text(["this run"], { x: 1, y: 0, text: String, textAnchor: "end", dy: -14, fill: "var(--muted)" }),
        ],
      },
    }];
  }

  function limits({ data, x }, _state, width) {
    const points = data.features.map((feature, i) => ({
      x: Math.min(data.values[i], data.end), y: i,
      title: `${feature}\nPSI ${data.values[i].toFixed(3)}\n${data.words[i]}`,
    }));
    const left = room(data.features, 30);
    // two limits that are near each other on the axis share a line of words
    const [low, high] = data.limits;
    const apart = ((high.value - low.value) / data.end) * (width - left - 56) > 90;
    const words = (all) => all.map((limit) => `${limit.words}: ${limit.value}`).join(", ");
    return [{
      points, pointer: Plot.pointerY,
      options: {
        height: 78 + 24 * points.length, marginLeft: left, marginBottom: 42, marginRight: 56, marginTop: 26,
        x: { label: x, grid: true, labelAnchor: "center", ticks: 4, domain: [0, data.end] },
        y: { domain: range(points.length), ...plain, tickFormat: (i) => short(data.features[i]), padding: 0.25 },
        marks: [
          Plot.barX(points, { x: "x", y: "y", fill: (p) => paint(data.colors[p.y]) }),
          Plot.text(points, {
            y: "y", frameAnchor: "right", dx: 8, textAnchor: "start", text: (p) => data.values[p.y].toFixed(3),
            fill: "var(--muted)",
          }),
          Plot.ruleX(data.limits, { x: "value", stroke: "var(--ink)", strokeDasharray: "3 3" }),
          Plot.text(apart ? data.limits : [low], {
            x: "value", frameAnchor: "top", dy: -14, textAnchor: "start",
            text: (limit) => words(apart ? [limit] : data.limits),
          }),
        ],
      },
    }];
  }

  function byRun(labels, width, x) {
    const wide = 16 + 6 * Math.max(...labels.map((label) => label.length));
    const every = Math.ceil((labels.length * wide) / Math.max(width - 70, 60));
    const ticks = range(labels.length).filter((i) => (labels.length - 1 - i) % every === 0);
    return { label: x, domain: [-0.5, labels.length - 0.5], ticks, tickSize: 0, tickFormat: (i) => labels[i], labelAnchor: "center" };
  }

  function trend({ data, x, y }, _state, width) {
    const points = data.runs.map((run, i) => ({
      x: i, y: run.silhouette, published: run.published,
      title: `${run.started}\nsilhouette ${number(run.silhouette)}\n${run.words}`,
    }));
    return [{
      points, pointer: Plot.pointerX,
      options: {
        height: 280, marginLeft: 52, marginRight: 30, marginBottom: 42, marginTop: 30,
        x: byRun(data.runs.map((run) => run.label), width, x),
        y: { label: y, grid: true, domain: [data.low, data.high] },
        marks: [
          Plot.lineY(points.filter((p) => p.published), { x: "x", y: "y", stroke: "var(--accent)", strokeWidth: 2 }),
          Plot.dot(points, {
            x: "x", y: "y", r: 4.5, strokeWidth: 2,
            stroke: (p) => (p.published ? "var(--accent)" : "var(--above)"),
            fill: (p) => (p.published ? "var(--accent)" : "var(--card)"),
          }),
        ],
      },
    }];
  }

  function layers({ data, x, y }, _state, width) {
    const points = data.values.flatMap((own, i) => {
      let below = 0;
      return own.map((n, place) => {
        const from = below;
        below += n;
        return { x: i, x1: i - 0.36, x2: i + 0.36, y: (from + below) / 2, y1: from, y2: below, n, place,
          title: `${data.started[i]}\nsegment ${data.ids[place]}: ${figure.format(n)} rows` };
      }).filter((point) => point.n);
    });
    return [{
      points,
      options: {
        height: 280, marginLeft: 60, marginRight: 30, marginBottom: 42, marginTop: 30,
        x: byRun(data.runs, width, x), y: { label: y, grid: true },
        marks: [
          Plot.rect(points, { x1: "x1", x2: "x2", y1: "y1", y2: "y2", fill: (p) => paint(data.colors[p.place]), insetTop: 0.5 }),
          Plot.ruleY([0], { stroke: "var(--muted)" }),
        ],
      },
    }];
  }

  const KINDS = {
    line, knife, scatter, groups, bars, stacked, facets, heatmap, spread, flow, limits, trend, layers,
  };

  // -- controls ------------------------------------------------------------------------

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  const swatch = (c) => {
    const square = make("i");
    square.style.background = color(c);
    square.setAttribute("aria-hidden", "true");
    return square;
  };

  function choice(view, words, options, change) {
    const select = make("select", {}, ...options.map(([value, text]) => make("option", { value, textContent: text })));
    select.value = String(view.state.chosen);
    select.addEventListener("change", () => { view.state.chosen = select.value; view.state.focus = null; change(); });
    return make("label", {}, words, select);
  }

  function switches(view) {
    return segments.map(({ id, name }) => {
      const button = make("button", { type: "button", title: name }, swatch(id), String(id));
      button.setAttribute("aria-pressed", "true");
      button.setAttribute("aria-label", `Show segment ${id}, ${name}`);
      button.addEventListener("click", () => {
        const { hidden } = view.state;
        if (!hidden.delete(id)) hidden.add(id);
        button.setAttribute("aria-pressed", String(!hidden.has(id)));
        view.state.focus = null;
        render(view);
      });
      return button;
    });
  }

  function legend(view) {
    return segments.map(({ id }) => make("span", {}, swatch(id), String(id)));
  }

  function retable(view) {
    const feature = view.chart.data.features[view.state.chosen];
    const cell = (text, tag) => Object.assign(make(tag, { textContent: text }), tag === "th" ? { scope: "row" } : {});
    view.figure.querySelector("thead th").textContent = `value of ${feature.name}`;
    view.figure.querySelector("tbody").replaceChildren(...feature.bins.map((bin, i) => make("tr", {},
      cell(bin, "th"),
      ...[feature.everyone, ...feature.segments].map((shares) => cell(`${number(shares[i])} %`, "td")))));
  }

  const CONTROLS = {
    scatter: (view) => ["Segments", ...switches(view)],
    stacked: (view) => ["Segments", ...switches(view)],
    facets: (view) => [choice(view, "Segment", [["all", "All segments"], ...segments.map((s) => [s.id, label(s.id)])], () => render(view))],
    spread: (view) => [choice(view, "Feature", view.chart.data.features.map((f, i) => [i, f.name]), () => { retable(view); render(view); })],
    layers: (view) => ["Segment", ...view.chart.data.ids.map((id, place) => {
      const square = make("i");
      square.style.background = paint(view.chart.data.colors[place]);
      return make("span", {}, square, String(id));
    })],
    heatmap: (view) => [`Colour: ${view.chart.data.unit}; orange ${view.chart.data.high}, blue ${view.chart.data.low}`],
  };

  // -- drawing -------------------------------------------------------------------------

  let printing = false;
  const GAP = 22, NARROWEST = 250, ON_PAPER = 3;

  function render(view, width = view.plot.clientWidth) {
    const { chart, state, plot } = view;
    if (width < NARROWEST / 2) return; // not laid out yet: the observer of its size will call
    view.width = width;
    let panels = KINDS[chart.kind](chart, state, width);
    const many = panels.length > 1;
    const fitting = printing ? ON_PAPER : Math.max(1, Math.floor((width + GAP) / (NARROWEST + GAP)));
    const across = many ? Math.min(fitting, panels.length) : 1;
    const each = (width - GAP * (across - 1)) / across;
    view.points = panels.flatMap((panel) => panel.points);
    const focused = state.focus == null ? null : view.points[state.focus];
    const drawn = panels.map((panel) => {
      const svg = draw(panel, each, focused);
      if (!many) return svg;
      return make("div", {}, make("h4", {}, swatch(panel.head), label(panel.head)), svg);
    });
    if (!many) drawn[0].setAttribute("aria-label", view.alt);
    plot.replaceChildren(...(many ? [make("div", { className: "many" }, ...drawn)] : drawn));
    plot.style.setProperty("--across", across);
    plot.classList.add("live");
    if (many) plot.append(make("p", { className: "note", textContent: `${axes(chart, state)}` }));
    view.readout.textContent = focused ? focused.title.replaceAll("\n", " · ") : "";
  }

  const axes = ({ kind, data, x, y }, state) =>
    kind === "spread" ? `Across: ${data.features[state.chosen].unit}. ` +
      (data.features[state.chosen].is_number ? "Up: share of rows; the grey line is everyone." : "Bars: share of the segment's rows; the black mark is everyone.")
      : `Across: ${x}.`;

  function draw({ options, points, hover, head, pointer = Plot.pointer }, width, focused) {
    const tip = (rows, how) => Plot.tip(rows, how({ x: "x", y: "y", title: "title", fill: "var(--card)", stroke: "var(--line)", lineWidth: 26, fontSize: 12.5 }));
    const svg = Plot.plot({
      width, color: { type: "identity" }, style: { background: "none", color: "var(--ink)", fontSize: "12px" },
      ...options,
      x: { labelArrow: "none", ...options.x }, y: { labelArrow: "none", ...options.y },
      marks: [
        ...options.marks,
        focused ? null : tip(hover ?? points, pointer),
        points.includes(focused) ? tip([focused], (channels) => channels) : null,
      ],
    });
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", head == null ? "Chart" : `${label(head)}; the numbers are in the table view`);
    // an image has no named parts
    for (const group of svg.querySelectorAll("g[aria-label]")) group.removeAttribute("aria-label");
    return svg;
  }

  function step(view, event) {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const last = view.points.length - 1;
    if (event.key === "Escape") view.state.focus = null;
    else if (event.key === "Home") view.state.focus = 0;
    else if (event.key === "End") view.state.focus = last;
    else if (by) view.state.focus = Math.max(0, Math.min(last, (view.state.focus ?? (by > 0 ? -1 : last + 1)) + by));
    else return;
    event.preventDefault();
    render(view);
  }

  function start(figure) {
    const chart = charts[figure.dataset.chart];
    const plot = figure.querySelector(".plot");
    const view = {
      figure, chart, plot, width: 0, points: [], readout: figure.querySelector(".readout"),
      alt: plot.querySelector("svg").getAttribute("aria-label"),
      // on a phone, all segments one under another are a long way to scroll
      state: {
        hidden: new Set(), focus: null,
        chosen: chart.kind !== "facets" ? 0 : plot.clientWidth > 560 ? "all" : ids[0],
      },
    };
    plot.tabIndex = 0;
    plot.setAttribute("role", "group");
    plot.setAttribute("aria-label", `${chart.title}. Arrow keys go through its values.`);
    plot.addEventListener("keydown", (event) => step(view, event));
    plot.addEventListener("focus", () => { view.readout.textContent = "Use the arrow keys to go through the values, Esc to leave."; });
    plot.addEventListener("blur", () => { view.readout.textContent = ""; if (view.state.focus != null) { view.state.focus = null; render(view); } });
    const controls = figure.querySelector(".controls");
    if (CONTROLS[chart.kind]) {
      controls.append(...CONTROLS[chart.kind](view));
      controls.hidden = false;
    }
    view.readout.hidden = false;
    render(view);
    new ResizeObserver(() => {
      if (!printing && Math.abs(plot.clientWidth - view.width) > 1) render(view);
    }).observe(figure);
    return view;
  }

  // -- the page ------------------------------------------------------------------------

  function theme() {
    const control = document.querySelector(".theme");
    const apply = (name) => {
      if (name === "auto") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = name;
    };
    let kept = "auto";
    try { kept = localStorage.getItem("gpuseg-theme") ?? "auto"; } catch { /* a page from disk may have no storage */ }
    for (const radio of control.querySelectorAll("input")) {
      radio.checked = radio.value === kept;
      radio.addEventListener("change", () => {
        apply(radio.value);
        try { localStorage.setItem("gpuseg-theme", radio.value); } catch { /* then it is not kept */ }
      });
    }
    apply(kept);
    control.hidden = false;
  }

  function whereabouts() {
    const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const [id, link] of links) {
          if (id === entry.target.getAttribute("aria-labelledby")) link.setAttribute("aria-current", "true");
          else link.removeAttribute("aria-current");
        }
      }
    }, { rootMargin: "-30% 0px -65% 0px" });
    document.querySelectorAll("main > section").forEach((section) => watcher.observe(section));
  }

  theme();
  const views = [...document.querySelectorAll("figure[data-chart]")].flatMap((figure) => {
    try {
      return [start(figure)];
    } catch (error) {
      reportError(error); // one chart stays a still picture; the others answer
      return [];
    }
  });
  whereabouts();
  // on paper every chart is as wide as its column there
  addEventListener("beforeprint", () => {
    printing = true;
    for (const view of views) render(view, view.figure.classList.contains("wide") ? 680 : 340);
  });
  addEventListener("afterprint", () => { printing = false; views.forEach((view) => render(view)); });
})();
