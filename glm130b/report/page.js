// What moves on the page. Every chart is drawn anew from its figure and one state: which runs are shown, what stands on
// the horizontal axis, which stretch of it, smoothing, theme. No chart knows of another; they agree because the state is one.
"use strict";

(() => {
  const report = JSON.parse(document.getElementById("report").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const state = {
    hidden: new Set(), // runs
    axis: "step",
    range: null, // of the axis; null shows the whole run
    heights: new Map(), // of charts whose vertical range was chosen
    steep: false, // whether charts show their steep beginnings to the top
    smooth: true,
    theme: null, // null follows the system
    print: false,
    turn: 0, // counts the changes
  };
  const drawn = new Set();
  const waiting = new Set(); // charts that do not show the state yet
  const near = new Set(); // charts in the window, or about to come into it
  const NEAR = "400px 0px";
  const PATIENCE = 100; // ms that a chart waits for an idle moment, which a busy machine may never have
  const NOISE = { width: 1, opacity: 0.3 };
  const PICTURE = { format: "png", width: 1000, height: 560, scale: 3 };
  const PRINTED = { wide: { width: 680, height: 250 }, small: { width: 328, height: 210 } };

  const all = (selector) => [...document.querySelectorAll(selector)];
  const theme = () => state.theme ?? (dark.matches ? "dark" : "light");
  const look = () => report.looks[state.print ? "light" : theme()];

  // Numbers come as bytes in base64; those that are looked at here are unpacked when their chart is first drawn.
  function unpacked(values) {
    if (!values?.bdata || values.shape) return values;
    const letters = atob(values.bdata);
    const bytes = new Uint8Array(letters.length);
    for (let place = 0; place < bytes.length; place += 1) bytes[place] = letters.charCodeAt(place);
    return values.dtype === "i4" ? new Int32Array(bytes.buffer) : new Float32Array(bytes.buffer);
  }

  // Samples or tokens of a step, by a straight line between the two points of the run around it.
  function along(steps, run) {
    const axes = report.axes[run];
    if (state.axis === "step" || !axes) return steps;
    const [from, to] = [axes.step, axes[state.axis]];
    return Float64Array.from(steps, (step) => {
      let [low, high] = [0, from.length - 1];
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (from[middle] <= step) low = middle;
        else high = middle;
      }
      const width = from[high] - from[low];
      return width > 0 ? to[low] + (to[high] - to[low]) * Math.min(1, (step - from[low]) / width) : to[high];
    });
  }

  function dressed(trace, { curves, quiet }) {
    const { run, colour, role } = trace.meta;
    const shade = colour === null ? quiet : curves[colour % curves.length];
    const copy = { ...trace, x: run === null ? trace.x : along(trace.x, run), visible: !state.hidden.has(run) };
    if (trace.line) copy.line = { ...trace.line, color: shade };
    if (trace.fillcolor) copy.fillcolor = shade;
    if (trace.marker) copy.marker = { ...trace.marker, color: shade, line: { ...trace.marker.line, color: shade } };
    if (role === "mean") copy.visible = copy.visible && state.smooth;
    if (role === "noise") copy.opacity = state.smooth ? NOISE.opacity : 1;
    return copy;
  }

  function figureOf(key, colours = look(), isPicture = false) {
    const { data, layout } = report.figures[key];
    const { quiet, rule, card, ink } = colours;
    for (const trace of data) Object.assign(trace, { x: unpacked(trace.x), y: unpacked(trace.y) });
    const traces = data.map((trace) => dressed(trace, colours));
    const axis = (its) => ({ autorange: !its.range, ...its, gridcolor: rule, linecolor: rule, tickcolor: rule });
    const xaxis = { ...axis(layout.xaxis), title: { ...layout.xaxis.title, text: state.axis } };
    const yaxis = axis(layout.yaxis);
    if (!isPicture && data[0].type !== "heatmap") yaxis.title = { text: "" }; // the heading has the unit
    if (state.steep) delete yaxis.autorangeoptions;
    if (state.range) {
      Object.assign(xaxis, { range: [...state.range], autorange: false });
      const heights = heightsWithin(traces, state.range);
      if (heights && !yaxis.range) Object.assign(yaxis, { range: fitted(heights, yaxis.type), autorange: false });
    }
    const chosen = state.heights.get(key);
    if (chosen) Object.assign(yaxis, { range: [...chosen], autorange: false });
    const hoverlabel = { ...layout.hoverlabel, bgcolor: card, bordercolor: rule, font: { color: ink } };
    const modebar = { bgcolor: "rgba(0,0,0,0)", color: quiet, activecolor: ink };
    const font = { ...layout.font, color: quiet };
    const datarevision = state.turn; // else an axis that returns to the whole run may be left without its extent
    return { data: traces, layout: { ...layout, xaxis, yaxis, hoverlabel, modebar, font, datarevision } };
  }

  // The lowest and the highest value that is to be seen, so that a stretch of the run fills its chart.
  function heightsWithin(traces, [low, high]) {
    let [least, most] = [Infinity, -Infinity];
    for (const { x, y, visible, type, meta } of traces) {
      if (type !== "scatter" || !visible || meta.role === "key" || typeof y[0] !== "number") continue;
      for (let place = 0; place < x.length; place += 1) {
        if (x[place] >= low && x[place] <= high && Number.isFinite(y[place])) {
          least = Math.min(least, y[place]);
          most = Math.max(most, y[place]);
        }
      }
    }
    return least <= most ? [least, most] : null;
  }

  function fitted([least, most], type) {
    const [low, high] = type === "log" ? [Math.log10(Math.max(least, 1e-30)), Math.log10(Math.max(most, 1e-30))] : [least, most];
    const room = 0.06 * (high - low) || 0.05 * Math.abs(high) || 1;
    return [low - room, high + room];
  }

  const config = {
    responsive: true,
    displaylogo: false,
    doubleClick: "autosize",
    modeBarButtonsToRemove: ["toImage", "select2d", "lasso2d", "resetScale2d", "zoom2d"],
    modeBarButtonsToAdd: [
      { name: "picture", title: "Save as a picture for a paper", icon: Plotly.Icons.camera, click: savePicture },
    ],
  };

  // As `glm130b report --png` draws it: white, with larger type.
  function savePicture(chart) {
    const { data, layout } = figureOf(chart.id, report.looks.light, true);
    const font = { ...layout.font, size: 20, color: report.looks.light.ink };
    const paper = { ...layout, font, paper_bgcolor: "#fff", plot_bgcolor: "#fff", margin: { l: 16, r: 24, t: 24, b: 16 } };
    const shown = report.runs.map((_, run) => run).filter((run) => !state.hidden.has(run));
    const isOfAll = report.runs.length > 1 && !chart.closest("[data-of]");
    for (const run of isOfAll ? shown : []) data.push(legendOf(run));
    const { width, height } = PICTURE;
    Plotly.downloadImage({ data, layout: { ...paper, width, height } }, { ...PICTURE, filename: chart.id });
  }

  function legendOf(run) {
    const { curves } = report.looks.light;
    const name = report.runs[run].replaceAll("<", "&lt;");
    return { mode: "lines", x: [null], y: [null], name, line: { width: 2.2, color: curves[run % curves.length] } };
  }

  function draw(chart) {
    const { data, layout } = figureOf(chart.id);
    if (state.print) Object.assign(layout, chart.closest(".small") ? PRINTED.small : PRINTED.wide);
    const isNew = !drawn.has(chart);
    drawn.add(chart);
    waiting.delete(chart);
    Plotly.react(chart, data, layout, config);
    if (isNew) chart.on("plotly_relayout", (change) => follow(chart, change));
  }

  // One chart after another, so that the page answers while it fills: those near the window at once, the others when
  // there is nothing else to do. Later, even the first: a chart that tells of a change is not to be drawn while it speaks.
  let [timer, idle] = [0, 0];
  function goOn() {
    clearTimeout(timer);
    cancelIdleCallback(idle);
    const [first] = waiting;
    const next = [...waiting].find((chart) => near.has(chart));
    if (next) timer = setTimeout(drawNext, 0, next);
    else if (first) idle = requestIdleCallback(() => drawNext(first), { timeout: PATIENCE });
    document.documentElement.dataset.drawn = next ? "some" : first ? "near" : "all";
  }

  function drawNext(chart) {
    draw(chart);
    goOn();
  }

  function drawAll() {
    state.turn += 1;
    for (const chart of all(".chart")) waiting.add(chart);
    goOn();
  }

  const sight = new IntersectionObserver(
    (changes) => {
      for (const { target, isIntersecting } of changes) {
        if (isIntersecting) near.add(target);
        else near.delete(target);
      }
      goOn();
    },
    { rootMargin: NEAR },
  );

  // A stretch of the run that is zoomed in one chart is zoomed in all; a height is the chart's own. A double click shows
  // the whole run; another one its steep beginning too, or no longer.
  function follow(chart, change) {
    const span = (axis) => (`${axis}.range[0]` in change ? [change[`${axis}.range[0]`], change[`${axis}.range[1]`]] : null);
    const [range, height] = [span("xaxis"), span("yaxis")];
    const isWhole = !state.range && !state.heights.size;
    if (height) state.heights.set(chart.id, height);
    else if (change["yaxis.autorange"]) state.heights.delete(chart.id);
    if (range) state.range = range;
    else if (change["xaxis.autorange"]) {
      if (isWhole) state.steep = !state.steep;
      showWhole();
    } else return;
    drawAll();
  }

  function showWhole() {
    state.range = null;
    state.heights.clear();
  }

  function press(button, on) {
    button.setAttribute("aria-pressed", String(on));
  }

  function showTheme() {
    if (state.theme) document.documentElement.dataset.theme = state.theme;
    press(document.getElementById("theme"), theme() === "dark");
  }

  for (const button of all("button.run")) {
    button.addEventListener("click", () => {
      const run = Number(button.dataset.run);
      const show = state.hidden.delete(run);
      if (!show) state.hidden.add(run);
      press(button, show);
      for (const part of all(`[data-of="${run}"]`)) part.hidden = !show;
      drawAll();
    });
  }
  for (const button of all("[data-axis]")) {
    button.disabled = !report.axes.every((axes) => axes[button.dataset.axis]);
    button.addEventListener("click", () => {
      state.axis = button.dataset.axis;
      showWhole();
      for (const other of all("[data-axis]")) press(other, other === button);
      drawAll();
    });
  }
  document.getElementById("smooth").addEventListener("click", ({ currentTarget }) => {
    state.smooth = !state.smooth;
    press(currentTarget, state.smooth);
    drawAll();
  });
  document.getElementById("reset").addEventListener("click", () => {
    showWhole();
    drawAll();
  });
  document.getElementById("theme").addEventListener("click", () => {
    state.theme = theme() === "dark" ? "light" : "dark";
    showTheme();
    drawAll();
  });
  dark.addEventListener("change", () => {
    showTheme();
    drawAll();
  });
  addEventListener("beforeprint", () => {
    state.print = true;
    all(".chart").forEach(draw); // at once: paper does not wait
  });
  addEventListener("afterprint", () => {
    state.print = false;
    drawAll();
  });

  showTheme();
  for (const chart of all(".chart")) {
    waiting.add(chart);
    sight.observe(chart); // which tells at once which are near, and so begins
  }
})();
