// The conversation: the tree of turns with thumbnails, branches to the right, variants in one row.
import { goTo } from '../core/actions.js';
import { html, nothing, Part } from '../core/store.js';
import { t } from '../core/text.js';
import { path, rows } from '../core/tree.js';
import { repeat } from '../vendor/lit/lit.js';
import { styleProps } from '../core/style.js';
import { icon, title } from './icons.js';

const DEEPEST = 4; // columns; deeper branches stay there

class Turns extends Part {
  updated() {
    const { here } = this.state;
    if (this.scrolledTo === here) return;
    this.scrolledTo = here;
    this.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  }

  /** Arrow keys move through all turns, Home and End jump to the ends. */
  #walk(event) {
    /** @type {NodeListOf<HTMLElement>} */
    const items = this.querySelectorAll('[role=treeitem]');
    const all = [...items];
    const at = all.indexOf(event.target.closest('[role=treeitem]'));
    const steps = {
      ArrowDown: at + 1,
      ArrowRight: at + 1,
      ArrowUp: at - 1,
      ArrowLeft: at - 1,
      Home: 0,
      End: all.length - 1,
    };
    if (at < 0 || !(event.key in steps)) return;
    event.preventDefault();
    all[Math.min(Math.max(steps[event.key], 0), all.length - 1)].focus();
  }

  #thumbnail(turn) {
    const { job } = turn;
    const source = job ? job.preview : turn.thumbnail;
    const failed = job && ['failed', 'refused'].includes(job.state);
    return html`<span class="thumb ${job && !failed ? 'busy' : ''} ${failed ? 'failed' : ''}">
      ${source ? html`<img src=${source} alt="" loading="lazy" draggable="false" />` : nothing}
      ${failed ? icon('close') : nothing}
      ${job && !failed ? html`<progress max=${job.steps || 1} value=${job.step || 0} aria-hidden="true"></progress>` : nothing}
    </span>`;
  }

  #item(turn, depth, ancestors, group) {
    const here = turn.id === this.state.here;
    const alone = group.length === 1;
    const name = turn.job ? `${t(`state.${turn.job.state}`)}: ${title(turn)}` : title(turn);
    const label = alone ? name : t('variant.of', { i: group.indexOf(turn) + 1, n: group.length, turn: name });
    return html`<button
      type="button"
      role="treeitem"
      class="turn ${ancestors.has(turn.id) ? 'on-way' : ''}"
      aria-label=${label}
      aria-level=${depth + 1}
      aria-selected=${String(here)}
      tabindex=${here ? 0 : -1}
      draggable=${turn.job ? 'false' : 'true'}
      @dragstart=${(event) => event.dataTransfer.setData('application/x-kontext-turn', turn.id)}
      @click=${() => goTo(turn.id)}
    >
      ${this.#thumbnail(turn)}
      ${alone ? html`<span class="words" dir="auto">${title(turn)}</span>` : nothing}
    </button>`;
  }

  render() {
    const { session, here } = this.state;
    const ancestors = new Set(path(this.state, here).map((turn) => turn.id));
    const list = rows(this.state);
    return html`<nav class="turns" aria-label=${t('turns')}>
      <div role="tree" aria-label=${t('turns')} @keydown=${this.#walk}>
        ${repeat(
          session ? list : [],
          (row) => row.members[0].id,
          ({ depth, members, branch, rails }) => html`<div
            class="row ${members.some((member) => ancestors.has(member.id)) ? 'on-way' : ''} ${members.length > 1 ? 'many' : ''} ${branch ? 'branch' : ''}"
            role="none"
            ${styleProps({ '--depth': Math.min(depth, DEEPEST) })}
          >
            ${rails.map((at) => html`<i class="rail" ${styleProps({ '--at': Math.min(at, DEEPEST - 1) })}></i>`)}
            ${members.length > 1 ? html`<span class="words" dir="auto" aria-hidden="true">${title(members[0])}</span>` : nothing}
            ${members.map((turn) => this.#item(turn, depth, ancestors, members))}
          </div>`,
        )}
      </div>
      ${session && list.length === 1 && !list[0].members[0].parent ? html`<p class="note">${t('turns.hint')}</p>` : nothing}
    </nav>`;
  }
}

customElements.define('kontext-turns', Turns);
