"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const controls = document.getElementById("controls");
  const tip = document.getElementById("tip");
  const hidden = new Set();
  const WIDTH = 460, HEIGHT = 290, LEFT = 50, RIGHT = 10, TOP = 8, BOTTOM = 26;
  // Seven colours that differ for colour-blind readers, too, and four dashes: 28 runs before any looks like another.
  const COLOURS = ["#0077bb", "#ee7733", "#009988", "#cc3311", "#aa66cc", "#b8860b", "#ee3377"];
  const DASHES = ["", "7 3", "2 3", "9 3 2 3"];

  const create = (name, attributes = {}, text = "") => {
    const one = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
    if (text !== "") one.textContent = text;
    return one;
  };
  const element = (name, text = "", attributes = {}) => {
    const one = document.createElement(name);
    one.textContent = text;
    for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
    return one;
  };
  const style = (run) => ({ stroke: COLOURS[run % COLOURS.length], "stroke-dasharray": DASHES[run % DASHES.length] });
  const swatch = (run) => {
    const made = create("svg", { class: "swatch", viewBox: "0 0 30 10", "aria-hidden": "true" });
    made.append(create("line", { x1: 0, y1: 5, x2: 30, y2: 5, "stroke-width": 2.5, ...style(run) }));
    return made;
  };
  const format = (value) => (Math.abs(value) >= 1e6 || (value !== 0 && Math.abs(value) < 1e-3)
    ? value.toExponential(2) : String(Number(value.toFixed(4))));

  // Tables: sorted by a click on a heading, numbers as numbers, missing values last.
  const compare = (one, other) => {
    if (one === "" || other === "") return (one === "") - (other === "");
    const difference = Number(one) - Number(other);
    return Number.isNaN(difference) ? one.localeCompare(other, undefined, { numeric: true }) : difference;
  };
  const sortBy = (table, column, heading) => {
    const up = heading.getAttribute("aria-sort") !== "ascending";
    for (const one of table.tHead.rows[0].cells) one.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const key = (row) => row.cells[column].dataset.key;
    const rows = [...body.rows].sort((one, other) => {
      const order = compare(key(one), key(other));
      return up || key(one) === "" || key(other) === "" ? order : -order;
    });
    body.append(...rows);
  };
  for (const table of document.querySelectorAll("table")) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      heading.firstElementChild.addEventListener("click", () => sortBy(table, column, heading));
    });
  }

  // One chart: scales, grid, a path for each run that is shown.
  const KINDS = ["train", "valid"];
  const curve = (run, kind, task) => {
    const own = data.runs[run][kind];
    if (!own) return [];
    if (task !== null) {
      const values = own.tasks[task] || [];
      return values.map((value, place) => [own.steps[place], value]).filter((point) => point[1] !== null);
    }
    const all = Object.values(own.tasks);
    const mean = (place) => {
      const there = all.map((values) => values[place]).filter((value) => value !== null);
      return there.reduce((sum, value) => sum + value, 0) / there.length;
    };
    return own.steps.map((step, place) => [step, mean(place)]);
  };
  const scale = (low, high, from, to, isLog) => {
    const place = isLog ? Math.log : (value) => value;
    const start = place(low), length = (place(high) - start) || 1;
    return (value) => from + ((place(value) - start) / length) * (to - from);
  };
  const ticks = (low, high, isLog, count) => {
    if (isLog && high / low > 20) {
      const found = [];
      for (let power = Math.ceil(Math.log10(low)); 10 ** power <= high; power += 1) found.push(10 ** power);
      if (found.length > 1) return found;
    }
    const rough = (high - low) / count || 1, size = 10 ** Math.floor(Math.log10(rough));
    const width = [1, 2, 5, 10].map((factor) => factor * size).find((one) => one >= rough);
    const found = [];
    for (let at = Math.ceil(low / width) * width; at <= high + width * 1e-9; at += width) found.push(Number(at.toPrecision(12)));
    return found;
  };
  const extent = (values, isLog) => {
    let low = Infinity, high = -Infinity;
    for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
    if (low > high) return isLog ? [1, 10] : [0, 1];
    if (low === high) return isLog ? [low / 2, low * 2] : [low - 0.5, low + 0.5];
    const room = isLog ? 0 : (high - low) * 0.03;
    return [low - room, high + room];
  };
  const axes = (svg, x, y, xTicks, yTicks) => {
    for (const at of yTicks) {
      svg.append(create("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(at), y2: y(at) }));
      svg.append(create("text", { x: LEFT - 6, y: y(at) + 4, "text-anchor": "end" }, format(at)));
    }
    for (const at of xTicks) {
      svg.append(create("line", { x1: x(at), x2: x(at), y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4 }));
      svg.append(create("text", { x: x(at), y: HEIGHT - 8, "text-anchor": "middle" }, format(at)));
    }
  };
  const path = (points, x, y) => points.map(([step, value], place) =>
    `${place ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");

  const lastStep = Math.max(0, ...data.runs.flatMap((run) => ["valid", "train"].map((kind) => (run[kind] ? run[kind].steps.at(-1) : 0))));
  // The first fifth is left out at first where it takes more than half of the height, and no run has only that.
  const hidesTheRest = () => {
    const means = data.runs.map((_, run) => curve(run, "valid", null)).filter((points) => points.length);
    const height = (points) => { const [low, high] = extent(points.map((point) => point[1]), false); return high - low; };
    const late = means.map((points) => points.filter(([step]) => step >= lastStep / 5));
    return late.length > 0 && late.every((points) => points.length > 1) && height(late.flat()) < height(means.flat()) / 2;
  };
  const chart = (task, kinds) => {
    const logx = controls.logx.checked, logy = controls.logy.checked && !kinds.includes("weight");
    const from = controls.late.checked && !kinds.includes("weight") ? lastStep / 5 : 0;
    const curves = [];
    data.runs.forEach((_, run) => {
      if (hidden.has(run)) return;
      for (const kind of kinds) {
        const points = curve(run, kind, task).filter(([step, value]) => step >= from && !(logx && step <= 0) && !(logy && value <= 0));
        if (points.length) curves.push({ run, kind, points });
      }
    });
    const svg = create("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
    const all = curves.flatMap((one) => one.points);
    const [left, right] = extent(all.map((point) => point[0]), logx);
    const [low, high] = extent(all.map((point) => point[1]), logy);
    const x = scale(left, right, LEFT, WIDTH - RIGHT, logx), y = scale(low, high, HEIGHT - BOTTOM, TOP, logy);
    axes(svg, x, y, ticks(left, right, logx, 5), ticks(low, high, logy, 7));
    for (const one of curves) {
      one.path = create("path", { class: one.kind, d: path(one.points, x, y), ...style(one.run) });
      if (one.points.length === 1) {
        const [[step, value]] = one.points;
        one.path = create("circle", { class: one.kind, cx: x(step), cy: y(value), r: 3.5, fill: style(one.run).stroke });
      }
      svg.append(one.path);
    }
    if (!curves.length) svg.append(create("text", { x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "nothing to show"));
    listen(svg, curves, x, y);
    return svg;
  };

  // Under the pointer: the values of the runs at the nearest step, the nearest run in bold.
  const MOST = 10;
  const nearestPoint = (points, at, x) => points.reduce((best, point) =>
    (Math.abs(x(point[0]) - at) < Math.abs(x(best[0]) - at) ? point : best));
  const listen = (svg, curves, x, y) => {
    const leave = () => { tip.hidden = true; for (const one of curves) one.path.classList.remove("near"); };
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const atX = ((event.clientX - box.left) * WIDTH) / box.width, atY = ((event.clientY - box.top) * HEIGHT) / box.height;
      const found = curves.map((one) => {
        const point = nearestPoint(one.points, atX, x);
        return { one, point, away: Math.hypot(x(point[0]) - atX, y(point[1]) - atY) };
      });
      if (!found.length) return;
      const nearest = found.reduce((best, other) => (other.away < best.away ? other : best));
      for (const one of curves) one.path.classList.toggle("near", one === nearest.one);
      const shown = found.sort((one, other) => one.away - other.away).slice(0, MOST).sort((one, other) => one.point[1] - other.point[1]);
      tip.replaceChildren(...shown.map((entry) => {
        const line = element("div", "", entry === nearest ? { class: "near" } : {});
        const kind = entry.one.kind === "train" ? ", training" : "";
        line.append(swatch(entry.one.run), `${format(entry.point[1])} · step ${entry.point[0]}${kind} · ${data.runs[entry.one.run].label}`);
        return line;
      }));
      tip.hidden = false;
      tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 4)}px`;
      tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 4)}px`;
    });
  };

  const figure = (title, task, kinds) => {
    const made = element("section");
    made.append(element("h3", title), chart(task, kinds));
    return made;
  };
  const draw = () => {
    const kinds = KINDS.filter((kind) => controls[kind].checked);
    const mean = data.tasks.length > 1 ? [figure("mean of all tasks", null, kinds)] : [];
    document.getElementById("charts").replaceChildren(...mean, ...data.tasks.map((task) => figure(task, task, kinds)));
    const weights = document.getElementById("weights");
    weights.replaceChildren();
    if (data.runs.some((run) => run.weight)) {
      const grid = element("div", "", { class: "charts" });
      grid.append(...data.tasks.map((task) => figure(task, task, ["weight"])));
      weights.append(element("h2", "Task weights"), element("p", "Of runs whose weights change."), grid);
    }
    for (const row of document.querySelectorAll("tr[data-run]")) row.classList.toggle("off", hidden.has(Number(row.dataset.run)));
    for (const one of legend.children) one.setAttribute("aria-pressed", String(!hidden.has(Number(one.dataset.run))));
  };

  const toggle = (run) => { if (!hidden.delete(run)) hidden.add(run); draw(); };
  const only = (run) => { data.runs.forEach((_, one) => (one === run ? hidden.delete(one) : hidden.add(one))); draw(); };
  const legend = document.getElementById("legend");
  data.runs.forEach((run, number) => {
    const button = element("button", "", { type: "button", "data-run": number, title: "click: hide or show; double click: this one only" });
    button.append(swatch(number), run.label);
    button.addEventListener("click", () => toggle(number));
    button.addEventListener("dblclick", () => only(number));
    legend.append(button);
  });
  for (const row of document.querySelectorAll("tr[data-run]")) {
    row.cells[0].prepend(swatch(Number(row.dataset.run)));
    row.addEventListener("click", () => toggle(Number(row.dataset.run)));
  }
  controls.late.checked = hidesTheRest();
  controls.addEventListener("change", draw);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.elements.all.addEventListener("click", () => { hidden.clear(); draw(); });
  controls.elements.none.addEventListener("click", () => { data.runs.forEach((_, run) => hidden.add(run)); draw(); });
  draw();
})();
