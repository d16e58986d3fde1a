// As much of a browser as the page's script needs: elements in a tree, attributes, and events by hand.
const fs = require("fs");
const vm = require("vm");

class Element {
  constructor(name) {
    Object.assign(this, { name, attributes: {}, children: [], listeners: {}, textContent: "", style: {}, dataset: {} });
    const classes = new Set();
    this.classList = { add: (one) => classes.add(one), remove: (one) => classes.delete(one), has: (one) => classes.has(one),
      toggle: (one, on) => (on ? classes.add(one) : classes.delete(one)) };
  }
  setAttribute(key, value) {
    this.attributes[key] = String(value);
    if (key.startsWith("data-")) this.dataset[key.slice(5)] = String(value);
  }
  getAttribute(key) { return key in this.attributes ? this.attributes[key] : null; }
  removeAttribute(key) { delete this.attributes[key]; }
  append(...more) { for (const one of more) { this.children = this.children.filter((old) => old !== one); this.children.push(one); } }
  prepend(one) { this.children.unshift(one); }
  replaceChildren(...more) { this.children = more; }
  addEventListener(kind, listener) { (this.listeners[kind] ||= []).push(listener); }
  fire(kind, event = {}) { for (const one of this.listeners[kind] || []) one({ preventDefault() {}, ...event }); }
  getBoundingClientRect() { return { left: 0, top: 0, width: 460, height: 290 }; }
  all(name) { return this.children.flatMap((one) => (one instanceof Element ? [...(one.name === name ? [one] : []), ...one.all(name)] : [])); }
  text() { return this.textContent + this.children.map((one) => (one instanceof Element ? one.text() : one)).join(""); }
}

const [, , page, program] = process.argv;
const html = fs.readFileSync(page, "utf8");
const within = (name, source) => [...source.matchAll(new RegExp(`<${name}[ >].*?</${name}>`, "gs"))].map((found) => found[0]);
const attribute = (name, source) => (source.match(new RegExp(`^<[^>]*${name}="([^"]*)"`)) || [])[1];

const tables = within("table", html).map((source) => {
  const cells = (row, kind) => within(kind, row).map((cell) => {
    const made = new Element(kind);
    made.dataset.key = attribute("data-key", cell);
    made.firstElementChild = new Element("button");
    return made;
  });
  const rows = within("tr", source).map((row) => {
    const made = new Element("tr");
    made.cells = [...cells(row, "th"), ...cells(row, "td")];
    made.dataset.run = attribute("data-run", row);
    return made;
  });
  const body = new Element("tbody");
  body.append(...rows.slice(1));
  Object.defineProperty(body, "rows", { get: () => body.children });
  return { tHead: { rows: [rows[0]] }, tBodies: [body] };
});
const byId = {};
for (const id of ["data", "controls", "tip", "charts", "weights", "legend"]) byId[id] = new Element(id);
byId.data.textContent = html.match(/<script type="application\/json" id="data">(.*?)<\/script>/s)[1];
const boxes = { valid: true, train: false, logx: false, logy: false, late: false };
for (const [name, checked] of Object.entries(boxes)) byId.controls[name] = { checked };
byId.controls.elements = { all: new Element("button"), none: new Element("button") };
const document = {
  getElementById: (id) => byId[id],
  createElement: (name) => new Element(name),
  createElementNS: (_, name) => new Element(name),
  querySelectorAll: (what) => (what === "table" ? tables : tables[0].tBodies[0].rows.filter((row) => row.dataset.run !== undefined)),
};
const script = html.match(/<script>\n(.*?)<\/script>/s)[1];
const world = vm.createContext({ document, innerWidth: 1000, innerHeight: 800, Set, Math, JSON });
vm.runInContext(script, world);
const result = new Function("byId", "tables", program)(byId, tables);
console.log(JSON.stringify(result));
