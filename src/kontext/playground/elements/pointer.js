// The drawing layer over the picture: box, brush, eraser, pen; by mouse, touch, stylus or keyboard.
import { point, stroke, strokesBack, widthOf } from '../core/drawing.js';
import { say } from '../core/notices.js';
import { boxFrom, draw, EMPTY, nudge } from '../core/pointing.js';
import { html, Part } from '../core/store.js';
import { t } from '../core/text.js';
import { base } from '../core/tree.js';
import { namesBox } from '../core/words.js';

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

class Pointer extends Part {
  #from = null; // where a box began
  #stroke = null; // the stroke being drawn
  #cursor = null; // keyboard or mouse position
  #fresh = false; // the box being drawn has no pixels yet

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

  /** Stroke width of the active tool, in picture pixels. */
  get brush() {
    return Math.max(1, Math.round(Math.min(...this.turn.size) * widthOf(this.state, this.state.tool)));
  }

  /**
   * Position of a pointer event in picture pixels.
   * @returns {[number, number]}
   */
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
    this.#fresh = true;
    if (this.state.tool === 'box') this.#from = place;
    else this.#begin(place);
  }

  #move(event) {
    const place = this.#place(event);
    if (this.#from) {
      point({ box: boxFrom(this.#from, place, this.turn.size) }, this.#fresh);
      this.#fresh = false;
    } else if (this.#stroke) {
      this.#extend(event.getCoalescedEvents?.().map((coalesced) => this.#place(coalesced)) ?? [place]);
    }
    if (this.state.tool === 'box' || event.pointerType === 'touch') return;
    this.#cursor = place;
    if (!this.#stroke) this.requestUpdate();
  }

  #up() {
    this.#from = this.#stroke = null;
  }

  #leave(event) {
    if (event.pointerType !== 'mouse' || this.#stroke) return;
    this.#cursor = null;
    this.requestUpdate();
  }

  #begin(place) {
    const erase = this.state.tool === 'eraser' ? { erase: true } : {};
    this.#stroke = { width: this.brush, points: [place.map(Math.round)], ...erase };
    stroke(this.#stroke, true);
  }

  #extend(places) {
    this.#stroke = {
      ...this.#stroke,
      points: [...this.#stroke.points, ...places.map((place) => place.map(Math.round))],
    };
    stroke(this.#stroke, false);
  }

  /** Arrows move the box (with Shift: resize) or the cursor; Space paints; Backspace undoes the last step. */
  #key(event) {
    const { tool } = this.state;
    const [width, height] = this.turn.size;
    const arrow = ARROWS[event.key];
    const by = arrow?.map((direction) => Math.round((direction * Math.min(width, height)) / 32) || direction);
    if (event.key === 'Backspace' || event.key === 'Delete') {
      if (tool === 'box') point({ box: null });
      else strokesBack(-1);
    } else if (arrow && tool === 'box') {
      const third = [width, height].map((side) => Math.round(side / 3));
      const box = this.pointing.box ? nudge(this.pointing.box, by[0], by[1], event.shiftKey, this.turn.size) : [...third, ...third];
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
    if (!this.turn) return; // the session was just closed
    const canvas = this.querySelector('canvas');
    const scale = (this.clientWidth * (window.devicePixelRatio || 1) * Math.min(this.state.view.scale, 3)) / this.turn.size[0];
    const [width, height] = this.turn.size.map((side) => Math.max(1, Math.round(side * scale)));
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    const { tool, draft } = this.state;
    draw(canvas, this.pointing, this.turn.size, scale, { shown: namesBox(draft.prompt), active: tool !== 'move' });
    if (this.#cursor && tool !== 'move' && tool !== 'box') this.#drawCursor(canvas, scale);
  }

  #drawCursor(canvas, scale) {
    const context = canvas.getContext('2d');
    const dot = window.devicePixelRatio || 1;
    for (const [color, width] of [
      ['#ffffff', 3.5 * dot],
      ['#16171a', 1.5 * dot],
    ]) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.beginPath();
      context.arc(this.#cursor[0] * scale, this.#cursor[1] * scale, Math.max((this.brush * scale) / 2, 2), 0, 7);
      context.stroke();
    }
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
      @pointerleave=${this.#leave}
      @keydown=${this.#key}
    ></canvas>`;
  }
}

customElements.define('kontext-pointer', Pointer);
