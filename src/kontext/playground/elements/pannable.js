// Zoom by wheel and pinch, pan by dragging; for the stage and the comparison panes.
import * as act from '../core/actions.js';

export class Pannable {
  #fingers = new Map();

  wheel(event, box) {
    event.preventDefault();
    /** @type {[number, number]} */
    const place = [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
    act.zoom(Math.exp(-event.deltaY * 0.002), place);
  }

  down(event) {
    if (event.button) return;
    this.#fingers.set(event.pointerId, [event.clientX, event.clientY]);
    event.currentTarget.setPointerCapture(event.pointerId);
  }

  move(event, scale) {
    const old = this.#fingers.get(event.pointerId);
    if (!old) return;
    const now = [event.clientX, event.clientY];
    const [other] = [...this.#fingers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    this.#fingers.set(event.pointerId, now);
    if (other) {
      const apart = (place) => Math.hypot(place[0] - other[0], place[1] - other[1]);
      act.zoom(apart(now) / Math.max(apart(old), 1));
    } else if (scale > 1) act.pan(now[0] - old[0], now[1] - old[1]);
  }

  up(event) {
    this.#fingers.delete(event.pointerId);
  }
}
