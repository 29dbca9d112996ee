// The layer over the picture on which one points: a box, a brush, a pen; by mouse, finger, pencil or keys.
import { point } from '../core/actions.js';
import { say } from '../core/notices.js';
import { boxFrom, draw, EMPTY, nudge, TOOLS } from '../core/pointing.js';
import { html, Part } from '../core/store.js';
import { t } from '../core/text.js';
import { base } from '../core/tree.js';
import { namesBox } from '../core/words.js';

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

class Pointer extends Part {
  #from = null; // where a box began
  #stroke = null; // the stroke in the making
  #cursor = null; // where the keyboard paints

  connectedCallback() {
    super.connectedCallback();
    this.watcher = new ResizeObserver(() => this.requestUpdate());
    this.watcher.observe(this);
  }

  disconnectedCallback() {
    this.watcher.disconnect();
    super.disconnectedCallback();
  }

  get turn() {
    return base(this.state);
  }

  get pointing() {
    return this.state.pointing[this.turn.id] ?? EMPTY;
  }

  get brush() {
    const [width, height] = this.turn.size;
    return Math.max(2, Math.round(Math.min(width, height) / (this.state.tool === 'brush' ? 9 : 64)));
  }

  /** A pointer event in pixels of the picture. */
  #place(event) {
    const box = this.getBoundingClientRect();
    const [width, height] = this.turn.size;
    return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
  }

  #down(event) {
    if (event.button || this.state.tool === 'move') return;
    event.stopPropagation();
    event.currentTarget.setPointerCapture(event.pointerId);
    const place = this.#place(event);
    if (this.state.tool === 'box') this.#from = place;
    else this.#begin(place);
  }

  #move(event) {
    if (this.#from) point({ box: boxFrom(this.#from, this.#place(event), this.turn.size) });
    else if (this.#stroke) this.#extend(event.getCoalescedEvents?.().map((one) => this.#place(one)) ?? [this.#place(event)]);
  }

  #up() {
    this.#from = this.#stroke = null;
  }

  #begin(place) {
    const kind = TOOLS[this.state.tool];
    this.#stroke = { width: this.brush, points: [place.map(Math.round)] };
    point({ [kind]: [...this.pointing[kind], this.#stroke] });
  }

  #extend(places) {
    const kind = TOOLS[this.state.tool];
    this.#stroke = { ...this.#stroke, points: [...this.#stroke.points, ...places.map((place) => place.map(Math.round))] };
    point({ [kind]: [...this.pointing[kind].slice(0, -1), this.#stroke] });
  }

  /** Arrows move the box (with Shift: resize) or the cursor; Space paints; Backspace takes the last stroke back. */
  #key(event) {
    const { tool } = this.state;
    const [width, height] = this.turn.size;
    const arrow = ARROWS[event.key];
    const by = arrow?.map((one) => Math.round((one * Math.min(width, height)) / 32) || one);
    if (event.key === 'Backspace' || event.key === 'Delete') {
      point(tool === 'box' ? { box: null } : { [TOOLS[tool]]: this.pointing[TOOLS[tool]].slice(0, -1) });
    } else if (arrow && tool === 'box') {
      const third = [width, height].map((side) => Math.round(side / 3));
      const box = this.pointing.box ? nudge(this.pointing.box, ...by, event.shiftKey, this.turn.size) : [...third, ...third];
      point({ box });
      say(t('said.box', { x: box[0], y: box[1], w: box[2], h: box[3] }));
    } else if (arrow) {
      const [x, y] = this.#cursor ?? [width / 2, height / 2];
      this.#cursor = [Math.min(Math.max(x + by[0], 0), width), Math.min(Math.max(y + by[1], 0), height)];
      if (this.#stroke) this.#extend([this.#cursor]);
      else this.requestUpdate();
    } else if (event.key === ' ' && tool !== 'box') {
      if (this.#stroke) this.#stroke = null;
      else this.#begin((this.#cursor ??= [width / 2, height / 2]));
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  updated() {
    if (!this.turn) return; // the session was left a moment ago
    const canvas = this.querySelector('canvas');
    const scale = (this.clientWidth * (window.devicePixelRatio || 1) * Math.min(this.state.view.scale, 3)) / this.turn.size[0];
    const [width, height] = this.turn.size.map((side) => Math.max(1, Math.round(side * scale)));
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    draw(canvas, this.pointing, this.turn.size, scale, namesBox(this.state.draft.prompt));
    if (this.#cursor && document.activeElement === canvas) this.#drawCursor(canvas, scale);
  }

  #drawCursor(canvas, scale) {
    const context = canvas.getContext('2d');
    context.strokeStyle = '#16171a';
    context.lineWidth = 2;
    context.beginPath();
    context.arc(this.#cursor[0] * scale, this.#cursor[1] * scale, (this.brush * scale) / 2, 0, 7);
    context.stroke();
  }

  render() {
    const { tool } = this.state;
    return html`<canvas
      class="point-${tool}"
      role="application"
      tabindex=${tool === 'move' ? -1 : 0}
      aria-label=${t(`tool.${tool}.help`)}
      @pointerdown=${this.#down}
      @pointermove=${this.#move}
      @pointerup=${this.#up}
      @pointercancel=${this.#up}
      @keydown=${this.#key}
    ></canvas>`;
  }
}

customElements.define('kx-pointer', Pointer);
