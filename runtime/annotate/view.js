// The picture on the canvas: zoom and place, masks as layers, dots and boxes, and the mouse.

const PLUS = "#2fbf71", MINUS = "#ff5d5d";

// Make a canvas as large as the mask's box, from run lengths down the columns; null for an empty mask.
export function maskLayer(rle, colour) {
  const [height] = rle.size, counts = rle.counts;
  let left = Infinity, right = -1, top = height, bottom = -1;
  const runs = [];
  for (let i = 0, at = 0; i < counts.length; at += counts[i++]) {
    if (i % 2 === 0 || counts[i] === 0) continue;
    const end = at + counts[i] - 1, first = Math.floor(at / height), last = Math.floor(end / height);
    runs.push([at, end]);
    left = Math.min(left, first);
    right = Math.max(right, last);
    top = first === last ? Math.min(top, at % height) : 0;
    bottom = first === last ? Math.max(bottom, end % height) : height - 1;
  }
  if (right < 0) return null;
  const w = right - left + 1, h = bottom - top + 1, inside = new Uint8Array(w * h);
  for (const [start, end] of runs) {
    let x = Math.floor(start / height) - left, y = start % height - top;
    for (let n = end - start; n >= 0; n--) {
      inside[y * w + x] = 1;
      if (++y + top === height) { y = -top; x++; }
    }
  }
  const line = Math.max(1, Math.round(Math.max(...rle.size) / 700));
  return { canvas: paint(inside, w, h, colour, line), x: left, y: top };
}

function paint(inside, w, h, colour, line) {
  const canvas = new OffscreenCanvas(w, h), context = canvas.getContext("2d"), image = context.createImageData(w, h);
  const pixels = new Uint32Array(image.data.buffer);
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const rgb = (b << 16) | (g << 8) | r, fill = (rgb | (105 << 24)) >>> 0, edge = (rgb | (255 << 24)) >>> 0;
  for (let y = 0, at = 0; y < h; y++) {
    for (let x = 0; x < w; x++, at++) {
      if (!inside[at]) continue;
      const deep = x >= line && x < w - line && y >= line && y < h - line &&
        inside[at - line] && inside[at + line] && inside[at - line * w] && inside[at + line * w];
      pixels[at] = deep ? fill : edge;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

export class View {
  picture = null;
  mask = null;        // the layer of the current object
  objects = [];       // { id, layer } of accepted objects
  lit = null;         // the id of the object under the pointer in the list
  dots = [];          // [x, y, positive]
  pending = [];       // dots that have not been answered yet
  box = null;         // [x0, y0, x1, y1]
  hidden = false;
  onclick = () => {};
  onbox = () => {};

  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.scale = 1; this.x = 0; this.y = 0;   // CSS pixels per picture pixel, and the place of its corner
    this.space = false;
    this.drag = null;
    new ResizeObserver(() => this.fit()).observe(canvas);
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", () => { this.drag = null; this.draw(); });
  }

  show(picture) {
    this.picture?.close();
    this.picture = picture;
    this.fit();
  }

  fit() {
    const { clientWidth: w, clientHeight: h } = this.canvas;
    this.canvas.width = Math.round(w * devicePixelRatio);
    this.canvas.height = Math.round(h * devicePixelRatio);
    if (this.picture) {
      const below = 52;   // space for the hints, which must not lie on the picture
      this.scale = Math.min((w - 24) / this.picture.width, (h - 12 - below) / this.picture.height);
      this.x = (w - this.picture.width * this.scale) / 2;
      this.y = 12 + (h - 12 - below - this.picture.height * this.scale) / 2;
    }
    this.draw();
  }

  draw() {
    this.frame ??= requestAnimationFrame(() => { this.frame = null; this.#render(); });
  }

  #render() {
    const c = this.context, { canvas, scale } = this;
    Object.assign(canvas.dataset, { scale, x: this.x, y: this.y });
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, canvas.width, canvas.height);
    if (!this.picture) return;
    c.setTransform(scale * devicePixelRatio, 0, 0, scale * devicePixelRatio, this.x * devicePixelRatio, this.y * devicePixelRatio);
    c.imageSmoothingEnabled = scale < 2;   // zoomed in, pixels show as squares
    c.drawImage(this.picture, 0, 0);
    if (!this.hidden) {
      for (const { id, layer } of this.objects) this.#layer(layer, id === this.lit ? 1 : 0.6);
      this.#layer(this.mask, 1);
    }
    c.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    const drawn = this.drag?.kind === "box" ? this.#corners() : this.box;
    if (drawn) this.#rectangle(drawn);
    for (const dot of this.dots) this.#dot(dot, 1);
    for (const dot of this.pending) this.#dot(dot, 0.55);
  }

  #layer(layer, alpha) {
    if (!layer) return;
    this.context.globalAlpha = alpha;
    this.context.drawImage(layer.canvas, layer.x, layer.y);
    this.context.globalAlpha = 1;
  }

  #dot([x, y, positive], alpha) {
    const c = this.context, cx = (x + 0.5) * this.scale + this.x, cy = (y + 0.5) * this.scale + this.y;
    c.globalAlpha = alpha;
    c.beginPath();
    c.arc(cx, cy, 7, 0, 2 * Math.PI);
    c.fillStyle = positive ? PLUS : MINUS;
    c.fill();
    c.lineWidth = 2;
    c.strokeStyle = "#fff";
    c.stroke();
    c.beginPath();   // a plus or a minus: not everyone can tell the colours
    c.moveTo(cx - 3, cy); c.lineTo(cx + 3, cy);
    if (positive) { c.moveTo(cx, cy - 3); c.lineTo(cx, cy + 3); }
    c.stroke();
    c.globalAlpha = 1;
  }

  #rectangle([x0, y0, x1, y1]) {
    const c = this.context, s = this.scale;
    const edges = [x0 * s + this.x, y0 * s + this.y, (x1 - x0 + 1) * s, (y1 - y0 + 1) * s];
    c.lineWidth = 3; c.strokeStyle = "rgba(0, 0, 0, .6)"; c.strokeRect(...edges);
    c.lineWidth = 1.5; c.strokeStyle = "#fff"; c.setLineDash([6, 4]); c.strokeRect(...edges); c.setLineDash([]);
  }

  #pixel(event) {
    const place = this.canvas.getBoundingClientRect();
    return [event.clientX - place.left - this.x, event.clientY - place.top - this.y].map((v) => Math.floor(v / this.scale));
  }

  #inside([x, y]) {
    return x >= 0 && y >= 0 && x < this.picture.width && y < this.picture.height;
  }

  #clamped([x, y]) {
    const within = (value, size) => Math.min(Math.max(value, 0), size - 1);
    return [within(x, this.picture.width), within(y, this.picture.height)];
  }

  #corners() {
    const [[ax, ay], [bx, by]] = [this.drag.from, this.drag.to];
    return [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];
  }

  #wheel(event) {
    event.preventDefault();
    if (!this.picture) return;
    const place = this.canvas.getBoundingClientRect(), px = event.clientX - place.left, py = event.clientY - place.top;
    const lines = event.deltaMode === 1 ? 30 : 1;
    const next = Math.min(Math.max(this.scale * Math.exp(-event.deltaY * lines * 0.0015), 0.01), 60);
    this.x = px - (px - this.x) * next / this.scale;
    this.y = py - (py - this.y) * next / this.scale;
    this.scale = next;
    this.draw();
  }

  #down(event) {
    if (!this.picture || this.drag) return;
    this.canvas.setPointerCapture(event.pointerId);
    const at = this.#pixel(event);
    if (event.button === 1 || (event.button === 0 && this.space)) {
      event.preventDefault();
      this.drag = { kind: "move", x: event.clientX - this.x, y: event.clientY - this.y };
    } else if (event.button === 0 && event.shiftKey) {
      this.drag = { kind: "box", from: this.#clamped(at), to: this.#clamped(at) };
    } else if ((event.button === 0 || event.button === 2) && this.#inside(at)) {
      this.onclick(...at, event.button === 0);
    }
  }

  #move(event) {
    if (this.drag?.kind === "move") {
      this.x = event.clientX - this.drag.x;
      this.y = event.clientY - this.drag.y;
      this.draw();
    } else if (this.drag?.kind === "box") {
      this.drag.to = this.#clamped(this.#pixel(event));
      this.draw();
    }
  }

  #up() {
    const drag = this.drag;
    if (drag?.kind === "box") {
      const box = this.#corners();
      if (box[2] > box[0] && box[3] > box[1]) this.onbox(...box);
    }
    this.drag = null;
    this.draw();
  }
}
