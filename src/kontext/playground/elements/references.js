// The numbered pictures of a request: 1 is being edited, 2 to 4 are references with a role.
import * as act from '../core/actions.js';
import { referenceFile, referenceTurn } from '../core/references.js';
import { changeReference, ROLES } from '../core/state.js';
import { html, nothing, Part, store } from '../core/store.js';
import { t } from '../core/text.js';
import { base } from '../core/tree.js';
import { addPhrase, namedPictures } from '../core/words.js';
import { icon } from './icons.js';
import { Menu } from './menu.js';

class References extends Part {
  #menu = new Menu(this);

  #drop(event, index) {
    event.preventDefault();
    event.stopPropagation();
    const turn = this.state.session.turns[event.dataTransfer.getData('application/x-kontext-turn')];
    const file = event.dataTransfer.files[0];
    if (turn) referenceTurn(turn, index);
    else if (file) referenceFile(file, index);
    window.dispatchEvent(new DragEvent('dragleave'));
  }

  /** Set a role; its phrase is added to the prompt, so that the prompt says what the picture is for. */
  #role(index, role) {
    store.set((state) => {
      const next = changeReference(state, index, { role: role || null });
      const prompt = role ? addPhrase(state.draft.prompt, t(`role.${role}.phrase`, { n: index + 2 })) : state.draft.prompt;
      return { ...next, draft: { ...next.draft, prompt } };
    });
  }

  #useSize(url) {
    const image = new Image();
    image.onload = () => act.setSettings({ size: `${image.naturalWidth}:${image.naturalHeight}` });
    image.src = url;
  }

  #reference(reference, index, named) {
    const n = index + 2;
    const remove = () => store.set((state) => changeReference(state, index, null));
    return html`<details class="reference menu ${named.includes(n) ? 'lit' : ''}"
      @dragover=${(event) => event.preventDefault()} @drop=${(event) => this.#drop(event, index)}>
      <summary aria-label=${t('reference.n', { n, role: t(`role.${reference.role ?? 'none'}`) })}>
        <img src=${reference.url} alt="" /><span class="number">${n}</span>
      </summary>
      <div class="panel">
        <fieldset>
          <legend>${t('reference.is', { n })}</legend>
          ${['', ...ROLES].map(
            (role) => html`<label class="option"><input type="radio" name="role-${n}" value=${role}
            .checked=${(reference.role ?? '') === role} @change=${() => this.#role(index, role)} />${t(`role.${role || 'none'}`)}</label>`,
          )}
        </fieldset>
        <button type="button" class="quiet" @click=${() => act.choose((file) => referenceFile(file, index))}>${t('reference.replace')}</button>
        <button type="button" class="quiet" @click=${() => this.#useSize(reference.url)}>${t('reference.size')}</button>
        <button type="button" class="quiet danger" @click=${remove}>${t('reference.remove')}</button>
      </div>
    </details>`;
  }

  render() {
    const { draft, capabilities } = this.state;
    const turn = base(this.state);
    if (!turn) return nothing;
    const named = namedPictures(draft.prompt);
    const room = draft.references.length < (capabilities?.limits.references ?? 3);
    return html`<div class="references" role="group" aria-label=${t('references')}>
      ${
        draft.references.length
          ? html`<span class="reference first ${named.includes(1) ? 'lit' : ''}" role="img" aria-label=${t('reference.first')}>
            <img src=${turn.thumbnail ?? ''} alt="" /><span class="number">1</span></span>`
          : nothing
      }
      ${draft.references.map((reference, index) => this.#reference(reference, index, named))}
      ${
        room
          ? html`<button type="button" class="add" aria-label=${t('key.add')} aria-keyshortcuts="a" data-tip="${t('key.add')}  A"
            @click=${() => act.choose(referenceFile)} @dragover=${(event) => event.preventDefault()}
            @drop=${(event) => this.#drop(event, null)}>${icon('plus')}</button>`
          : nothing
      }
    </div>`;
  }

  updated() {
    this.#menu.watch();
  }
}

customElements.define('kontext-references', References);
